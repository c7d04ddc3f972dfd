"""Whole games on a real chain with real sandboxes: who cheats loses, who accuses falsely pays, no money is lost."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest
from courts import (
    DEPOSIT,
    PAID,
    WRONG,
    Bench,
    Court,
    Dock,
    balance,
    bench,
    config,
    court,
    faked,
    key_of,
    reached,
    validating,
)  # fmt: skip
from works import KEEP

from fixtures import eventually
from minga.chain.contracts import Token
from minga.core.crypto import Address
from minga.protocol.dispute import SHORT, Outcome, Phase
from minga.runtimes.bubblewrap import prerequisites
from minga.validator.state import Case
from minga.validator.world import Options

pytestmark = [pytest.mark.anyio, pytest.mark.root, pytest.mark.timeout(240)]
WATCH = Options(audit="all", leaves=25, referee=False)
REFEREES = ("referee 1", "referee 2", "referee 3")


@pytest.fixture
async def room() -> AsyncIterator[Court]:
    """A court of its own, where users of sandboxes may enter."""
    if missing := [fact for fact in prerequisites() if not fact.ok]:
        pytest.skip(f"no sandbox here: {missing[0].name}: {missing[0].found}")
    with tempfile.TemporaryDirectory(prefix="minga-test-court-") as name:
        os.chmod(name, 0o755)
        async with court(Path(name)) as made:
            yield made


async def watcher(room: Court, stack: AsyncExitStack, name: str = "validator", options: Options = WATCH) -> Bench:
    """A validator without a seat."""
    await room.fund(name, 100 * SHORT.bond)
    return await stack.enter_async_context(validating(config(room, name, options, stake=0)))


async def everything(room: Court, *names: str) -> int:
    """All tokens of everybody here."""
    places = room.spec.deployment
    holders: list[Address] = [room.tenant.address, room.provider.address, *(key_of(name).address for name in names)]
    holders += [places.market, places.registry, places.disputes, room.local.operator.address]
    return sum([await balance(room, holder) for holder in holders])


async def the_game(room: Court, dock: Dock) -> int:
    """The number of the only game about a commitment, once there is one."""
    (record,) = room.chain.view.disputes.about(dock.commitment.channel)
    return record.game


async def test_a_cheat_is_found_challenged_and_slashed(room):
    dock = await room.committed(faked)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(dock.serving())
        judges = await stack.enter_async_context(bench(room, *REFEREES))
        challenger = await watcher(room, stack)
        before = await everything(room, "validator", *REFEREES)
        stake = await balance(room, room.spec.deployment.registry)
        case = f"case/{dock.commitment.channel}"
        await reached(challenger, case, "over", seconds=120)
        state = challenger.validator.runs[case].state
        assert isinstance(state, Case)
        assert state.differs == WRONG
        await room.read()
        game = room.chain.view.disputes.games[await the_game(room, dock)]
        assert game.leaf == WRONG
        assert game.finished is not None
        assert game.finished.outcome == Outcome.CONVICTED
        assert game.picks[-1] == WRONG
        assert game.appellant == 1  # the provider's, and it lost that, too
        assert set(game.votes.values()) == {2}
        assert game.finished.slashed == SHORT.factor * DEPOSIT
        runs = [challenger.validator.runs[case]]
        runs += [judges[name].validator.runs[f"seat/{game.game}"] for name in REFEREES]
        await eventually(lambda: all(f"withdraw/{game.game}/0" in run.state.done for run in runs), 60)
        await room.send("withdraw", room.disputes.withdraw(room.tenant.address), room.tenant)
        assert await everything(room, "validator", *REFEREES) == before
        assert stake - await balance(room, room.spec.deployment.registry) == SHORT.factor * DEPOSIT
        refunded = await balance(room, room.tenant.address)
        assert refunded == 100 * DEPOSIT  # all that it paid: what was held, and the rest from the stake
        assert await balance(room, key_of("validator").address) > 100 * SHORT.bond


async def test_an_honest_provider_wins_and_the_liar_pays(room):
    """The liar here is a program that challenges and picks whatever it likes; no validator of ours would."""
    dock = await room.committed()
    liar = await room.fund("liar", 10 * SHORT.bond)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(dock.serving())
        judges = await stack.enter_async_context(bench(room, *REFEREES))
        watching = await watcher(room, stack)
        token, games = Token(room.spec.deployment.token), room.disputes
        await room.send("allow-liar", token.approve(games.address, SHORT.bond), liar)
        owned = await balance(room, room.provider.address)
        await room.send("lie", games.challenge(dock.commitment), liar)
        for done, index in enumerate((1, 7)):
            await shown(room, dock, done + 1)
            record = room.chain.view.disputes.games[await the_game(room, dock)]
            children = [bytes.fromhex(child[2:]) for child in record.children]
            await room.send(f"pick/{done}", games.pick(record.game, children, index), liar)
        seat = f"seat/{record.game}"
        for name in REFEREES:
            await reached(judges[name], seat, "judged", "over")
            assert judges[name].validator.runs[seat].state.verdict == 1
        await eventually_judged(room, record.game)
        await room.pass_time(SHORT.vote_seconds + 1)  # the liar does not appeal
        await reached(judges[REFEREES[0]], seat, "over")
        await room.read()
        finished = room.chain.view.disputes.games[record.game].finished
        assert finished is not None
        assert finished.outcome == Outcome.ACQUITTED
        assert (finished.slashed, finished.to_challenger) == (0, 0)
        assert finished.to_provider == SHORT.bond - 3 * SHORT.seat_fee
        await reached(watching, f"case/{dock.commitment.channel}", "cleared")
        await room.send("take", games.withdraw(room.provider.address), room.provider)
        assert await balance(room, room.provider.address) == owned + finished.to_provider
        assert PAID > 0


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Look at the chain until something holds."""
    with anyio.fail_after(seconds):
        while not await holds():  # noqa: ASYNC110
            await anyio.sleep(0.05)


async def shown(room: Court, dock: Dock, times: int) -> None:
    """Wait until the provider has shown nodes so many times."""

    async def look() -> bool:
        await room.read()
        return sum(record.rounds_shown for record in room.chain.view.disputes.about(dock.commitment.channel)) == times

    await until(look)


async def eventually_judged(room: Court, game: int) -> None:
    """Wait until the jury has told all its votes."""

    async def look() -> bool:
        return (await room.chain.read(room.disputes.game_of(game))).phase >= Phase.JUDGED

    await until(look)


async def test_honest_work_is_cleared_and_nobody_is_challenged(room):
    dock = await room.committed()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(dock.serving())
        watching = await watcher(room, stack)
        await reached(watching, f"case/{dock.commitment.channel}", "cleared")
        await room.read()
        assert not room.chain.view.disputes.games
        assert len(watching.validator.runs[f"case/{dock.commitment.channel}"].state.segments) == 3


async def test_a_withheld_state_does_not_help_a_cheat(room):
    dock = await room.committed(faked)
    dock.lies[dock.state_path(KEEP)] = lambda response: _empty()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(dock.serving())
        watching = await watcher(room, stack, options=Options(audit="all", leaves=25, referee=False, challenge=False))
        await reached(watching, f"case/{dock.commitment.channel}", "proven")
        assert watching.validator.runs[f"case/{dock.commitment.channel}"].state.differs == WRONG


def _empty():
    from starlette.responses import Response

    return Response(b"", 500)
