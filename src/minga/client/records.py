"""What the chain says of providers, for one client: its events, and complaints that have a lease behind them.

Only what is new is taken in: leases that ended since the last look, complaints not seen before; what the chain's view
keeps folded on disk is not even read. A reorg gives the chain another view; then all that is not kept is taken in anew.
Reading is bounded in time and stops nobody from buying: what is not read now is read at the next look.

Rule: a complaint is believed when the chain knows its lease, with this provider and this signer, and the signature is
good; a board's word counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import anyio
import anyio.abc
import httpx

from minga.chain.chain import Chain, ChainSpec
from minga.chain.view import View, fact_of
from minga.client import complaints
from minga.core.crypto import Address, Hash32
from minga.core.effects import Clock
from minga.core.errors import InvalidSignature, MingaError, NotFound, RpcUnavailable
from minga.protocol.complaint import SignedComplaint
from minga.protocol.matching import Reliability, unknown
from minga.protocol.reliability import Fact, Ledger, Record, Rules

READ_S = 3.0
"""Seconds that reading the chain on, or a board's complaints, may hold up an answer."""

COMPLAINTS_FRESH_S = 30.0


class Follower:
    """The ledger of one network's providers, following one chain's view."""

    def __init__(self, spec: ChainSpec) -> None:
        """Nothing is read yet."""
        self._domain = spec.domain
        self._rules = Rules.of(spec.deployment.decimals)
        self._view = View()
        self._folded = -1
        self._taken = 0
        self._believed: dict[tuple[Hash32, int], SignedComplaint] = {}
        self.ledger = Ledger(self._rules)

    def follow(self, view: View) -> None:
        """Take in what `view` has and did not have before. O(new leases); all that is not kept after a reorg, and when
        what is kept has come further, by this process or another.
        """
        while True:
            folded = view.kept.block() if view.kept else -1
            if view is not self._view or folded != self._folded:
                self._view, self._folded, self._taken = view, folded, 0
                self.ledger = Ledger(self._rules, view.kept)
                for complaint in self._believed.values():
                    self._apply(complaint)
            for lease_id in view.ended[self._taken :]:
                self.ledger.end(fact_of(view.leases[lease_id]))
            self._taken = len(view.ended)
            if view.kept is None or view.kept.block() == folded:
                return

    def hear(self, complaints: Iterable[SignedComplaint]) -> int:
        """Take in complaints that prove themselves against the view followed; returns how many were new."""
        count = 0
        for complaint in complaints:
            key = complaint.channel, complaint.reason
            if key in self._believed or not self._has_lease(complaint):
                continue
            try:
                complaint.check(self._domain)
            except InvalidSignature:
                continue
            self._believed[key] = complaint
            self._apply(complaint)
            count += 1
        return count

    def _has_lease(self, complaint: SignedComplaint) -> bool:
        known = self._view.leases.get(Hash32(complaint.lease_id))
        return known is not None and complaint.is_of(known.lease)

    def _apply(self, complaint: SignedComplaint) -> None:
        if self._has_lease(complaint):
            self.ledger.complain(Address(complaint.provider), complaint.lease_id, complaint.reason)


@dataclass(frozen=True)
class Standing:
    """A provider's record at chain time `as_of`, and the leases behind it with their complaints' reasons, last first.

    `doubts`: what could not be read, so that the record may lack something.
    """

    record: Record
    evidence: list[tuple[Fact, int | None]]
    as_of: int
    doubts: tuple[str, ...] = ()


class Records:
    """Keeps the records of one client up to date."""

    def __init__(
        self, chain: Chain, boards: tuple[str, ...], http: Callable[[str], httpx.AsyncClient], clock: Clock
    ) -> None:
        """Read `chain` on and ask `boards`, each reached by `http(url)`."""
        self._chain = chain
        self._boards = boards
        self._http = http
        self._clock = clock
        self._follower = Follower(chain.spec)
        self._heard: list[SignedComplaint] = []
        self._as_of: int | None = None
        self._asked_at: float | None = None

    async def read_on(self, failures: list[str]) -> None:
        """Read the chain's events on; what cannot be read now is told to `failures`."""
        try:
            with anyio.fail_after(READ_S):
                changes = await self._chain.poll()
                self._as_of = changes.time
                if changes.confirmed or changes.undone:
                    self._chain.acknowledge(changes)
        except TimeoutError:
            failures.append("the chain's history is still being read: records of providers are not up to date")
        except MingaError as error:
            failures.append(f"the chain's history cannot be read: {error}"[:300])

    def ask_boards(self, tasks: anyio.abc.TaskGroup) -> None:
        """Ask every board for complaints, in `tasks`, unless that was done in the last 30 s."""
        now = self._clock.monotonic()
        if self._asked_at is not None and now - self._asked_at < COMPLAINTS_FRESH_S:
            return
        self._asked_at = now

        async def ask(url: str) -> None:
            # A board that cannot tell complaints is no failure: most of what they say is on the chain.
            with suppress(MingaError, httpx.HTTPError, httpx.InvalidURL), anyio.move_on_after(READ_S):
                self._heard.extend(await complaints.fetch(self._http(url)))

        for url in self._boards:
            tasks.start_soon(ask, url)

    def take_in(self) -> None:
        """Bring the ledger up to what was read and heard. O(what is new)."""
        if self._as_of is None:
            return
        heard, self._heard = self._heard, []
        self._follower.follow(self._chain.view)
        self._follower.hear(heard)

    def reliability(self) -> Reliability:
        """Provider → the share that it kept, parts per million; None for all where the chain was not read yet."""
        if self._as_of is None:
            return unknown
        record = self.records()
        return lambda provider: record(provider).ppm

    def records(self) -> Callable[[str], Record]:
        """Provider → its record; the prior where nothing is known."""
        ledger, as_of = self._follower.ledger, self._as_of or 0
        return lambda provider: ledger.record(provider, as_of)

    async def standing(self, name: str) -> Standing:
        """The record of a provider by its address, or by the beginning of it, read on first.

        Raises:
            RpcUnavailable: the chain cannot be read.
            NotFound: no provider has this address, or several begin with it.
        """
        doubts: list[str] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.read_on, doubts)
            self.ask_boards(tasks)
        if self._as_of is None:
            raise RpcUnavailable(doubts[0], "see the network's rpc_urls")
        self.take_in()
        provider, ledger = self._named(name), self._follower.ledger
        return Standing(ledger.record(provider, self._as_of), ledger.facts(provider), self._as_of, tuple(doubts))

    def _named(self, name: str) -> str:
        known = sorted({*self._chain.view.providers, *self._follower.ledger.providers()})
        prefix = (name if name.startswith("0x") else "0x" + name).lower().rstrip("…")
        found = [provider for provider in known if provider.startswith(prefix)] if len(prefix) >= 6 else []
        if len(found) != 1:
            what = "no provider is" if not found else f"{len(found)} providers are"
            raise NotFound(f"{what} called {name[:80]!r}", "name one by its address; see `minga offers`")
        return found[0]
