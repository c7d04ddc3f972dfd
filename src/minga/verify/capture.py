"""Everything that decides a training's next step, taken into a state and put back, exactly.

| part       | what is taken                                                                                        |
|------------|------------------------------------------------------------------------------------------------------|
| models     | parameters, all buffers, which parameters are frozen, which modules evaluate, extra state            |
| optimizers | `state_dict()`: moments, step counts, the numbers of each group                                      |
| schedulers | `state_dict()`                                                                                       |
| extra      | tensors, arrays, generators, lists, maps, numbers, text, what has `state_dict` and `load_state_dict` |
| rng        | Python's, numpy's and PyTorch's generators, and each accelerator's in use; null for one never used   |
| step       | how many steps were done since the job began                                                         |

Gradients are not taken: a step begins by clearing them. Knows: PyTorch's objects. Does not know: files, hashes, when.
Rule: tensors are taken by reference, so use a state before the next step; they are put back in place, so whoever holds
a parameter, a buffer or an extra tensor sees the restored one.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from minga.core.errors import InvalidInput

FORMAT = "minga training state 1"


class Subject:
    """What a trace is of. Each of `model`, `optimizer` and `scheduler` is one, a list of some, or a map of some.

    `extra` is a map of names to whatever else the next step depends on. Numbers and text in it are replaced in the map
    when a state is put back, so read them from there.
    """

    def __init__(
        self, model: Any = None, optimizer: Any = None, scheduler: Any = None, extra: dict[str, Any] | None = None
    ) -> None:
        self.models = _named(model)
        self.optimizers = _named(optimizer)
        self.schedulers = _named(scheduler)
        self.extra: dict[str, Any] = extra if extra is not None else {}

    def capture(self, step: int) -> dict[str, Any]:
        """The state after `step` steps, its tensors by reference; for `minga.verify.state`."""
        return {
            "format": FORMAT,
            "step": step,
            "models": {name: _capture_model(model) for name, model in self.models.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "schedulers": {name: scheduler.state_dict() for name, scheduler in self.schedulers.items()},
            "extra": {name: _capture_extra(value) for name, value in self.extra.items()},
            "rng": capture_rng(),
        }

    def restore(self, state: Any) -> int:
        """Put a state back, and return its step.

        Raises:
            InvalidInput: it is of other models, optimisers or extras than these.
        """
        if not isinstance(state, dict) or state.get("format") != FORMAT or type(state.get("step")) is not int:
            raise InvalidInput("not a state of a training", "take the file of a kept state of this job")
        try:
            for part in ("models", "optimizers", "schedulers", "extra"):
                mine = getattr(self, part)
                if set(mine) != set(state[part]):
                    raise InvalidInput(
                        f"the state has {part} {sorted(state[part])}, the job {sorted(mine)}",
                        "run the job that made it",
                    )
            for name, model in self.models.items():
                _restore_model(model, state["models"][name])
            for name, optimizer in self.optimizers.items():
                _restore_optimizer(optimizer, state["optimizers"][name])
            for name, scheduler in self.schedulers.items():
                scheduler.load_state_dict(state["schedulers"][name])
            for name, value in self.extra.items():
                self.extra[name] = _restore_extra(value, state["extra"][name], name)
            restore_rng(state["rng"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            fact = f"the state does not fit the job: {type(error).__name__}: {error}"[:300]
            raise InvalidInput(fact, "run the job that made it, with the same versions") from error
        return int(state["step"])


def _named(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if isinstance(given, list | tuple):
        return {str(at): one for at, one in enumerate(given)}
    if isinstance(given, Mapping) and not hasattr(given, "state_dict"):
        return {str(name): one for name, one in given.items()}
    return {"0": given}


# -------------------------------------------------------------------------------------------------- models, optimisers


def _capture_model(model: Any) -> dict[str, Any]:
    import torch

    parameters = dict(model.named_parameters())
    modules = dict(model.named_modules())
    has_extra = [n for n, m in modules.items() if type(m).get_extra_state is not torch.nn.Module.get_extra_state]
    return {
        "parameters": parameters,
        "buffers": dict(model.named_buffers()),
        "frozen": [name for name, parameter in parameters.items() if not parameter.requires_grad],
        "evaluating": [name for name, module in modules.items() if not module.training],
        "extra": {name: modules[name].get_extra_state() for name in has_extra},
    }


def _restore_model(model: Any, state: dict[str, Any]) -> None:
    import torch

    parameters, modules = dict(model.named_parameters()), dict(model.named_modules())
    frozen, evaluating = set(state["frozen"]), set(state["evaluating"])
    with torch.no_grad():
        for mine, theirs in ((parameters, state["parameters"]), (dict(model.named_buffers()), state["buffers"])):
            if set(mine) != set(theirs):
                different = sorted(set(mine) ^ set(theirs))[:3]
                raise InvalidInput(f"the state is of another model: {different}", "run the job that made it")
            for name, tensor in mine.items():
                _copy(tensor, theirs[name], name)
    for name, parameter in parameters.items():
        parameter.requires_grad_(name not in frozen)
        parameter.grad = None
    for name, module in modules.items():
        module.training = name not in evaluating
    for name, value in state["extra"].items():
        modules[name].set_extra_state(value)


def _copy(mine: Any, theirs: Any, name: str) -> None:
    """Put the elements of one tensor or array into another of the same type and shape."""
    if type(theirs).__name__ not in ("Tensor", "ndarray") or (mine.dtype, mine.shape) != (theirs.dtype, theirs.shape):
        raise InvalidInput(f"{name[:200]} has another type or shape in the state", "run the job that made it")
    if hasattr(mine, "copy_"):
        mine.copy_(theirs)
    else:
        mine[...] = theirs


def _restore_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """PyTorch's own loading, which casts to the parameter's type; then each tensor in the type it was saved in."""
    optimizer.load_state_dict(state)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    places = [place for group in state["param_groups"] for place in group["params"]]
    for place, parameter in zip(places, parameters, strict=True):
        for name, saved in state["state"].get(place, {}).items():
            mine = optimizer.state[parameter][name]
            if hasattr(saved, "detach") and mine.dtype != saved.dtype:
                optimizer.state[parameter][name] = saved.to(mine.device)


# --------------------------------------------------------------------------------------------------------------- extra


def _capture_extra(value: Any) -> Any:
    if hasattr(value, "state_dict"):
        return {"state": value.state_dict()}
    if hasattr(value, "bit_generator"):
        return {"generator": value.bit_generator.state}
    if type(value).__name__ == "RandomState":
        return {"generator": value.get_state(legacy=False)}
    if hasattr(value, "get_state") and hasattr(value, "set_state"):
        return {"generator": value.get_state()}
    return {"value": value}


def _restore_extra(mine: Any, saved: dict[str, Any], name: str) -> Any:
    """What stands in the map afterwards: the same object wherever it can be changed in place."""
    if "state" in saved:
        mine.load_state_dict(saved["state"])
        return mine
    if "generator" in saved:
        if hasattr(mine, "bit_generator"):
            mine.bit_generator.state = saved["generator"]
        else:
            mine.set_state(saved["generator"])
        return mine
    value = saved["value"]
    if isinstance(mine, list):
        mine[:] = value
    elif isinstance(mine, dict):
        fresh = dict(value)
        mine.clear()
        mine.update(fresh)
    elif hasattr(mine, "dtype") and hasattr(mine, "shape"):
        return _restore_elements(mine, value, name)
    else:
        return value
    return mine


def _restore_elements(mine: Any, value: Any, name: str) -> Any:
    """In place if type and shape are still the same; a job that replaces its tensor reads the new one from the map."""
    if (mine.dtype, tuple(mine.shape)) != (value.dtype, tuple(value.shape)) or not hasattr(mine, "__setitem__"):
        return value.to(mine.device) if hasattr(mine, "detach") else value
    if hasattr(mine, "detach"):
        import torch

        with torch.no_grad():
            _copy(mine, value, name)
    else:
        _copy(mine, value, name)
    return mine


# ----------------------------------------------------------------------------------------------------------------- rng


def capture_rng() -> dict[str, Any]:
    """The states of all generators of the process, as a state that can be written.

    Python's and numpy's begin with a secret of the machine. As long as nobody seeds or uses one, nothing hangs on it,
    and it is null, so that a job that needs no dice need not seed them.
    """
    import torch

    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call, unused-ignore]
    return {
        "python": _python_rng(),
        "numpy": _numpy_rng(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if cuda else [],
    }


def _python_rng() -> dict[str, Any] | None:
    import random

    from minga import PYTHON_DICE

    version, words, gauss = state = random.getstate()
    return None if state == PYTHON_DICE else {"version": version, "words": _words(words), "gauss": gauss}


def _numpy_rng() -> dict[str, Any] | None:
    import numpy as np

    dice: Any = np.random
    state: dict[str, Any] = dict(dice.get_state(legacy=False))
    secret = dice.get_bit_generator().seed_seq
    if secret is None or state["bit_generator"] != "MT19937" or state["has_gauss"]:
        return state
    unused = dice.MT19937(secret).state["state"]
    mine = state["state"]
    return None if mine["pos"] == unused["pos"] and bool((mine["key"] == unused["key"]).all()) else state


def _words(words: tuple[int, ...]) -> Any:
    """Integers below 2**32 as an array; four times faster than numpy's own reading of a tuple."""
    import numpy as np

    return np.frombuffer(struct.pack(f"<{len(words)}I", *words), dtype="<u4")


def restore_rng(state: dict[str, Any]) -> None:
    """Set all generators of the process.

    Raises:
        InvalidInput: the state is of more accelerators than are here.
    """
    import random

    import numpy as np
    import torch

    python, numpy = state["python"], state["numpy"]
    if python is not None:
        random.setstate((python["version"], tuple(int(word) for word in python["words"]), python["gauss"]))
    if numpy is not None:
        np.random.set_state(numpy)
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) > torch.cuda.device_count():
        raise InvalidInput(f"the state is of {len(state['cuda'])} accelerators", "replay it on as many")
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
