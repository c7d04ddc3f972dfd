"""One case or seat at work: the journal first, then the state, then what the state wants done.

Knows: how each effect is done, and which failures are tried again. Does not know: when something happens on chain;
`loop` tells. Rule: an event is on disk before anything is done about it; an effect may be done twice (its transaction
has a name, so that it is sent once), and its end is an event, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.to_thread

from minga.chain.chain import Call
from minga.chain.contracts import Token
from minga.core.crypto import Hash32, from_hex, to_hex
from minga.core.errors import Conflict, ContractError, MingaError, NotServed, ReplayFailed, Undetermined
from minga.protocol.dispute import vote_hash
from minga.protocol.lease import Why
from minga.validator import agent
from minga.validator import events as ev
from minga.validator.checks import check, goes_on, verdict
from minga.validator.events import DOES_NOT_FOLLOW, FOLLOWS, Effect, Event
from minga.validator.files import Files
from minga.validator.points import reach
from minga.validator.state import Case, Seat, State, wanted
from minga.validator.watch import lease_of, seat_of
from minga.validator.world import World

RETRY_SECONDS = 2.0
LATER = frozenset({"disputes-lease-running"})
"""Refusals that say: not yet."""

FINAL = ("challenge", "appeal", "apply", "withdraw")
"""Calls whose refusal is an answer. Any other call is wanted as long as the game waits for it, and so sent again."""


class Run:
    """See the module. `stream` is its name in the journal."""

    def __init__(self, world: World, stream: str, state: State) -> None:
        """Nothing is done before `kick`."""
        self.world = world
        self.stream = stream
        self.state = state
        self._learn()
        self.files = Files(world, state.facts.channel, state.facts.provider)
        self._lock = anyio.Lock()
        self._busy: set[str] = set()
        self._not_before: dict[str, float] = {}

    async def happen(self, event: Event) -> bool:
        """Take an event: journal it, then let the state follow. False when the state does not allow it (any more)."""
        world = self.world
        async with self._lock:
            now = await world.chain.time()
            try:
                state, _ = agent.step(self.state, event, now)
            except Conflict:
                return False
            kind, body = ev.encode(event)
            await anyio.to_thread.run_sync(world.journal.append, self.stream, kind, body, now)
            reach(f"validator.journal.{kind}")
            before, self.state = self.state, state
            self._learn()
        if before.phase != state.phase or isinstance(event, ev.GameSeen | ev.Judged):
            world.announce(*told(self.stream, state))
        self.kick(now)
        return True

    def _learn(self) -> None:
        """Remember what our own audit found, so that a seat need not do the same leaf again."""
        if isinstance(self.state, Case) and self.state.differs:
            self.world.findings[self.state.facts.channel] = self.state.differs

    def kick(self, now: int) -> None:
        """Begin what is wanted and neither under way nor put off. `now` is chain time."""
        for effect in wanted(self.state, now):
            if isinstance(effect, ev.Send) and effect.call == "challenge" and not self.world.options.challenge:
                continue
            if effect.id in self._busy or self._not_before.get(effect.id, 0) > self.world.clock.monotonic():
                continue
            self._busy.add(effect.id)
            self.world.tasks.start_soon(self._do, effect)

    async def _do(self, effect: Effect) -> None:
        event: Event | None = None
        try:
            event = await self._doing(effect)()
        except ContractError as error:
            if isinstance(effect, ev.Send) and effect.call in FINAL and error.code not in LATER:
                event = ev.Done(effect.id, error.code)
        except MingaError as error:  # a node or a disk that fails: tried again
            self.world.announce("warning", error.as_dict()["error"])
        except Exception as error:  # a defect in one case must not end the others
            fact = f"{effect.id}: {type(error).__name__}: {error}"[:300]
            self.world.announce("warning", {"code": "internal-error", "fact": fact, "remedy": "it is tried again"})
        finally:
            self._not_before[effect.id] = self.world.clock.monotonic() + RETRY_SECONDS
            self._busy.discard(effect.id)
        if event is not None:
            await self.happen(event)

    def _doing(self, effect: Effect) -> Callable[[], Awaitable[Event | None]]:
        match effect:
            case ev.Fetch():
                return lambda: self._fetch(effect)
            case ev.Replay():
                return lambda: self._replay(effect)
            case ev.Judge():
                return lambda: self._judge(effect)
            case ev.CommitVote() | ev.RevealVote():
                return lambda: self._vote(effect)
            case ev.Send():
                return lambda: self._send(effect)

    # -------------------------------------------------------------------------------------------------------- checking

    async def _fetch(self, effect: ev.Fetch) -> Event:
        if effect.number > 1:
            await self.world.clock.sleep(self._patience())
        try:
            evidence = await self.files.gather()
        except NotServed as error:
            return ev.Unserved(error.fact)
        return ev.Served(evidence.keep)

    def _patience(self) -> float:
        """Seconds between two tries: all of them together take a part of the time that there is."""
        preset = self.world.preset
        return preset.window / 50 if isinstance(self.state, Case) else preset.vote_seconds / 15

    def _name(self, what: str) -> str:
        return f"{self.stream.partition('/')[0]}-{self.state.facts.channel[2:18]}-{what}"

    async def _replay(self, effect: ev.Replay) -> Event:
        world = self.world
        try:
            evidence = await self.files.gather()
            async with world.replaying:
                name = self._name(str(effect.first))
                found = await check(
                    world.replayer, self.files.gather_state, name, evidence, effect.first, effect.last
                )  # fmt: skip
        except (NotServed, ReplayFailed) as error:
            return ev.Unreplayed(effect.first, effect.last, error.fact)
        reach("validator.replay.done")
        return ev.Replayed(effect.first, effect.last, found.differs, found.own)

    async def _judge(self, effect: ev.Judge) -> Event:
        salt = to_hex(self.world.dice.bytes(32))
        if not effect.served:
            return ev.Judged(DOES_NOT_FOLLOW, salt)
        try:
            found, why = await self._found(effect.leaf)
        except NotServed as error:
            return ev.Judged(DOES_NOT_FOLLOW, salt, error.fact)
        except Undetermined as error:
            return ev.Judged(FOLLOWS, salt, error.fact)
        except ReplayFailed as error:
            return ev.Abstained(error.fact)
        reach("validator.judge.done")
        return ev.Judged(found, salt, why)

    async def _found(self, leaf: int) -> tuple[int, str]:
        world, seat = self.world, self.state
        assert isinstance(seat, Seat)
        if world.findings.get(seat.facts.channel) == leaf:
            return DOES_NOT_FOLLOW, f"our own audit had leaf {leaf} otherwise"
        evidence = await self.files.gather()
        async with world.replaying:
            name = self._name(str(seat.facts.game))
            if not seat.facts.end:
                first = evidence.start_for(leaf - 1)
                return verdict(await check(world.replayer, self.files.gather_state, name, evidence, first, leaf), leaf)
            if not await goes_on(world.replayer, self.files.gather_state, name, evidence):
                return FOLLOWS, "the work ends where the trace does"
        lease = lease_of(world.chain, seat.facts.channel)
        if lease is not None and lease.closed is not None and lease.closed.why != Why.DONE:
            return FOLLOWS, "the lease says that the work was ended before its end"
        return DOES_NOT_FOLLOW, "the work goes on where the trace ends"

    # --------------------------------------------------------------------------------------------------------- sending

    async def _vote(self, effect: ev.CommitVote | ev.RevealVote) -> Event | None:
        world, contract = self.world, self.world.disputes
        seat = seat_of(world.chain, world.key.address)
        if seat is None:
            return None
        if isinstance(effect, ev.CommitVote):
            me, salt = world.key.address, from_hex(effect.salt)
            bound = vote_hash(effect.game, effect.ballot - 1, me, effect.verdict, salt)
            return await self._sent(effect, contract.commit_vote(effect.game, seat, bound))
        return await self._sent(effect, contract.reveal_vote(effect.game, seat, effect.verdict, from_hex(effect.salt)))

    async def _send(self, effect: ev.Send) -> Event | None:
        world, contract, facts = self.world, self.world.disputes, self.state.facts
        if effect.call == "challenge":
            made = world.chain.view.commitments[Hash32(facts.channel)]
            await self._allow(effect, world.preset.bond)
            return await self._sent(effect, contract.challenge(made))
        record = world.chain.view.disputes.games[effect.game]
        if effect.call == "pick":
            if record.rounds_shown != effect.done + 1:
                return None  # the game is ahead of the events that were read
            shown = [from_hex(child) for child in record.children]
            return await self._sent(effect, contract.pick(effect.game, shown, effect.index))
        if effect.call == "appeal":
            await self._allow(effect, world.preset.seat_fee * record.pool.bit_count())
        if effect.call == "apply":
            lease = lease_of(world.chain, facts.channel)
            return None if lease is None else await self._sent(effect, contract.apply(lease.lease))
        if effect.call == "withdraw":
            return await self._sent(effect, contract.withdraw(world.key.address))
        calls = {"draw": contract.draw, "timeout": contract.timeout, "appeal": contract.appeal}
        return await self._sent(effect, calls.get(effect.call, contract.finish)(effect.game))

    async def _allow(self, effect: Effect, amount: int) -> None:
        await allow(self.world, f"{self.stream}/{effect.id}", amount)

    async def _sent(self, effect: Effect, call: Call[None]) -> Event:
        await self.world.chain.send(f"{self.stream}/{effect.id}", call, self.world.key)
        reach("validator.effect.sent")
        self.world.announce("sent", {"stream": self.stream, "effect": effect.id})
        return ev.Done(effect.id)


async def allow(world: World, name: str, amount: int) -> None:
    """See that the arbiter may take `amount` token units from us, beside what was allowed for anything else."""
    token, spender = Token(world.chain.spec.deployment.token), world.disputes.address
    allowed = await world.chain.read(token.allowance(world.key.address, spender))
    if allowed < amount:
        await world.chain.send(f"allow/{name}", token.approve(spender, amount), world.key)


def told(stream: str, state: State) -> tuple[str, dict[str, object]]:
    """What the operator is told of a state."""
    facts: dict[str, object] = {"stream": stream, "channel": state.facts.channel, "phase": state.phase}
    if state.game is not None:
        facts |= {"game": state.game.game, "stage": state.game.stage}
    if isinstance(state, Seat):
        return "seat", facts | {"game": state.facts.game, "verdict": state.verdict, "why": state.why}
    return "case", facts | {"differs": state.differs, "noted": list(state.noted)}
