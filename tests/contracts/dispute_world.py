"""Disputes and its specification, driven with the same calls, beside Market's and Registry's.

What it is: a `World` with an arbiter in it, referees, and work of which the test knows whether it was done rightly;
`act` makes one call on both sides and compares their answers. What it does not know: which calls to make
(`dispute_schedule`, `dispute_players`), and what must always hold (`dispute_invariants`).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from evm import block_hash, deploy
from lockstep import MACHINES, Party, World, key, offer_words

from minga.core.crypto import Address, Hash32, PrivateKey, keccak, to_hex
from minga.core.units import Amount
from minga.protocol.beacon import BlockBeacon
from minga.protocol.dispute import SHORT, Commitment, Preset, Verdict, vote_hash
from minga.protocol.dispute_game import Table
from minga.protocol.disputes import Disputes
from minga.protocol.lease import Lease, lease_of
from minga.protocol.market import Order
from minga.protocol.merkle import ARITY, LEVELS, ROUNDS_MAX, Tree
from minga.protocol.messages import Offer, Ordered, sign
from minga.protocol.stake import ALLOWANCE_UNLIMITED

FUND = Address("0x" + "af" * 20)
WORK = Hash32("0x" + "77" * 32)
STAKE_UNLIMITED = 2**90
PLACES = ["address"] * 5 + ["(uint256)"]
HOUR = 3600


@lru_cache(maxsize=256)
def keyed(name: str) -> PrivateKey:
    """A role's key, made once."""
    return key(name)


@dataclass
class Job:
    """A lease, the trace that its provider committed to, and the truth about it.

    `wrong`: the leaf that does not follow from the one before; None when all do. `ends_early`: the work goes on.
    """

    lease: Lease
    provider: Party
    commitment: Commitment
    tree: Tree
    honest_tree: Tree
    wrong: int | None = None
    ends_early: bool = False

    @property
    def true(self) -> bool:
        """Whether the provider did what was ordered."""
        return self.wrong is None and not self.ends_early

    def verdict(self, table: Table) -> Verdict:
        """What an honest referee finds about the leaf that a game came down to."""
        at_end = table.index == self.commitment.leaves
        wrong = self.ends_early if at_end else table.index == self.wrong
        return Verdict.DOES_NOT if wrong else Verdict.FOLLOWS


def trace(seed: str, leaves: int, wrong: int | None = None) -> Tree:
    """A trace of `leaves` states; from `wrong` on they are another computation's."""
    return Tree([keccak(f"{seed} {i} {wrong is not None and i >= wrong}".encode()) for i in range(leaves)])


