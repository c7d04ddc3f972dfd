"""One training step to dispute: an honest one, and providers that cheat in it, each in its own way.

A cheat is either *open*: it does other operators, which its plan shows; or *hidden*: it claims the plan of the work and
other contents, which a `Liar` between the recorder and PyTorch puts in.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from minga.verify.grid import Grid
from minga.verify.operators import Kept, Recorder, Trace
from minga.verify.operators_update import groups_of

Change = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], Any]


class Liar(TorchDispatchMode):
    """Replaces the result of some operators; `told` counts them."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self._change = change
        self.told = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with _disable_current_modes():
            lie = self._change(func, args, kwargs or {}, lambda: func(*args, **(kwargs or {})))
        if lie is None:
            return func(*args, **(kwargs or {}))
        self.told += 1
        return lie


def _bf16(func: Any, args: Any, kwargs: Any, honest: Any) -> Any:
    """Products in bfloat16, given out as float32."""
    if str(func) not in ("aten.mm.default", "aten.bmm.default", "aten.addmm.default"):
        return None
    return func(*(arg.to(torch.bfloat16) for arg in args), **kwargs).to(torch.float32)


def _noise(func: Any, args: Any, kwargs: Any, honest: Any) -> Any:
    """A thousandth of noise on what the embedding's gradient is."""
    if str(func) != "aten.embedding_dense_backward.default":
        return None
    found = honest()
    return found * (1 + 1e-3 * torch.sin(torch.arange(found.numel()).reshape(found.shape)))


def _skipped(func: Any, args: Any, kwargs: Any, honest: Any) -> Any:
    """The activation of the feed-forward layers is not computed but passed through."""
    return args[0].clone() if str(func) == "aten.silu.default" else None


def _rate(func: Any, args: Any, kwargs: Any, honest: Any) -> Any:
    """The last operator of AdamW goes half as far again as its plan says."""
    if str(func) != "aten.addcdiv_.default":
        return None
    return func(*args, **{**kwargs, "value": kwargs["value"] * 1.5})


HIDDEN: dict[str, tuple[Change, str]] = {
    "bf16 compute": (_bf16, "mm"),
    "noise 1e-3": (_noise, "embedding_dense_backward"),
    "skipped activation": (_skipped, "silu"),
    "other learning rate": (_rate, "addcdiv_"),
}
"""What is changed, and the kind of operator at which it must be found."""


class Work:
    """A small Llama, or a small CNN, `warm` steps into training with AdamW; the state before the next step is kept."""

    def __init__(self, kind: str = "llama", seed: int = 0, rate: float = 1e-3, warm: int = 2) -> None:
        self.kind = kind
        with Grid():
            torch.manual_seed(seed)
            self.model = _llama() if kind == "llama" else _cnn()
            self.batch = torch.randint(0, 32, (4, 12)) if kind == "llama" else torch.rand(4, 1, 8, 8)
            self.labels = torch.randint(0, 4, (4,))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate)
        with Grid():
            for _ in range(warm):
                self.step()
        self._start = copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict()))

    def step(self, dropped: bool = False) -> None:
        """One step; `dropped` leaves the last layer out."""
        self.optimizer.zero_grad()
        if self.kind == "llama":
            layers = self.model.model.layers
            if dropped:
                self.model.model.layers = layers[:-1]
                self.model.config.num_hidden_layers = 1
            loss = self.model(input_ids=self.batch, labels=self.batch).loss
            self.model.model.layers = layers
            self.model.config.num_hidden_layers = 2
        else:
            loss = nn.functional.cross_entropy(self.model(self.batch), self.labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def rewind(self) -> None:
        """Back to the state before the next step."""
        self.model.load_state_dict(copy.deepcopy(self._start[0]))
        self.optimizer.load_state_dict(copy.deepcopy(self._start[1]))

    def state(self) -> dict[str, dict[str, Tensor]]:
        """A copy of parameters and moments now."""
        return groups_of(self.model, self.optimizer)

    def given(self) -> list[Tensor]:
        """Everything that the step starts from."""
        states = self.optimizer.state_dict()["state"]
        moments = [value for _, held in sorted(states.items()) for _, value in sorted(held.items())]
        return [*self.model.state_dict().values(), *moments, self.batch, self.labels]

    def record(
        self, keep: Container[int] = (), grid: bool = False, lie: str = "", rate: float = 1.0, dropped: bool = False
    ) -> tuple[Trace, dict[int, Kept]]:
        """The next step, recorded: honest, hidden (`lie`), or openly another (`rate`, `dropped`)."""
        self.rewind()
        for group in self.optimizer.param_groups:
            group["lr"] *= rate
        contexts: list[AbstractContextManager[Any]] = [Grid()] if grid else []
        if lie:
            contexts.append(Liar(HIDDEN[lie][0]))
        recorder = Recorder(keep, self.given())
        with ExitStack() as stack:
            for context in (*contexts, recorder):
                stack.enter_context(context)
            self.step(dropped)
        if lie:
            assert contexts[-1].told, "nothing was changed"  # type: ignore[attr-defined]
        return recorder.trace(), recorder.kept


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=32, num_key_value_heads=1, max_position_embeddings=16, attn_implementation="eager", **shape
    )
    return LlamaForCausalLM(config)


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.GELU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4),
    )  # fmt: skip


ALL = range(1, 1 << 20)
