"""Providers that lie to auditors: whatever they serve, nobody is challenged for less than a wrong leaf."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from courts import Bench, Court, Dock, config, court, faked, reached, validating
from starlette.responses import Response
from works import Done, committed_to, facts

from fixtures import eventually
from minga.core.codec import canonical_json, parse_json
from minga.protocol.dispute import SHORT
from minga.runtimes.bubblewrap import prerequisites
from minga.validator import run as run_module
from minga.validator.state import FETCH_TRIES, Case
from minga.validator.world import Options

pytestmark = [pytest.mark.anyio, pytest.mark.root, pytest.mark.timeout(120)]
WATCH = Options(audit="all", leaves=2, referee=False)


@pytest.fixture
async def room() -> AsyncIterator[Court]:
    """A court of its own."""
    if missing := [fact for fact in prerequisites() if not fact.ok]:
        pytest.skip(f"no sandbox here: {missing[0].name}: {missing[0].found}")
    with tempfile.TemporaryDirectory(prefix="minga-test-lies-") as name:
        os.chmod(name, 0o755)
        async with court(Path(name)) as made:
            yield made


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask again at once: the time between two tries is not what these tests are about."""
    monkeypatch.setattr(run_module.Run, "_patience", lambda self: 0.01)


async def watch(room: Court, stack: AsyncExitStack) -> Bench:
    """A validator that looks at everything."""
    await room.fund("validator", 10 * SHORT.bond)
    return await stack.enter_async_context(validating(config(room, "validator", WATCH, stake=0)))


def changed(**fields: object) -> Callable[[Response], Response]:
    """An answer whose JSON has other fields."""

    def lie(response: Response) -> Response:
        return Response(canonical_json(parse_json(bytes(response.body)) | fields))

    return lie


def without(path: str) -> Callable[[Response], Response]:
    """A list of files that lacks one."""

    def lie(response: Response) -> Response:
        told = parse_json(bytes(response.body))
        return Response(canonical_json(told | {"files": [item for item in told["files"] if item["path"] != path]}))

    return lie


def answer(data: bytes, status: int = 200) -> Callable[[Response], Response]:
    """Something else instead."""
    return lambda response: Response(data, status)


def of(made: Done, path: str) -> str:
    """Where a file is asked for."""
    return f"blob/{made.files[path].blake3}"


# Each lie ends at a different check; the second name is what the provider is noted for.
LIES: dict[str, tuple[Callable[[Dock], tuple[str, Callable[[Response], Response]]], str]] = {
    "no answer": (lambda dock: ("login", answer(b"", 500)), "did not serve"),
    "no token": (lambda dock: ("login", answer(b"{}")), "no token"),
    "a page of text": (lambda dock: ("audit", answer(b"hello")), "did not serve"),
    "another description": (lambda dock: ("audit", answer(b"{}")), "description is none"),
    "an endless description": (lambda dock: ("audit", answer(b" " * (9 << 20))), "did not serve"),
    "a forged order": (lambda dock: ("audit", changed(signature="0x" + "01" * 65)), "order"),
    "other work": (
        lambda dock: ("audit", changed(work=dock.made.work.model_copy(update={"run": "true"}).plain())),
        "not the committed one",
    ),
    "no leaves": (lambda dock: ("audit", without("trace/leaves.bin")), "leaves.bin is not served"),
    "no numbers": (lambda dock: ("audit", without("trace/trace.json")), "trace.json is not served"),
    "wrong bytes": (lambda dock: (of(dock.made, "trace/leaves.bin"), answer(b"\1" * 832)), "hash"),
    "torn bytes": (lambda dock: (of(dock.made, "trace/leaves.bin"), answer(b"\1" * 800)), "hash"),
    "endless bytes": (lambda dock: (of(dock.made, "trace/leaves.bin"), answer(b"\1" * 9000)), "longer"),
    "no inputs": (lambda dock: (f"blob/{dock.made.work.inputs[0].blake3}", answer(b"", 404)), "did not serve"),
}


async def test_every_lie_is_noted_and_accuses_nobody(room):
    dock = await room.committed()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(dock.serving())
        for number, (name, (make, why)) in enumerate(LIES.items()):
            what, lie = make(dock)
            dock.lies = {what: lie}
            await room.fund(f"validator {number}", SHORT.bond)
            async with validating(config(room, f"validator {number}", WATCH, stake=0)) as bench:
                stream = f"case/{dock.commitment.channel}"
                await reached(bench, stream, "unserved")
                state = bench.validator.runs[stream].state
                assert isinstance(state, Case)
                assert len(state.noted) == FETCH_TRIES, name
                assert why in state.noted[-1], (name, state.noted[-1])
        await room.read()
        assert not room.chain.view.disputes.games


async def test_a_provider_that_served_other_numbers_than_it_was_ordered(room):
    def other_keep(made: Done) -> Done:
        made.put("trace/trace.json", facts(keep=5))
        return made

    dock = await room.committed(change=other_keep)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(dock.serving())
        bench = await watch(room, stack)
        await reached(bench, f"case/{dock.commitment.channel}", "unserved")
        assert "another trace" in bench.validator.runs[f"case/{dock.commitment.channel}"].state.noted[-1]


async def test_a_copied_root_is_not_the_leaves(room):
    """A provider that commits to somebody else's root cannot show leaves under it."""

    def copied(made: Done) -> Done:
        return replace(committed_to(made, [*made.leaves[:-1], b"\7" * 32]), files=made.files)

    dock = await room.committed(change=copied)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(dock.serving(defends=False))
        bench = await watch(room, stack)
        await reached(bench, f"case/{dock.commitment.channel}", "unserved")
        assert "committed root" in bench.validator.runs[f"case/{dock.commitment.channel}"].state.noted[-1]


async def test_a_provider_that_falls_silent_after_it_served_is_judged_by_what_it_served(room):
    dock = await room.committed(faked)
    async with AsyncExitStack() as stack:
        serving = await stack.enter_async_context(AsyncExitStack())
        await serving.enter_async_context(dock.serving())
        await room.fund("validator", 10 * SHORT.bond)
        still = config(room, "validator", replace(WATCH, leaves=25, challenge=False), stake=0)
        async with validating(still) as bench:
            await reached(bench, f"case/{dock.commitment.channel}", "proven")
        await serving.aclose()
        kept = len(dock.asked)
        async with validating(still) as bench:
            assert bench.phase(f"case/{dock.commitment.channel}") == "proven"
            await eventually(lambda: dock.commitment.channel in bench.validator.world.chain.view.commitments)
            evidence = await bench.validator.runs[f"case/{dock.commitment.channel}"].files.gather()
            assert evidence.claim.leaves == dock.commitment.leaves
        assert len(dock.asked) == kept