def padded(proof: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """A proof as the contract takes it."""
    return (*proof, *[bytes(32)] * (LEVELS * ROUNDS_MAX - len(proof)))


@dataclass
class DisputeWorld(World):
    """Market, Registry and Disputes, both sides; `crowd` people may become referees."""

    preset: Preset = SHORT
    delay: int = 0
    crowd: int = 5
    jobs: list[Job] = field(default_factory=list)
    began: dict[int, int] = field(default_factory=dict)
    finished: dict[int, dict[str, int]] = field(default_factory=dict)
    applied: defaultdict[int, list[dict[str, int]]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        super().__post_init__()
        how = self.code
        self.beacon = deploy(self.machine, "BlockBeacon", ["uint256"], [self.delay], **how)
        around = [each.address for each in (self.market, self.token, self.registry, self.beacon)]
        self.court = deploy(self.machine, "Disputes", PLACES, [*around, FUND, self.preset.as_tuple()], **how)
        self.contracts |= {self.court.address: self.court, self.beacon.address: self.beacon}
        rounds = BlockBeacon(block_hash, self.delay, self.machine.number)
        self.rules = Disputes(Address(self.court.address), self.preset, self.spec, rounds, FUND)
        self.referees = [Party(f"referee {i}", keyed(f"referee {i}").address, keyed(f"referee {i}"),
                               keyed(f"referee {i}")) for i in range(self.crowd)]  # fmt: skip
        self.may_receive |= {self.court.address, FUND}
        for party in self.referees:
            self.token.call(self.stranger.address, "mint", party.address, 2**100)
            self.ledger.balances[party.address] = 2**100
        for party in (*self.people, *self.referees):
            self.may_receive.add(party.address)
            self.approve(party, self.court, ALLOWANCE_UNLIMITED)
        for party in self.providers:
            self.stake(party, STAKE_UNLIMITED)
        self.minted = self.total()

    # ---------------------------------------------------------------------------------------------------------- calls

    def act(self, party: Party, name: str, *args: Any, spec: tuple[Any, ...] | None = None, timed: bool = True) -> bool:
        """One call to Disputes on both sides; `spec` are the specification's arguments where they are others."""
        given = [item.as_tuple() if isinstance(item, Lease | Commitment) else item for item in args]
        method = getattr(self.rules, "challenge" if name == "challenge_end" else name)
        how = {"end": True} if name == "challenge_end" else {}
        first: list[Any] = [] if name in ("draw", "timeout", "finish", "apply") else [party.address]
        if timed:
            first.append(self.now)
        return self.call(
            party, self.court, name, tuple(given),
            lambda: method(*first, *(args if spec is None else spec), **how),
        )  # fmt: skip

    def _note_Challenged(self, record: None, seen: dict[str, int]) -> None:
        self.began[seen["game"]] = self.now

    def _note_Finished(self, record: None, seen: dict[str, int]) -> None:
        assert seen["game"] not in self.finished, "a game ended twice"
        self.finished[seen["game"]] = seen

    def _note_Applied(self, record: None, seen: dict[str, int]) -> None:
        self.applied[seen["channel"]].append(seen)

    def keep(self, party: Party, round: int) -> bool:
        """Somebody keeps a round of the beacon."""
        return self.call(party, self.beacon, "keep", (round,), lambda: self.rules.beacon.keep(round))

    def set_block(self, number: int) -> None:
        """Move both sides to a block."""
        self.machine.set_block(number)
        self.rules.beacon.number = number

    def total(self) -> int:
        """All tokens that the specification knows."""
        return sum(self.ledger.balances.values())

    # --------------------------------------------------------------------------------------------------------- scenes

    def stake(self, provider: Party, amount: int) -> bool:
        """A provider puts stake under Disputes."""
        return self.call(
            provider, self.registry, "stake", (self.court.address, amount),
            lambda: self.spec.registry.stake(provider.address, self.rules.address, amount),
        )  # fmt: skip

    def offer(self, provider: Party, **changes: Any) -> Offer:
        """An offer with Disputes as its arbiter."""
        sound = Offer(
            provider=provider.address,
            machine=MACHINES[0],
            terms=WORK,
            price_per_hour=Amount(1),
            units=10**6,
            deposit_min=Amount(1),
            seconds_min=60,
            seconds_max=86_400,
            quantum=60,
            close_window=HOUR,
            arbiter=self.rules.address,
            hold_bps=1_000,
            hold_seconds=3 * HOUR,
            valid_until=self.now + HOUR,
            epoch=self.spec.epochs.get(provider.address, 0),
            salt=WORK,
        )
        return replace(sound, **changes)

    def lease(self, tenant: Party, provider: Party, deposit: int, **changes: Any) -> Lease:
        """A lease with Disputes as its arbiter."""
        offer = self.offer(provider, **changes)
        session = keyed("session")
        order = Order(WORK, 1_000 + self.calls, 1, HOUR, deposit, session.address)
        signature = sign(offer, self.domain, provider.agent)
        args = (offer_words(offer), signature, order.job, order.attempt, 1, HOUR, deposit, session.address)
        made = self.call(
            tenant, self.market, "open", args,
            lambda: self.spec.open(tenant.address, self.now, offer, signature, order),
        )  # fmt: skip
        assert made, "a sound offer was refused"
        lease = lease_of(offer, tenant.address, order.job, order.attempt, 1, session.address, self.now)
        self.opened(lease, offer, provider, session, deposit)
        return lease

    def ordered(self, lease: Lease, work: Hash32 = WORK) -> bytes:
        """The session signer's word on the work."""
        return sign(Ordered(lease.channel, work), self.rules.domain, keyed("session"))

    def job(
        self, lease: Lease, provider: Party, leaves: int = 40, wrong: int | None = None, *, ends_early: bool = False
    ) -> Job:
        """The provider's commitment to a trace of that lease."""
        tree = trace(lease.id, leaves, wrong)
        root, signature = Hash32(to_hex(tree.root)), self.ordered(lease)
        assert self.act(provider, "commit", lease, WORK, root, leaves, signature), "a sound commitment was refused"
        commitment = self.rules.commitments[lease.channel]
        self.jobs.append(Job(lease, provider, commitment, tree, trace(lease.id, leaves), wrong, ends_early))
        return self.jobs[-1]

    def job_of(self, game: int) -> Job:
        """The job that a game is about."""
        channel = self.rules.tables[game].channel
        return next(job for job in self.jobs if job.commitment.channel == channel)

    def table(self, game: int) -> Table:
        """The game now."""
        return self.rules._table(game, self.now)

    def children(self, game: int) -> tuple[bytes, ...]:
        """The committed tree's nodes below the one in play."""
        table, tree = self.rules.tables[game], self.job_of(game).tree
        return tree.children(tree.rounds - table.rounds, table.index)

    def referee_of(self, seat: int) -> Party:
        """Who has a seat."""
        owner = self.rules.pool.seats[seat].referee
        return next(party for party in (*self.referees, *self.people) if party.address == owner)

    def vote(self, game: int, seat: int, verdict: int, salt: bytes = b"salt" * 8) -> Hash32:
        """The vote that a seat would commit now."""
        voting = int(self.table(game).phase >= 9)
        return vote_hash(game, voting, self.referee_of(seat).address, verdict, salt)


def wrong_child(shown: tuple[bytes, ...], true: tuple[bytes, ...]) -> int | None:
    """The first of 16 nodes that differs."""
    return next((at for at in range(ARITY) if shown[at] != true[at]), None)
