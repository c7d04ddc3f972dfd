"""A validator as a pure function: `step(state, event, now) -> (state, effects)`, for a case or for a seat.

A *case* is one commitment: chosen by the beacon or passed over, fetched, done again piece by piece, challenged when a
leaf came out otherwise, and played to the end. A *seat* is one game that we referee: fetched, judged, voted on.

```
case   waiting ─beacon→ passed │ fetching ─→ unserved │ replaying ─→ cleared │ proven ─challenge→ playing ─→ over
seat   fetching ─→ judging ─→ judged │ abstained ─→ over
```

Knows: what may happen when, and what follows. Does not know: clocks, dice, chains, files, HTTP. Rules: an event that
the phase does not allow raises `Conflict` and changes nothing; whoever calls journals the event before it does the
effects. So a validator never challenges without a leaf that it computed otherwise itself, and never votes in two ways:
a verdict is set by one event, which cannot come twice, and every vote is made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from minga.core.crypto import Address, Hash32, from_hex
from minga.core.errors import Conflict, InternalError
from minga.protocol import audit
from minga.validator import events as ev
from minga.validator.events import DOES_NOT_FOLLOW, FOLLOWS, Effect, Event
from minga.validator.state import FETCH_TRIES, Case, Seat, State, wanted

REMEDY = "look at the case with `minga validate --once`"


def begin(event: Event) -> State:
    """The state after a journal's first event.

    Raises:
        InternalError: nothing begins with this event.
    """
    if isinstance(event, ev.Noticed):
        return Case(event)
    if isinstance(event, ev.Seated):
        return Seat(event)
    raise InternalError(f"a journal does not begin with {type(event).__name__}")


def step(state: State, event: Event, now: int) -> tuple[State, list[Effect]]:
    """The next state, and what is wanted then, once the event is journaled.

    Args:
        state: before.
        event: what happened.
        now: chain time, Unix seconds.

    Raises:
        Conflict: the phase does not allow this event.
        InternalError: no event of a case, or of a seat.
    """
    rule = (_CASE if isinstance(state, Case) else _SEAT).get(type(event))
    if rule is None:
        raise InternalError(f"no rule for {type(event).__name__} in a {type(state).__name__.lower()}")
    phases, handler = rule
    if phases is not None and state.phase not in phases:
        raise Conflict(f"the {type(state).__name__.lower()} is {state.phase}: no {type(event).__name__} now", REMEDY)
    after: State = handler(state, event)
    return after, wanted(after, now)


def replay(events: Iterable[tuple[Event, int]]) -> State:
    """The state after a journal of (event, chain time).

    Raises:
        InternalError: the journal is empty, or does not begin a case or a seat.
    """
    state: State | None = None
    for event, at in events:
        state = begin(event) if state is None else step(state, event, at)[0]
    if state is None:
        raise InternalError("a journal is empty")
    return state


# --------------------------------------------------------------------------------------------------------------- case


def _beacon(case: Case, event: ev.BeaconSeen) -> Case:
    chosen = event.drawn and audit.audits(from_hex(event.value), Hash32(case.facts.channel), event.rate_bps)
    return replace(case, beacon=event, phase="fetching" if chosen else "passed")


def _served(case: Case, event: ev.Served) -> Case:
    assert case.beacon is not None
    beacon, channel, validator = from_hex(case.beacon.value), Hash32(case.facts.channel), Address(case.beacon.validator)
    sampled = audit.sampled_leaves(beacon, channel, validator, case.beacon.count, case.facts.leaves)
    pieces = audit.segments(sampled, event.keep)
    return replace(case, segments=pieces, phase="replaying" if pieces else "cleared")


def _unserved(case: Case, event: ev.Unserved) -> Case:
    tries = case.tries + 1
    phase = "unserved" if tries >= FETCH_TRIES else case.phase
    return replace(case, tries=tries, phase=phase, noted=(*case.noted, event.why)[-FETCH_TRIES:])


def _piece(case: Case, first: int, last: int) -> None:
    if (first, last) != case.segments[case.checked]:
        raise Conflict(f"leaves {first} to {last} are not the piece that is done now", REMEDY)


def _replayed(case: Case, event: ev.Replayed) -> Case:
    _piece(case, event.first, event.last)
    if event.differs:
        if not 0 < event.differs <= event.last:  # it may lie before the piece: see `checks`
            raise Conflict(f"leaf {event.differs} is beyond the piece {event.first} to {event.last}", REMEDY)
        return replace(case, phase="proven", differs=event.differs, own=event.own, checked=case.checked + 1)
    return _next(case)


def _unreplayed(case: Case, event: ev.Unreplayed) -> Case:
    _piece(case, event.first, event.last)
    return _next(replace(case, noted=(*case.noted, event.why)[-FETCH_TRIES:]))


def _next(case: Case) -> Case:
    checked = case.checked + 1
    return replace(case, checked=checked, phase="cleared" if checked == len(case.segments) else "replaying")


def _case_game(case: Case, event: ev.GameSeen) -> Case:
    if case.game is not None and case.game.game != event.game:
        raise Conflict(f"game {event.game} is not the one that was begun here", REMEDY)
    return replace(case, game=event, phase="over" if event.stage == "over" else "playing")


def _case_done(case: Case, event: ev.Done) -> Case:
    noted, phase = case.noted, case.phase
    if event.outcome != "sent":
        noted = (*noted, f"{event.effect}: {event.outcome}")[-FETCH_TRIES:]
        if event.effect.startswith("challenge/") and phase == "proven":
            phase = "lapsed"
    return replace(case, done=case.done | {event.effect}, noted=noted, phase=phase)


def _lapsed(case: Case, event: ev.Lapsed) -> Case:
    return replace(case, phase="lapsed")


# --------------------------------------------------------------------------------------------------------------- seat


def _seat_served(seat: Seat, event: ev.Served) -> Seat:
    return replace(seat, phase="judging", served=True)


def _seat_unserved(seat: Seat, event: ev.Unserved) -> Seat:
    tries = seat.tries + 1
    return replace(seat, tries=tries, why=event.why, phase="judging" if tries >= FETCH_TRIES else seat.phase)


def _judged(seat: Seat, event: ev.Judged) -> Seat:
    if event.verdict not in (FOLLOWS, DOES_NOT_FOLLOW) or (event.verdict == FOLLOWS and not seat.served):
        raise Conflict(f"verdict {event.verdict} cannot be reached here", REMEDY)
    return replace(seat, phase="judged", verdict=event.verdict, salt=event.salt, why=event.why or seat.why)


def _abstained(seat: Seat, event: ev.Abstained) -> Seat:
    return replace(seat, phase="abstained", why=event.why)


def _seat_game(seat: Seat, event: ev.GameSeen) -> Seat:
    if event.game != seat.facts.game:
        raise Conflict(f"game {event.game} is not the one of this seat", REMEDY)
    return replace(seat, game=event, phase="over" if event.stage == "over" else seat.phase)


def _seat_done(seat: Seat, event: ev.Done) -> Seat:
    return replace(seat, done=seat.done | {event.effect})


Handler = Callable[[Any, Any], Any]
Table = dict[type[Event], tuple[frozenset[str] | None, Handler]]


def _in(*phases: str) -> frozenset[str]:
    return frozenset(phases)


_CASE: Table = {
    ev.BeaconSeen: (_in("waiting"), _beacon),
    ev.Served: (_in("fetching"), _served),
    ev.Unserved: (_in("fetching"), _unserved),
    ev.Replayed: (_in("replaying"), _replayed),
    ev.Unreplayed: (_in("replaying"), _unreplayed),
    ev.GameSeen: (_in("proven", "playing", "over"), _case_game),
    ev.Lapsed: (_in("waiting", "fetching", "replaying", "proven"), _lapsed),
    ev.Done: (None, _case_done),
}
"""Which phases allow an event of a case (None: all), and what it does."""

_SEAT: Table = {
    ev.Served: (_in("fetching"), _seat_served),
    ev.Unserved: (_in("fetching"), _seat_unserved),
    ev.Judged: (_in("judging"), _judged),
    ev.Abstained: (_in("judging"), _abstained),
    ev.GameSeen: (_in("fetching", "judging", "judged", "abstained", "over"), _seat_game),
    ev.Done: (None, _seat_done),
}

__all__ = ["begin", "replay", "step"]
