"""A validator at work: follows the chain, brings cases and seats back after a restart, and begins new ones.

Knows: all cases and seats of this validator. Does not know: how an effect is done (`run`), or what follows from what
(`agent`). Rule: the chain is compared with what is known, again and again; nothing depends on seeing an event at the
moment it happens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import anyio
import anyio.to_thread

from minga.chain.games import GameRecord
from minga.core.crypto import Address, Hash32
from minga.core.errors import ContractError, MingaError
from minga.protocol import audit
from minga.protocol.dispute import Commitment
from minga.validator import events as ev
from minga.validator.agent import begin, replay
from minga.validator.events import decode, encode
from minga.validator.points import reach
from minga.validator.run import Run, allow, told
from minga.validator.state import Case, Seat
from minga.validator.watch import Draws, lease_of, look, noticed, seat_of, seated
from minga.validator.world import World

POLL_SECONDS = 1.0
OPEN_CASES = frozenset({"waiting", "fetching", "replaying", "proven", "playing"})


class Validator:
    """All cases and seats of one validator; see the module."""

    def __init__(self, world: World) -> None:
        """Nothing runs until `restore` and `follow`."""
        self.world = world
        self.runs: dict[str, Run] = {}
        self._draws = Draws(world.chain, world.options, world.preset.factor, self.me)
        self._past: set[Hash32] = set()

    @property
    def me(self) -> Address:
        """This validator's address."""
        return self.world.key.address

    # --------------------------------------------------------------------------------------------------------- restart

    async def restore(self) -> None:
        """Bring every case and seat of the journal back; what replays of before left is removed."""
        await self.world.replayer.clear()
        journal = self.world.journal
        for stream in await anyio.to_thread.run_sync(journal.streams):
            records = await anyio.to_thread.run_sync(journal.read, stream)
            state = replay((decode(record.kind, record.body), record.at) for record in records)
            self.runs[stream] = Run(self.world, stream, state)

    async def join(self, stake: int) -> None:
        """See that we have a seat among the referees, with at least `stake` token units (0: as we are).

        Raises:
            InsufficientFunds: no gas.
            ContractError: too few tokens, no free seat, or we are leaving.
        """
        world, contract = self.world, self.world.disputes
        place = await world.chain.read(contract.seat_of(self.me))
        held = 0 if place is None else (await world.chain.read(contract.seat(place))).stake
        if held >= stake:
            return
        await allow(world, f"join/{held}/{stake}", stake - held)
        reach("validator.join.allowed")
        await world.chain.send(f"join/{held}/{stake}", contract.join(stake - held), world.key)
        reach("validator.join.sent")
        world.announce("joined", {"referee": self.me, "stake": str(stake)})

    # ----------------------------------------------------------------------------------------------------------- chain

    async def follow(self) -> None:
        """Poll, compare and go on, for ever; a chain that does not answer is waited for."""
        warned = False
        while True:
            try:
                await self.turn()
                warned = False
            except MingaError as error:
                if not warned:
                    self.world.announce("warning", error.as_dict()["error"])
                warned = True
            await self.world.clock.sleep(POLL_SECONDS)

    async def turn(self) -> None:
        """Take in what the chain shows now, and begin what follows.

        Raises:
            NetworkError: no node answers.
        """
        chain = self.world.chain
        changes = await chain.poll()
        await chain.settle()
        now = await chain.time()
        for made in list(chain.view.commitments.values()):
            await self._notice(made, now)
        for record in list(chain.view.disputes.games.values()):
            await self._look(record)
        for run in list(self.runs.values()):
            await self._lapse(run, now)
            run.kick(now)
        chain.acknowledge(changes)

    async def _notice(self, made: Commitment, now: int) -> None:
        if made.channel in self._past or made.provider == self.me:
            return
        stream, window = f"case/{made.channel}", made.committed_at + self.world.preset.window
        if stream not in self.runs:
            lease = lease_of(self.world.chain, made.channel)
            if now >= window or lease is None or self.world.options.audit == "none":
                if now >= window:
                    self._past.add(made.channel)
                return
            await self._begin(stream, noticed(made, lease, self.world.preset), now)
        run = self.runs[stream]
        if run.state.phase != "waiting":
            return
        try:
            value = await self._draws.value(made.channel)
        except ContractError:
            await run.happen(ev.Lapsed())  # the round was missed: nobody can say any more what it would have drawn
            return
        if value is not None:
            await run.happen(self._draws.seen(made, value, self._record(made, now)))

    def _record(self, made: Commitment, now: int) -> audit.Record:
        """What this validator knows of a provider's passed audits; less than there is makes the rate higher."""
        view, preset = self.world.chain.view, self.world.preset
        since = view.disputes.convicted.get(made.provider, 0)
        jobs = value = 0
        for run in self.runs.values():
            case = run.state
            if not isinstance(case, Case) or case.facts.provider != made.provider or case.beacon is None:
                continue
            drawn = audit.audits(bytes.fromhex(case.beacon.value[2:]), Hash32(case.facts.channel), case.beacon.rate_bps)
            lease = lease_of(self.world.chain, case.facts.channel)
            if drawn and lease is not None and since + preset.window < case.facts.until <= now:
                jobs, value = jobs + 1, value + lease.settled
        exposed = sum(
            record.deposit
            for record in view.leases.values()
            if record.lease.provider == made.provider and record.closed is None and record.lease.has_arbiter
        )
        balances = view.disputes.stakes.get((made.provider, self.world.disputes.address), [])
        return audit.Record(jobs, value, audit.stake_age(balances, preset.factor * max(exposed, made.exposure), now))

    async def _lapse(self, run: Run, now: int) -> None:
        case = run.state
        if isinstance(case, Case) and now >= case.facts.until and case.phase in OPEN_CASES - {"playing"}:
            await run.happen(ev.Lapsed())

    async def _begin(self, stream: str, event: ev.Event, now: int) -> None:
        kind, body = encode(event)
        await anyio.to_thread.run_sync(self.world.journal.append, stream, kind, body, now, "begun")
        reach(f"validator.journal.{kind}")
        self.runs[stream] = Run(self.world, stream, begin(event))
        self.world.announce(*told(stream, self.runs[stream].state))

    # ----------------------------------------------------------------------------------------------------------- games

    async def _look(self, record: GameRecord) -> None:
        run = await self._run_of(record)
        mine = self.runs.get(f"case/{record.channel}") if record.challenger == self.me else None
        interested = [found for found in (run, mine) if found is not None and _cares(found, record)]
        if not interested:
            return
        seen = await look(self.world.chain, self.world.disputes, record, self.world.preset, self.me)
        for found in interested:
            if found.state.game != seen:
                await found.happen(seen)

    async def _run_of(self, record: GameRecord) -> Run | None:
        """The seat in a game; begun when a vote has us in it, or is more likely than not to have us in it.

        A small pool's referees do the leaf again while the jury is being drawn: that leaves more time for the vote.
        """
        stream = f"seat/{record.game}"
        if stream in self.runs or not self.world.options.referee or record.finished is not None:
            return self.runs.get(stream)
        seat = seat_of(self.world.chain, self.me)
        likely = record.leaf > 0 and not record.jury and record.pool.bit_count() <= 2 * self.world.preset.jury
        voters = record.jury | (record.pool if record.appellant or likely else 0)
        sits = seat is not None and voters >> seat & 1
        made = self.world.chain.view.commitments.get(record.channel)
        lease = lease_of(self.world.chain, record.channel)
        if sits and made is not None and lease is not None:
            await self._begin(stream, seated(record, made, lease), await self.world.chain.time())
        return self.runs.get(stream)

    # ------------------------------------------------------------------------------------------------------------ tell

    @property
    def is_busy(self) -> bool:
        """Whether anything is to be done, or waited for, that has an end."""
        watches = not self.world.options.challenge
        return any(_open(run) and not (watches and run.state.phase == "proven") for run in self.runs.values())

    async def earnings(self) -> dict[str, Any]:
        """What this validator has at stake, is owed, and took already, token units as text; and its cases and seats.

        Raises:
            NetworkError: no node answers.
        """
        world, contract = self.world, self.world.disputes
        place = await world.chain.read(contract.seat_of(self.me))
        stake = 0 if place is None else (await world.chain.read(contract.seat(place))).stake
        owed = await world.chain.read(contract.owed(self.me))
        states = [run.state for run in self.runs.values()]
        return {
            "validator": self.me,
            "seat": place,
            "stake": str(stake),
            "owed": str(owed),
            "withdrawn": str(world.chain.view.disputes.withdrawn.get(self.me, 0)),
            "cases": _counts(state.phase for state in states if isinstance(state, Case)),
            "seats": _counts(state.phase for state in states if isinstance(state, Seat)),
        }


def _open(run: Run) -> bool:
    state = run.state
    if state.phase == "over":
        return not any(name.startswith("withdraw/") for name in state.done)
    return isinstance(state, Seat) or state.phase in OPEN_CASES


def _cares(run: Run, record: GameRecord) -> bool:
    """Whether a game may still change, or is not known here to be over."""
    known = run.state.game
    if isinstance(run.state, Case) and known is not None and known.game != record.game:
        return False
    if isinstance(run.state, Case) and run.state.phase not in ("proven", "playing", "over"):
        return False
    return known is None or known.stage != "over"


def _counts(phases: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for phase in phases:
        found[phase] = found.get(phase, 0) + 1
    return found
