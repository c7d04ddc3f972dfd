"""Sold: a training. Got: a model whose first layer nobody trained, and a loss that fell all the same.

With the trace library, PyTorch, sandboxes and contracts as they are: the provider that left the layer out is found by
somebody who does pieces of the work again, loses the dispute, and the tenant has its money back. And the opposite: an
honest provider is accused by a liar, wins, and the liar's bond pays for the trial.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "validator"))

from courts import DEPOSIT, JUDGE, Court, Dock, balance, bench, config, court, key_of, reached, validating
from works import Done

from fixtures import eventually
from minga.chain.contracts import Token
from minga.cli.demo_cheat import FROZEN_FROM, FreezingRuntime
from minga.client.bundle import pack, pack_files
from minga.client.jobfile import load_job_file
from minga.client.verified import LIBRARY, library, trace_of, variables
from minga.core.crypto import Hash32, PrivateKey, to_hex
from minga.core.spec import Bundle, FileEntry
from minga.core.work import Work
from minga.protocol.dispute import SHORT, Outcome, Phase
from minga.protocol.merkle import Tree
from minga.runtimes.bubblewrap import BubblewrapRuntime, prerequisites
from minga.runtimes.environments import ai_environment, is_complete
from minga.runtimes.launcher import LAUNCH, environment_at, lay_out, write_launcher
from minga.runtimes.runtime import Limits, Task
from minga.runtimes.unpacking import unpack
from minga.store.blobs import BlobStore
from minga.validator.evidence import Claim
from minga.validator.moves import way
from minga.validator.world import Options

pytestmark = [pytest.mark.anyio, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "verified" / "job.yaml"
REFEREES = ("referee 1", "referee 2", "referee 3")
GIB = 1 << 30
LIMITS = Limits(cpus_milli=1000, memory_bytes=2 * GIB, disk_bytes=GIB, pids=256, wall_seconds=240)


@pytest.fixture
async def room() -> AsyncIterator[Court]:
    """A court whose work is done with PyTorch."""
    if missing := [fact for fact in prerequisites() if not fact.ok]:
        pytest.skip(f"no sandbox here: {missing[0].name}: {missing[0].found}")
    if not is_complete(ai_environment()):
        pytest.skip("the AI environment was not built: make jobs-env")
    folder = Path(tempfile.mkdtemp(prefix="minga-test-sold-"))
    os.chmod(folder, 0o755)
    try:
        async with court(folder) as made:
            made.environment, made.limits = ai_environment(), LIMITS
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def trained(room: Court, runtime: BubblewrapRuntime) -> Dock:
    """A provider that was ordered the example, ran it on `runtime`, and committed to its trace."""
    record, signer = await room.lease()
    folder = room.folder / f"training-{room.jobs}"
    blobs, spec = BlobStore(folder / "blobs"), load_job_file(EXAMPLE).spec
    workdir, sent = pack(EXAMPLE.parent, blobs), pack_files(library(), blobs)
    inputs = [
        Bundle(kind="workdir", target="/job/work", blake3=workdir.blake3, bytes=workdir.bytes),
        Bundle(kind="mount", target=LIBRARY, blake3=sent.blake3, bytes=sent.bytes),
    ]
    work = Work(environment="python", run=spec.run, envs=variables(spec), inputs=inputs, trace=trace_of(spec.verify))
    files = await ran(work, blobs, runtime, folder / "stage", room.environment)
    return await room.commit(record, signer, made_of(work, blobs, files, signer))


async def ran(
    work: Work, blobs: BlobStore, runtime: BubblewrapRuntime, stage: Path, environment: Path
) -> dict[str, FileEntry]:
    """The files of the trace that a run of the work leaves."""
    laid, mounts = lay_out(
        work.inputs, stage, GIB, lambda bundle, folder, left: unpack(blobs.path(bundle.blake3), folder, left)
    )
    laid.append(write_launcher(stage / "minga", work.setup, work.run))
    handle = await runtime.start(
        Task(
            "training", LAUNCH, environment_at(environment), LIMITS, work.envs, mounts=tuple(mounts), inputs=tuple(laid)
        )
    )
    end = await handle.wait()
    log = b"".join([chunk.data async for chunk in handle.follow_log()]).decode()
    assert end.code == 0, log
    assert "loss" in log
    files = {}
    for item in await handle.list_outputs():
        if item.path.startswith("out/trace/"):
            with await handle.open_output(item.path) as reader:
                name, size = blobs.add_stream(reader)
            path = item.path.removeprefix("out/")
            files[path] = FileEntry(path=path, bytes=size, blake3=name)
    await handle.remove()
    return files


def made_of(work: Work, blobs: BlobStore, files: dict[str, FileEntry], signer: PrivateKey) -> Done:
    """What the provider can serve; the channel is bound by the court."""
    data = b"".join(blobs.read(files["trace/leaves.bin"].blake3))
    leaves = [data[at : at + 32] for at in range(0, len(data), 32)]
    claim = Claim(
        Hash32("0x" + "00" * 32), work.hash32(), Hash32(to_hex(Tree(leaves).root)), len(leaves), signer.address
    )
    return Done(blobs, work, b"", claim, leaves, files)


async def test_a_provider_that_leaves_a_layer_out_pays_for_it(room):
    dock = await trained(room, FreezingRuntime(room.folder / "p"))
    channel = dock.commitment.channel
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(dock.serving())
        await stack.enter_async_context(bench(room, *REFEREES, options=JUDGE))
        await room.fund("validator", 100 * SHORT.bond)
        audit = Options(audit="all", leaves=6, referee=False)
        watching = await stack.enter_async_context(validating(config(room, "validator", audit, stake=0)))
        await reached(watching, f"case/{channel}", "over", seconds=600)
        await room.read()
        (record,) = room.chain.view.disputes.about(channel)
        assert record.finished is not None
        assert record.finished.outcome == Outcome.CONVICTED
        assert record.leaf > FROZEN_FROM
        assert [index % 16 for index in record.picks] == list(way(record.leaf, dock.commitment.leaves))
        assert len(record.picks) == 3
        assert record.finished.slashed == SHORT.factor * DEPOSIT
        run = watching.validator.runs[f"case/{channel}"]
        await eventually(lambda: "withdraw/1/0" in run.state.done, 60)
    await room.send("withdraw", room.disputes.withdraw(room.tenant.address), room.tenant)
    assert await balance(room, room.tenant.address) == 100 * DEPOSIT
    assert await balance(room, key_of("validator").address) > 100 * SHORT.bond


async def test_an_honest_provider_wins_against_a_liar(room):
    dock = await trained(room, BubblewrapRuntime(room.folder / "p"))
    liar = await room.fund("liar", 10 * SHORT.bond)
    games, token = room.disputes, Token(room.spec.deployment.token)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(dock.serving())
        judges = await stack.enter_async_context(bench(room, *REFEREES, options=JUDGE))
        await room.send("allow-liar", token.approve(games.address, SHORT.bond), liar)
        await room.send("lie", games.challenge(dock.commitment), liar)
        for done, index in enumerate(way(130, dock.commitment.leaves)):
            await shown(room, dock, done + 1)
            (record,) = room.chain.view.disputes.about(dock.commitment.channel)
            children = [bytes.fromhex(child[2:]) for child in record.children]
            await room.send(f"pick/{done}", games.pick(record.game, children, index), liar)
        for name in REFEREES:
            await reached(judges[name], f"seat/{record.game}", "judged", "over", seconds=600)
            assert judges[name].validator.runs[f"seat/{record.game}"].state.verdict == 1
        with anyio.fail_after(120):
            while (await room.chain.read(games.game_of(record.game))).phase < Phase.JUDGED:  # noqa: ASYNC110
                await anyio.sleep(0.05)  # between two looks at the chain
        await room.pass_time(SHORT.vote_seconds + 1)  # the liar does not appeal
        await reached(judges[REFEREES[0]], f"seat/{record.game}", "over", seconds=120)
        await room.read()
        finished = room.chain.view.disputes.games[record.game].finished
        assert finished is not None
        assert (finished.outcome, finished.slashed) == (Outcome.ACQUITTED, 0)
        assert finished.to_provider == SHORT.bond - 3 * SHORT.seat_fee


async def shown(room: Court, dock: Dock, times: int) -> None:
    """Wait until the provider has shown nodes so many times."""
    with anyio.fail_after(60):
        while sum(game.rounds_shown for game in room.chain.view.disputes.about(dock.commitment.channel)) < times:
            await anyio.sleep(0.05)  # between two looks at the chain
            await room.read()
