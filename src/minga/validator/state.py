"""What a validator knows of a case and of a seat, and what follows from that knowledge: the effects that it wants.

A state is a fold over a journal. `wanted` is a function of the state and the time alone, so that a process that was
killed wants the same again after a restart; what is done already is in `done` and not wanted twice. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from minga.core.crypto import from_hex, keccak, to_hex
from minga.validator.events import (
    DOES_NOT_FOLLOW,
    FOLLOWS,
    BeaconSeen,
    CommitVote,
    Effect,
    Fetch,
    GameSeen,
    Judge,
    Noticed,
    Replay,
    RevealVote,
    Seated,
    Send,
)
from minga.validator.moves import way

CasePhase = Literal[
    "waiting", "passed", "fetching", "unserved", "replaying", "cleared", "proven", "lapsed", "playing", "over"
]
SeatPhase = Literal["fetching", "judging", "judged", "abstained", "over"]

FETCH_TRIES = 5
"""How often a provider is asked before its silence counts. The loop spreads the tries over the time that there is."""


@dataclass(frozen=True, slots=True)
class Case:
    """One commitment under audit.

    `segments` are the pieces to do again, as (first, last) leaf, `checked` how many of them are; `noted` says what was
    remarkable, for people; `differs` is the first leaf found wrong (0: none), `own` its right value.
    """

    facts: Noticed
    phase: CasePhase = "waiting"
    beacon: BeaconSeen | None = None
    tries: int = 0
    segments: tuple[tuple[int, int], ...] = ()
    checked: int = 0
    noted: tuple[str, ...] = ()
    differs: int = 0
    own: str = ""
    game: GameSeen | None = None
    done: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Seat:
    """One game that we referee. `verdict` and `salt` are set once and never change; `why` is for people."""

    facts: Seated
    phase: SeatPhase = "fetching"
    tries: int = 0
    served: bool = False
    verdict: int = 0
    salt: str = ""
    why: str = ""
    game: GameSeen | None = None
    done: frozenset[str] = frozenset()


State = Case | Seat


def wanted(state: State, now: int) -> list[Effect]:
    """What is to be done next; nothing that was done before. `now` is chain time, Unix seconds."""
    asked = _case(state, now) if isinstance(state, Case) else _seat(state)
    return [effect for effect in asked if effect.id not in state.done]


def ballot_salt(salt: str, ballot: int) -> str:
    """The salt of one ballot, 32 bytes of hex: another for each, so that a vote cannot be copied to the next one."""
    return to_hex(keccak(from_hex(salt) + ballot.to_bytes(32, "big")))


def _case(case: Case, now: int) -> list[Effect]:
    if case.phase == "fetching":
        return [Fetch(case.tries + 1)]
    if case.phase == "replaying":
        return [Replay(*case.segments[case.checked])]
    if case.phase == "proven" and now < case.facts.until:
        return [Send("challenge")]
    if case.game is None or case.phase not in ("playing", "over"):
        return []
    return _play(case, case.game)


def _play(case: Case, game: GameSeen) -> list[Effect]:
    if game.stage == "over":
        apply = Send("apply", game.game)
        return [apply] if game.convicted and apply.id not in case.done else [Send("withdraw", game.game)]
    if game.overdue and game.mover == "provider":
        return [Send("timeout", game.game)]
    if game.stage == "pick":
        return [Send("pick", game.game, game.done, way(case.differs, case.facts.leaves)[game.done])]
    if game.stage == "appeal":
        erred = game.verdict == FOLLOWS and game.ballot == 1
        return [Send("appeal", game.game)] if erred else []
    return _anyone(game)


def _anyone(game: GameSeen) -> list[Effect]:
    """What anybody may send so that a game goes on."""
    if game.stage == "draw":
        return [Send("timeout", game.game)] if game.overdue else [Send("draw", game.game, game.node)]
    return [Send("finish", game.game)] if game.stage == "decided" else []


def _seat(seat: Seat) -> list[Effect]:
    if seat.phase == "fetching":
        return [Fetch(seat.tries + 1)]
    if seat.phase == "judging":
        return [Judge(seat.facts.leaf, seat.served)]
    game = seat.game
    if game is None:
        return []
    if game.stage == "over":
        return [Send("withdraw", game.game)]
    if seat.phase == "judged" and game.seated:
        assert seat.verdict in (FOLLOWS, DOES_NOT_FOLLOW)
        vote = (game.game, game.ballot, seat.verdict, ballot_salt(seat.salt, game.ballot))
        if game.stage == "vote" and not game.voted:
            return [CommitVote(*vote)]
        if game.stage == "reveal" and game.voted and not game.told:
            return [RevealVote(*vote)]
    return _anyone(game)
