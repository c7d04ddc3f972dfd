"""The compiled contracts and their specification, driven with the same calls.

What it is: a `World` of tenants, providers and arbiters; `call` sends one call to both sides and compares their answers
(success, or the same revert string); the events of each call are checked against what the call may do and added to a
record per lease. What it does not know: which calls to make (`schedule`), and what must always hold (`invariants`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from evm import CHAIN_ID, Contract, Machine, Reverted, deploy, words

from minga.core.crypto import Address, Hash32, PrivateKey, keccak, recover, to_hex
from minga.core.eip712 import Domain
from minga.core.errors import ContractError, InvalidSignature
from minga.core.units import Amount
from minga.protocol.lease import Lease
from minga.protocol.market import Market
from minga.protocol.messages import Offer, Voucher, sign
from minga.protocol.settlement import split
from minga.protocol.stake import ALLOWANCE_UNLIMITED, Ledger, Registry

FEE_RECIPIENT = Address("0x" + "fe" * 20)
FUNDS = 2**100
STAKE = 10**11
MACHINES = tuple(Hash32("0x" + digit * 64) for digit in "ab")


def key(name: str) -> PrivateKey:
    """The key of a role in the tests."""
    return PrivateKey(keccak(name.encode()))


@dataclass(frozen=True)
class Party:
    """Somebody who acts. A contract wallet acts through its owner; a provider's offers are signed by its agent key."""

    name: str
    address: Address
    key: PrivateKey
    agent: PrivateKey
    wallet: Contract | None = None


@dataclass
class Record:
    """What the test itself saw of one lease: the independent books that the contracts are held against."""

    lease: Lease
    signer: PrivateKey
    provider: Party
    offered_units: int
    deposit: int
    settled: int = 0
    best: int = 0  # the largest amount that was ever truly signed and sent
    paid: int = 0
    fee: int = 0
    held: int = 0
    refund: int = 0
    ended: bool = False


