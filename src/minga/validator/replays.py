"""Does a piece of committed work again, in a sandbox, as the provider's machine did it the first time.

The same inputs are unpacked to the same places, the same launcher starts the same text with the same variables; what is
added is `MINGA_REPLAY`, which tells the trace library inside the job to begin at a kept state, to do some leaves, to
write their hashes and to end. There is no network whatever the work says: what a result hangs on is among the inputs.

Knows: evidence (`minga.validator.evidence`), the runtime. Does not know: games, verdicts. Rule: what cannot be done
again here is `ReplayFailed`, never a leaf that differs: only leaves that the job itself wrote, on its way to exit code
0, say anything.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from minga.core.effects import Clock
from minga.core.errors import MingaError, ReplayFailed
from minga.core.spec import Bundle
from minga.runtimes.launcher import LAUNCH, environment_at, lay_out, write_launcher
from minga.runtimes.runtime import WORK, Exit, Handle, Input, Limits, Runtime, Task
from minga.runtimes.unpacking import unpack
from minga.store.checkpoints import assemble
from minga.validator.evidence import LEAF_BYTES, Evidence

FOLDER = "out/replay"
BEAT_SECONDS = 1.0
TAIL_BYTES = 2000
DISK_BYTES = 1 << 30
"""What a replay may write besides four times its inputs."""

REMEDY = "see that this machine has the work's environment and enough of everything"


@dataclass(frozen=True)
class Replayer:
    """Where work is done again: a runtime, environments by name, a folder of its own, and what one replay may use."""

    runtime: Runtime
    environments: Mapping[str, Path]
    folder: Path
    limits: Limits
    clock: Clock

    async def clear(self) -> None:
        """Remove what replays of an earlier process left."""
        for name in await self.runtime.known():
            if (handle := await self.runtime.adopt(name)) is not None:
                await handle.remove()

    async def again(self, name: str, evidence: Evidence, first: int, last: int, own: bool = True) -> list[bytes]:
        """The hashes of leaves `first` + 1 … `last` as they come out here; fewer if the job ends before.

        Args:
            name: a task id that no other replay has now.
            evidence: checked, its inputs and the state of leaf `first` in its blobs.
            first: a kept leaf; 0 begins as the work itself begins.
            last: above `first`.
            own: from leaf 0, begin as the work begins, and not from the provider's state of leaf 0.

        Raises:
            ReplayFailed: the environment is not here, the job ended otherwise than a replay does, or took too long.
            DiskFull: no room on our own disk.
        """
        stage = self.folder / name
        try:
            task = await anyio.to_thread.run_sync(self._task, name, evidence, first, last, stage, own)
            handle = await self.runtime.start(task)
        except MingaError as error:
            raise ReplayFailed(f"the work cannot be done again here: {error.fact}"[:300], REMEDY) from error
        finally:
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(stage, ignore_errors=True))
        try:
            return await self._attend(handle, last - first)
        finally:
            with anyio.CancelScope(shield=True):
                await handle.remove()

    def _task(self, name: str, evidence: Evidence, first: int, last: int, stage: Path, own: bool) -> Task:
        work, blobs = evidence.work, evidence.blobs
        shutil.rmtree(stage, ignore_errors=True)
        if (
            evidence.place.get("accelerators")
            or evidence.place.get("machine", platform.machine()) != platform.machine()
        ):
            # Bits of another class of hardware say nothing, and would accuse whoever was honest on it.
            raise ReplayFailed("the work was done on another class of hardware", REMEDY)
        if work.environment not in self.environments:
            raise ReplayFailed(f"there is no environment {work.environment!r} here", REMEDY)

        def unpacked(bundle: Bundle, folder: Path, left: int) -> None:
            if bundle.kind == "checkpoint":
                assemble(blobs, bundle.blake3, folder, left)
            else:
                unpack(blobs.path(bundle.blake3), folder, left)

        state = evidence.state(first, own)
        limits = self._limits(sum(bundle.bytes for bundle in work.inputs) + (state.bytes if state else 0))
        inputs, mounts = lay_out(work.inputs, stage, limits.disk_bytes or DISK_BYTES, unpacked)
        inputs.append(write_launcher(stage / "minga", work.setup, work.run))
        if state is not None:
            inputs.append(Input(blobs.path(state.blake3), f"{FOLDER}/states/{first:08d}.state"))
        until = f"{first}:{last}"
        if last == len(evidence.leaves) - 1 and evidence.steps:
            until += f":{evidence.steps}"  # the last leaf may stand for fewer steps than the others
        ours = {"MINGA_REPLAY": until, "MINGA_REPLAY_DIR": f"{WORK}/{FOLDER}"}
        return Task(
            task_id=name,
            argv=LAUNCH,
            environment=environment_at(self.environments[work.environment]),
            limits=limits.only(self.runtime.enforces),
            env={"OMP_NUM_THREADS": "1"} | work.envs | ours,
            inputs=tuple(inputs),
            mounts=tuple(mounts),
        )

    def _limits(self, bytes_in: int) -> Limits:
        """The limits of a replay with so many bytes of inputs: disk is set aside whole, so no more than it can need."""
        wanted = DISK_BYTES + 4 * bytes_in
        return replace(self.limits, disk_bytes=min(wanted, self.limits.disk_bytes or wanted))

    async def _attend(self, handle: Handle, count: int) -> list[bytes]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._beat, handle)
            end = await handle.wait()
            tasks.cancel_scope.cancel()
        if end.code != 0 or end.reason != "exited":
            raise ReplayFailed(await _why(handle, end), REMEDY)
        try:
            with await handle.open_output(f"{FOLDER}/leaves.bin") as reader:
                data = await anyio.to_thread.run_sync(reader.read, LEAF_BYTES * count + 1)
        except MingaError as error:
            raise ReplayFailed(f"the replay wrote no leaves: {error.fact}", REMEDY) from error
        if len(data) % LEAF_BYTES or len(data) > LEAF_BYTES * count:
            raise ReplayFailed(f"the replay wrote {len(data)} bytes of leaves for {count}", REMEDY)
        return [data[at : at + LEAF_BYTES] for at in range(0, len(data), LEAF_BYTES)]

    async def _beat(self, handle: Handle) -> None:
        while True:
            handle.beat()
            await self.clock.sleep(BEAT_SECONDS)


async def _why(handle: Handle, end: Exit) -> str:
    tail = b"".join([chunk.data async for chunk in handle.follow_log()])[-TAIL_BYTES:]
    last = (tail.decode(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
    return f"the replay ended with code {end.code} ({end.reason}): {last}"[:300]
