"""What must hold in every world with disputes: checks over a `DisputeWorld`, after any step.

Each check reads the compiled contracts and what the test itself knows. Rule: a check raises AssertionError and changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple

from dispute_world import FUND, DisputeWorld

from minga.protocol.dispute import Outcome, Phase


def agreement(world: DisputeWorld) -> None:
    """The contract's whole state is the specification's."""
    rules, court = world.rules, world.court
    assert court.view("games") == (len(rules.tables),)
    for game in rules.tables:
        table = world.table(game)
        found, expected = court.view("game_of", game), tuple(_numbers(astuple(table.as_game())))
        assert found == expected, f"game {game}: {found} is not {expected}"
        assert court.view("votes_of", game) == (*astuple(table.votings[0]), *astuple(table.votings[1]))
    for channel, commitment in rules.commitments.items():
        assert court.view("commitment_hash", channel) == (int(commitment.hash, 16),)
        assert court.view("condemned", channel) == (channel in rules.condemned,)
    assert court.view("pool") == (rules.pool.active,)
    for number, seat in rules.pool.seats.items():
        assert court.view("seat", number) == (int(seat.referee, 16), seat.stake, not seat.free_at, seat.free_at)
        assert court.view("seat_of", seat.referee) == (number + 1,)
    for owner in {*rules.owed, FUND}:
        assert court.view("owed", owner) == (rules.owed.get(owner, 0),)
    for owner, balance in world.ledger.balances.items():
        assert world.token.view("balanceOf", owner) == (balance,)


def solvent(world: DisputeWorld) -> None:
    """Disputes holds what it owes, its referees' stakes, the bonds in play and the reserves, to the unit."""
    assert world.token.view("balanceOf", world.court.address) == (world.rules.liabilities(),)


def conserved(world: DisputeWorld) -> None:
    """No token is made or lost."""
    assert world.total() == world.minted


def each_game_is_short(world: DisputeWorld) -> None:
    """Whoever wants to can end a game two clocks and six votings after it began."""
    for game, began in world.began.items():
        table = world.table(game)
        if table.phase is not Phase.DONE:
            late = world.now > began + world.preset.game_seconds_max
            assert not late or table.phase in (*_WAITING, Phase.JUDGED, Phase.POOL_JUDGED), f"game {game} goes on"


def condemned_once(world: DisputeWorld) -> None:
    """A commitment has one conviction at most; every other game on it is void or was lost before."""
    convicted = [table.channel for table in world.rules.tables.values() if table.outcome is Outcome.CONVICTED]
    assert len(convicted) == len(set(convicted))
    assert set(convicted) == world.rules.condemned


def half_at_most(world: DisputeWorld) -> None:
    """Tenant and challenger together get at most half of a slash; a slash is at most the factor times the exposure."""
    for game, seen in world.finished.items():
        table = world.rules.tables[game]
        if seen["outcome"] == Outcome.CONVICTED:
            appealed = world.rules._appeal_price(table) if table.appellant == 2 else 0
            gained = seen["to_challenger"] - world.preset.bond - appealed + seen["for_tenant"]
            assert 0 <= gained <= seen["slashed"] // 2
            assert seen["slashed"] <= table.exposure * world.preset.factor
        else:
            assert seen["slashed"] == seen["for_tenant"] == 0


_WAITING = (Phase.EXPAND, Phase.PICK, Phase.BEFORE, Phase.OPERATORS, Phase.DRAW)

INVARIANTS: tuple[Callable[[DisputeWorld], None], ...] = (
    solvent, conserved, each_game_is_short, condemned_once, half_at_most,
)  # fmt: skip


def check_all(world: DisputeWorld) -> None:
    """The agreement and every invariant."""
    agreement(world)
    for check in INVARIANTS:
        check(world)


def _numbers(values: tuple[int | str, ...]) -> Iterator[int]:
    for value in values:
        yield int(value, 16) if isinstance(value, str) else int(value)