@dataclass
class World:
    """Both sides, the people, and the books."""

    machine: Machine
    freezing: bool
    fee_bps: int = 100
    chain_id: int = CHAIN_ID
    staked: bool = True
    code: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        how = self.code
        self.token = deploy(self.machine, "HostileToken" if self.freezing else "Token", **how)
        self.registry = deploy(self.machine, "Registry", ["address"], [self.token.address], **how)
        types = ["address", "address", "uint256", "address"]
        given = [self.token.address, self.registry.address, self.fee_bps, FEE_RECIPIENT]
        self.market = deploy(self.machine, "Market", types, given, **how)
        self.contracts = {each.address: each for each in (self.token, self.registry, self.market)}
        self.domain = Domain(self.chain_id, self.market.address)
        self.ledger = Ledger()
        stakes = Registry(Address(self.registry.address), self.ledger)
        self.spec = Market(self.domain, stakes, self.fee_bps, FEE_RECIPIENT, self._wallet_signed)
        self.tenants = [self._party(f"tenant {i}") for i in range(3)]
        self.providers = [self._party(f"provider {i}") for i in range(2)] + [self._wallet("provider 2")]
        self.arbiters = [self._party(f"arbiter {i}") for i in range(3)]
        self.stranger = self._party("stranger")
        self.records: list[Record] = []
        self.by_id: dict[int, Record] = {}
        self.calls = self.forgeries_accepted = 0
        self.outcomes: Counter[str] = Counter()
        self.slashed: set[tuple[Address, Address]] = set()
        self.stake_in = self.stake_out = 0
        self.may_receive: set[str] = {FEE_RECIPIENT}
        self._begin()

    # --------------------------------------------------------------------------------------------------------- people

    def _party(self, name: str) -> Party:
        own = key(name)
        return Party(name, own.address, own, key(name + " agent"))

    def _wallet(self, name: str) -> Party:
        own = key(name)
        wallet = deploy(self.machine, "Wallet", ["address"], [own.address], **self.code)
        return Party(name, Address(wallet.address), own, key(name + " agent"), wallet)

    def _wallet_signed(self, provider: Address, digest: bytes, signature: bytes) -> bool:
        owners = {party.address: party.key.address for party in self.providers if party.wallet}
        try:
            return provider in owners and recover(digest, signature) == owners[provider]
        except InvalidSignature:
            return False

    @property
    def people(self) -> list[Party]:
        """Everybody who can send a call."""
        return [*self.tenants, *self.providers, *self.arbiters, self.stranger]

    def _begin(self) -> None:
        for party in self.people:
            self.token.call(self.stranger.address, "mint", party.address, FUNDS)
            self.ledger.balances[party.address] = FUNDS
            for spender in (self.market, self.registry):
                self.approve(party, spender, ALLOWANCE_UNLIMITED)
        for party in self.providers:
            self.register(party)
        for factor, party in zip((1, 20), self.arbiters, strict=False):
            self._appoint(party, factor)
            for provider in self.providers if self.staked else ():
                self._stake(provider, party)

    def _appoint(self, arbiter: Party, factor: int) -> None:
        self.call(
            arbiter, self.registry, "appoint", (self.market.address, factor),
            lambda: self.spec.registry.appoint(arbiter.address, self.spec.address, factor),
        )  # fmt: skip

    def _stake(self, provider: Party, arbiter: Party) -> None:
        self.call(
            provider, self.registry, "stake", (arbiter.address, STAKE),
            lambda: self.spec.registry.stake(provider.address, arbiter.address, STAKE),
        )  # fmt: skip

    def register(self, party: Party) -> None:
        """Enter a provider."""
        self.call(
            party, self.registry, "register", ("https://provider", party.agent.address),
            lambda: self.spec.registry.register(party.address, party.agent.address),
        )  # fmt: skip

    def approve(self, party: Party, spender: Contract, amount: int) -> None:
        """Set an allowance on both sides."""
        self.send(party, self.token, "approve", (spender.address, amount))
        self.ledger.allowances[party.address, Address(spender.address)] = amount

    # ---------------------------------------------------------------------------------------------------------- calls

    @property
    def now(self) -> int:
        """Chain time."""
        return self.machine.now

    def send(self, party: Party, contract: Contract, name: str, args: tuple[Any, ...]) -> bytes:
        """One call to the compiled contract, through the party's wallet where it has one."""
        if party.wallet is None:
            return contract.call(party.address, name, *args)
        return party.wallet.call(party.key.address, "run", contract.address, contract.data(name, *args))

    def call(
        self, party: Party, contract: Contract, name: str, args: tuple[Any, ...], spec: Callable[[], object]
    ) -> bool:
        """The same call on both sides; whether it went through. They must agree, down to the revert string."""
        self.calls += 1
        expected = "ok"
        try:
            spec()
        except ContractError as error:
            expected = error.fact
        found = "ok"
        try:
            self.send(party, contract, name, args)
        except Reverted as error:
            found = error.reason or f"halted: {error}"
        self.outcomes[found if found != "ok" else f"ok: {name}"] += 1
        assert found == expected, f"{party.name} {name}: contract says {found!r}, specification {expected!r}"
        if found == "ok":
            self._read_events(name)
        return found == "ok"

    # ---------------------------------------------------------------------------------------------------------- books

    def _read_events(self, name: str) -> None:
        self.due, self.out = Counter[str](), Counter[str]()
        for log in self.machine.logs():
            contract = self.contracts.get(log.address)
            if contract is not None:
                event, seen = contract.decode(log)
                note = getattr(self, f"_note_{event}", None)
                if note is not None:
                    note(self.by_id.get(seen.get("lease_id", -1)), seen)
        if name != "withdraw":
            assert +self.due == +self.out, f"{name} owed {self.due}, but paid or booked {self.out}"

    def _note_Transfer(self, record: None, seen: dict[str, int]) -> None:
        sender, receiver, amount = address(seen["sender"]), address(seen["receiver"]), seen["amount"]
        if sender == self.registry.address:
            self.stake_out += amount
        elif receiver == self.registry.address:
            self.stake_in += amount
        if sender in self.contracts:
            assert receiver in self.may_receive, f"tokens went to {receiver}, who is no party"
        if sender == self.market.address:
            self.out[receiver] += amount

    def _note_Owed(self, record: None, seen: dict[str, int]) -> None:
        self.out[address(seen["owner"])] += seen["amount"]

    def _note_FeesCollected(self, record: None, seen: dict[str, int]) -> None:
        self.due[FEE_RECIPIENT] += seen["amount"]

    def _note_ToppedUp(self, record: Record, seen: dict[str, int]) -> None:
        record.deposit += seen["amount"]

    def _note_Redeemed(self, record: Record, seen: dict[str, int]) -> None:
        assert seen["settled"] > record.settled, "a redeem did not raise what is settled"
        record.settled = seen["settled"]
        record.paid += seen["paid"]
        record.fee += seen["fee"]
        self.due[record.lease.provider] += seen["paid"]

    def _note_Closed(self, record: Record, seen: dict[str, int]) -> None:
        assert not record.ended, "a lease ended twice"
        assert seen["settled"] >= record.settled, "the end lowered what is settled"
        self.due[record.lease.provider] += seen["paid"] - record.paid
        self.due[record.lease.tenant] += seen["refund"]
        record.ended = True
        record.settled, record.paid, record.fee = seen["settled"], seen["paid"], seen["fee"]
        record.held, record.refund = seen["held"], seen["refund"]

    def _note_HoldEnded(self, record: Record, seen: dict[str, int]) -> None:
        assert seen["to_tenant"] + seen["to_provider"] == record.held, "the held part was not divided to the unit"
        self.due[record.lease.tenant] += seen["to_tenant"]
        self.due[record.lease.provider] += seen["to_provider"]

    def opened(self, lease: Lease, offer: Offer, provider: Party, signer: PrivateKey, deposit: int) -> None:
        """Enter a new lease in the books."""
        assert int(lease.id, 16) not in self.by_id, "a lease id lived twice"
        record = Record(lease, signer, provider, offer.units, deposit)
        self.records.append(record)
        self.by_id[int(lease.id, 16)] = record
        self.may_receive |= {lease.tenant, lease.provider}

    def best_voucher(self, record: Record) -> tuple[int, bytes]:
        """The best voucher that the provider has, as it would present it."""
        amount = Amount(record.best)
        return amount, sign(Voucher(record.lease.channel, amount), self.domain, record.signer) if amount else b""

    def entitled(self, record: Record) -> int:
        """What the provider has earned of a lease that ended now with the best voucher there is, held part included."""
        gross = max(record.settled, min(record.best, record.deposit))
        return gross - split(gross, self.fee_bps).fee


def offer_words(offer: Offer) -> bytes:
    """An offer as the contract takes it."""
    return words(*(getattr(offer, item.name) for item in fields(offer)))


def address(number: int) -> str:
    """An address from a word."""
    return to_hex(number.to_bytes(20, "big"))
