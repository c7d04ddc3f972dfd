"""Work is done again in a real sandbox, as it was done first; trouble on this machine accuses nobody."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from works import JOB, KEEP, STEPS, Done, committed_to, done, honest

from fixtures import SystemClock
from minga.core.crypto import new_key
from minga.core.errors import NotServed, ReplayFailed, Undetermined
from minga.core.spec import FileEntry
from minga.runtimes.bubblewrap import BubblewrapRuntime, prerequisites
from minga.runtimes.runtime import Limits
from minga.validator.checks import check, verdict
from minga.validator.events import DOES_NOT_FOLLOW, FOLLOWS
from minga.validator.evidence import Evidence
from minga.validator.replays import Replayer

pytestmark = [pytest.mark.anyio, pytest.mark.root, pytest.mark.timeout(120)]
SIGNER = new_key(b"s" * 32)
MIB = 1 << 20


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where users of sandboxes may enter: pytest's folders are ours alone."""
    with tempfile.TemporaryDirectory(prefix="minga-test-replays-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
async def replayer(folder: Path) -> AsyncIterator[Replayer]:
    """A replayer in a sandbox, with this machine's Python."""
    if missing := [fact for fact in prerequisites() if not fact.ok]:
        pytest.skip(f"no sandbox here: {missing[0].name}: {missing[0].found}")
    limits = Limits(cpus_milli=1000, memory_bytes=256 * MIB, disk_bytes=32 * MIB, pids=64, wall_seconds=30)
    environments = {"python": Path("/")}
    made = Replayer(BubblewrapRuntime(folder / "tasks"), environments, folder / "stage", limits, SystemClock())
    yield made
    await made.clear()


async def served(evidence: Evidence, leaf: int, own: bool = True) -> FileEntry | None:
    """All is here already."""
    return evidence.state(leaf, own)


def cheat_from(number: int):
    """A provider that does something else from step `number` on."""
    return lambda state, step: honest(state, step) if step < number else honest(state, step + 1)


async def test_honest_work_comes_out_as_committed(replayer, folder):
    evidence = done(folder / "work", SIGNER).evidence()
    own = await replayer.again("a", evidence, KEEP, 2 * KEEP)
    assert own == list(evidence.leaves[KEEP + 1 : 2 * KEEP + 1])
    finding = await check(replayer, served, "b", evidence, 0, 5)
    assert finding.differs == 0
    assert verdict(finding, 5)[0] == FOLLOWS
    assert await replayer.runtime.known() == ()
    assert not list((folder / "stage").iterdir())


@pytest.mark.parametrize("wrong", [13, 20])
async def test_the_first_wrong_leaf_is_found(replayer, folder, wrong):
    evidence = done(folder / "work", SIGNER, cheat_from(wrong - 1)).evidence()
    finding = await check(replayer, served, "a", evidence, KEEP, 2 * KEEP)
    assert finding.differs == wrong
    assert finding.own != "0x" + evidence.leaves[wrong].hex()
    assert verdict(finding, wrong)[0] == DOES_NOT_FOLLOW


async def test_a_leaf_after_a_wrong_one_follows_from_nothing(replayer, folder):
    evidence = done(folder / "work", SIGNER, cheat_from(12)).evidence()
    finding = await check(replayer, served, "a", evidence, KEEP, 15)
    assert (finding.differs, verdict(finding, 15)[0]) == (13, DOES_NOT_FOLLOW)


async def test_a_trace_that_is_longer_than_the_work(replayer, folder):
    made = done(folder / "work", SIGNER)
    longer = committed_to(made, [*made.leaves, b"\x07" * 32])
    evidence = replace(longer.evidence(), steps=STEPS + 1)
    finding = await check(replayer, served, "a", evidence, 20, STEPS + 1)
    assert (finding.differs, finding.own) == (STEPS + 1, "")
    assert "the job had ended" in verdict(finding, STEPS + 1)[1]


async def test_a_withheld_state_only_makes_the_check_longer(replayer, folder):
    made = done(folder / "work", SIGNER, cheat_from(12))
    del made.files[f"trace/states/{KEEP:08d}.state"]
    finding = await check(replayer, served, "a", made.evidence(), KEEP, 2 * KEEP)
    assert (finding.start, finding.differs) == (0, 13)
    assert "not served" in finding.back[0]


async def test_a_state_that_nobody_can_restore_only_makes_the_check_longer(replayer, folder):
    made = done(folder / "work", SIGNER)
    poison = made.blobs.add_bytes(b"poison")
    leaves = list(made.leaves)
    leaves[KEEP] = bytes.fromhex(poison)
    poisoned = committed_to(made, leaves)
    poisoned.put(f"trace/states/{KEEP:08d}.state", b"poison")
    finding = await check(replayer, served, "a", poisoned.evidence(), KEEP, KEEP + 3)
    assert (finding.start, finding.differs) == (0, KEEP)
    assert "this is no state" in finding.back[0]
    assert verdict(finding, KEEP + 1)[0] == DOES_NOT_FOLLOW


async def test_work_that_cannot_be_done_here_accuses_nobody(replayer, folder):
    made: Done = done(folder / "work", SIGNER, job="import sys; sys.exit('no memory for this')")
    with pytest.raises(ReplayFailed, match="no memory for this"):
        await check(replayer, served, "a", made.evidence(), KEEP, 2 * KEEP)
    elsewhere = made.work.model_copy(update={"environment": "cuda"})
    with pytest.raises(ReplayFailed, match="no environment 'cuda'"):
        await replayer.again("b", replace(made.evidence(), work=elsewhere), 0, 1)
    assert await replayer.runtime.known() == ()


UNSEEDED = JOB.replace('b"\\0" * 32\n', "os.urandom(32)\n")
"""The same job, whose author forgot to seed what it begins with."""


async def test_a_beginning_that_is_not_determined_accuses_nobody(replayer, folder):
    assert UNSEEDED != JOB
    evidence = done(folder / "work", SIGNER, job=UNSEEDED).evidence()
    with pytest.raises(Undetermined, match="not come out the same twice"):
        await check(replayer, served, "a", evidence, 0, 5)


async def test_work_that_differs_from_itself_accuses_nobody(replayer, folder):
    moody = JOB.replace("+ data).digest()", "+ os.urandom(1)).digest()")
    assert moody != JOB
    with pytest.raises(Undetermined):
        await check(replayer, served, "a", done(folder / "work", SIGNER, job=moody).evidence(), KEEP, 15)


async def test_after_an_undetermined_beginning_steps_are_checked_from_the_state_that_was_served(replayer, folder):
    reads = UNSEEDED.replace("if first:", 'if first or (folder / "states" / f"{first:08d}.state").exists():')
    good = done(folder / "good", SIGNER, job=reads).evidence()
    assert (await check(replayer, served, "a", good, 0, 5)).differs == 0
    bad = done(folder / "bad", SIGNER, cheat_from(3), job=reads).evidence()
    assert (await check(replayer, served, "b", bad, 0, 5)).differs == 4


@pytest.mark.parametrize("place", [{"accelerators": ["a large card"]}, {"machine": "riscv64"}])
async def test_work_of_another_class_of_hardware_accuses_nobody(replayer, folder, place):
    evidence = replace(done(folder / "work", SIGNER, cheat_from(3)).evidence(), place=place)
    with pytest.raises(ReplayFailed, match="another class of hardware"):
        await check(replayer, served, "a", evidence, 0, 5)


async def test_leaves_that_no_replay_can_have_written_are_none(replayer, folder):
    torn = JOB.replace('print("done")', "open(folder / 'leaves.bin', 'ab').write(b'x' * 40)")
    with pytest.raises(ReplayFailed, match="bytes of leaves"):
        await replayer.again("a", done(folder / "torn", SIGNER, job=torn).evidence(), 0, 2)
    silent = JOB.replace('"leaves.bin"', '"elsewhere.bin"')
    with pytest.raises(ReplayFailed, match="wrote no leaves"):
        await replayer.again("b", done(folder / "silent", SIGNER, job=silent).evidence(), 0, 2)


async def test_a_replay_sees_no_network(replayer, folder):
    reach = "import socket\nsocket.create_connection(('1.1.1.1', 53), 2)\n"
    with pytest.raises(ReplayFailed, match=r"unreachable|Errno"):
        await replayer.again("a", done(folder / "work", SIGNER, job=reach + JOB).evidence(), 0, 2)


async def test_inputs_that_escape_are_refused(replayer, folder):
    made = done(folder / "work", SIGNER)
    broken = made.blobs.add_bytes(b"this is no archive")
    inputs = [made.work.inputs[0].model_copy(update={"blake3": broken, "bytes": 18})]
    evidence = replace(made.evidence(), work=made.work.model_copy(update={"inputs": inputs}))
    with pytest.raises(ReplayFailed, match="cannot be done again"):
        await replayer.again("a", evidence, 0, 2)


async def test_a_state_that_is_not_the_leafs_is_never_started_from(replayer, folder):
    made = done(folder / "work", SIGNER)
    made.put(f"trace/states/{KEEP:08d}.state", b"\x01" * 32)
    with pytest.raises((NotServed, ReplayFailed), match="another one"):
        await replayer.again("a", made.evidence(), KEEP, KEEP + 1)
