"""The cheating provider of `minga demo-dispute`: the real one, on a runtime that changes the job before it runs it.

A test double, and no part of the product: nothing that Minga ships for owners can be told to cheat. What it does is
what a saving provider would do: from one step on it no longer trains the first layer. It commits to what it did, and
serves that truthfully, because only so does its commitment hold together; so it is the work that gives it away.
"""

from __future__ import annotations

from pathlib import Path

from minga.core.errors import InternalError
from minga.runtimes.bubblewrap import BubblewrapRuntime
from minga.runtimes.runtime import Handle, Task

FROZEN_FROM = 60
"""The first step, from 0, in which the first layer is left as it is; leaf `FROZEN_FROM` + 1 is the first false one."""

_ORDERED = "        optimizer.step()\n"
_DONE = f"        if step >= {FROZEN_FROM}:\n            model[0].weight.grad = model[0].bias.grad = None\n{_ORDERED}"


class FreezingRuntime(BubblewrapRuntime):
    """The sandbox, but a job's `train.py` loses the training of its first layer on the way in."""

    async def start(self, task: Task) -> Handle:
        """As the sandbox does, with the script changed.

        Raises:
            InternalError: the job has no such script.
        """
        for item in task.inputs:
            if item.target == "work":
                freeze(item.source / "train.py")
        return await super().start(task)


def freeze(script: Path) -> None:
    """Change the script so that its first layer is not trained from step `FROZEN_FROM` on; again changes nothing.

    Raises:
        InternalError: it is not the script of the demo.
    """
    text = script.read_text() if script.is_file() else ""
    if _DONE in text:
        return
    if text.count(_ORDERED) != 1:
        raise InternalError("the demo's cheat does not know this script", "use examples/verified")
    script.write_text(text.replace(_ORDERED, _DONE))
