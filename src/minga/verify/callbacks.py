"""Traces of loops that are somebody else's: transformers' Trainer and Lightning's.

    from minga.verify.callbacks import TrainerTrace

    tracer = TrainerTrace()
    trainer = Trainer(..., callbacks=[tracer])
    trainer.train(resume_from_checkpoint=tracer.start(trainer))

A leaf is taken when a step is about to begin, its batch fetched already, because that is the one moment at which both
a training and its replay can be stopped; the last one after the last step. What a batch holds must depend on its place
only: data sets and collators that throw dice cannot be done again from the middle.

Knows: the hooks' documented names and arguments. Does not know: either library; both call whatever has the names, so
neither is imported. `LightningTrace` was tested against those names only, not with Lightning itself, and its replays
begin at the beginning.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minga.verify.capture import Subject
from minga.verify.leaves import state_name
from minga.verify.state import read_state
from minga.verify.trace import Settings, TracedRun


class _Hooks:
    """Every hook that is not defined does nothing. `extra` is that of `minga.trace`."""

    def __init__(self, extra: dict[str, Any] | None = None) -> None:
        self.extra = extra
        self.run: TracedRun | None = None
        self._begun = False

    def __getattr__(self, name: str) -> Callable[..., None]:
        """A hook that does nothing.

        Raises:
            AttributeError: no name of a hook.
        """
        if not name.startswith("on_"):
            raise AttributeError(name)
        return _nothing

    def _open(self, model: Any, optimizer: Any, scheduler: Any) -> None:
        run = TracedRun(Subject(model, optimizer, scheduler, self.extra), Settings.of(os.environ))
        self.run, self._begun = run.__enter__(), False

    def _about_to_step(self, done: int, anew: bool = False) -> None:
        assert self.run is not None
        try:
            if self._begun:
                self.run.done(done)
            else:
                self._begun = True
                self.run.begin(done, anew)
        except BaseException:  # the end of a replay is one, too
            self._close(whole=False)
            raise

    def _last_step_done(self, done: int) -> None:
        assert self.run is not None
        try:
            self.run.done(done, last=True)
        except BaseException:
            self._close(whole=False)
            raise

    def _close(self, whole: bool) -> None:
        run, self.run = self.run, None
        if run is not None:
            run.leave(whole)


def _nothing(*given: Any, **named: Any) -> None:
    """Do nothing."""


class TrainerTrace(_Hooks):
    """A callback for `transformers.Trainer`, see the module. One process; gradient accumulation counts as one step."""

    def start(self, trainer: Any) -> str | None:
        """What to give `Trainer.train` as `resume_from_checkpoint`: None, but in a replay from the middle a folder.

        The folder holds the weights and the number of steps done, from which Trainer finds its place in the data; the
        whole state is put back before the first step.
        """
        settings = Settings.of(os.environ)
        if settings.replay is None or settings.replay[0] == 0:
            return None
        assert settings.replay_folder is not None
        from safetensors.torch import save_file

        state = read_state(settings.replay_folder / state_name(settings.replay[0]))
        folder = Path(tempfile.mkdtemp(prefix="minga-replay-"))
        weights = {name: tensor.contiguous() for name, tensor in state["models"]["0"]["parameters"].items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        facts = {"global_step": state["step"], "train_batch_size": trainer.args.train_batch_size}
        (folder / "trainer_state.json").write_text(json.dumps(facts))
        return str(folder)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Take hold of what is trained."""
        self._open(given["model"], given["optimizer"], given["lr_scheduler"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """The leaf of the step before, if one is due; leaf 0 before the first."""
        self._about_to_step(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """The last leaf, after the last step."""
        if state.global_step >= state.max_steps or control.should_training_stop:
            self._last_step_done(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Close the trace."""
        self._close(whole=True)


class LightningTrace(_Hooks):
    """A callback for `lightning.Trainer`, see the module. One process; `trainer.global_step` counts optimiser steps."""

    state_key = "minga.verify.callbacks.LightningTrace"

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Nothing to prepare."""

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Nothing to clear away."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing of ours is in Lightning's checkpoints."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing of ours is in Lightning's checkpoints."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take hold of what is trained."""
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        self._open(pl_module, list(trainer.optimizers), schedulers)
        self._done = -1

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """The leaf of the step before, if one is due; nothing while gradients are accumulated."""
        if trainer.global_step != self._done:
            self._done = trainer.global_step
            self._about_to_step(self._done, anew=True)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The last leaf, and close the trace."""
        if self.run is not None and self._begun and trainer.global_step != self._done:
            self._last_step_done(trainer.global_step)
        self._close(whole=True)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the trace; the step that failed is not in it."""
        self._close(whole=False)
