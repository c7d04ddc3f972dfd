"""Typed bindings of Registry, Market and Token: a method makes a `Call`, which a chain reads or sends (`disputes`
has those of Disputes and its beacon).

Knows the shipped ABIs and nothing of nodes; pure. The prose of every function stands in `contracts/interfaces/`. Rule:
argument order, names and units are the contracts' own; amounts are token units, times chain time in Unix seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from typing import Any, TypeVar

from minga.chain.abi import Interface, decode, encode, load_interface
from minga.chain.chain import Call
from minga.core.crypto import Address, Hash32
from minga.core.errors import BadAnswer
from minga.core.units import Amount
from minga.protocol.lease import Account, Lease, Phase
from minga.protocol.messages import Offer

T = TypeVar("T")
EMPTY_SIGNATURE = b""


# ----------------------------------------------------------------------------------------------------------- values


@dataclass(frozen=True, slots=True)
class Stake:
    """A provider's stake with one arbiter, in token units; `unbonding` is free from `free_at` (chain time) on."""

    staked: Amount
    locked: Amount
    unbonding: Amount
    free_at: int


@dataclass(frozen=True, slots=True)
class Permit:
    """An EIP-2612 signature of the tenant for Market."""

    amount: Amount
    deadline: int
    v: int
    r: Hash32
    s: Hash32


@dataclass(frozen=True, slots=True)
class Authorization:
    """An EIP-3009 ReceiveWithAuthorization of the tenant for Market; its value is the deposit."""

    valid_after: int
    valid_before: int
    nonce: Hash32
    v: int
    r: Hash32
    s: Hash32


# --------------------------------------------------------------------------------------------------------- bindings


class Contract:
    """An address and its shipped interface: the base of every binding, also of those in `disputes`."""

    artifact: str

    def __init__(self, address: Address) -> None:
        self.address = address

    @property
    def _interface(self) -> Interface:
        return load_interface(self.artifact)

    def _send(self, name: str, *values: Any) -> Call[None]:
        return Call(self.address, self._interface.encode(name, *values), f"{self.artifact}.{name}", _nothing)

    def _view(self, name: str, shape: Callable[..., T], *values: Any) -> Call[T]:
        outputs = self._interface.function(name, len(values)).outputs

        def read(data: bytes) -> T:
            return shape(*decode(outputs, data))

        return Call(self.address, self._interface.encode(name, *values), f"{self.artifact}.{name}", read)


def _nothing(data: bytes) -> None:
    """What a transaction returns: nobody sees it."""


class Token(Contract):
    """The stablecoin (ERC-20, EIP-2612, EIP-3009); `mint` exists on the test token alone."""

    artifact = "Token"

    def balance_of(self, owner: Address) -> Call[Amount]:
        """Token units of `owner`."""
        return self._view("balanceOf", Amount, owner)

    def allowance(self, owner: Address, spender: Address) -> Call[Amount]:
        """Token units that `spender` may take from `owner`."""
        return self._view("allowance", Amount, owner, spender)

    def decimals(self) -> Call[int]:
        """Digits of the token."""
        return self._view("decimals", int)

    def nonces(self, owner: Address) -> Call[int]:
        """The owner's next permit nonce."""
        return self._view("nonces", int, owner)

    def transfer(self, receiver: Address, amount: int) -> Call[None]:
        """Send tokens."""
        return self._send("transfer", receiver, amount)

    def approve(self, spender: Address, amount: int) -> Call[None]:
        """Let `spender` take up to `amount`."""
        return self._send("approve", spender, amount)

    def mint(self, receiver: Address, amount: int) -> Call[None]:
        """Make tokens (test token only)."""
        return self._send("mint", receiver, amount)


class Registry(Contract):
    """Who the providers are, what validators say of their machines, and stake per arbiter."""

    artifact = "Registry"

    def agent_of(self, provider: Address) -> Call[Address]:
        """The provider's agent key; the zero address: not registered."""
        return self._view("agent_of", Address, provider)

    def stake_of(self, provider: Address, arbiter: Address) -> Call[Stake]:
        """The provider's stake with one arbiter."""
        return self._view("stake_of", lambda values: Stake(*values), provider, arbiter)

    def market_of(self, arbiter: Address) -> Call[Address]:
        """The Market that an arbiter named; zero: none."""
        return self._view("market_of", Address, arbiter)

    def register(self, uri: str, agent_key: Address) -> Call[None]:
        """Become a provider; `uri` is at most 256 bytes."""
        return self._send("register", uri, agent_key)

    def update(self, uri: str, agent_key: Address) -> Call[None]:
        """Change uri and agent key."""
        return self._send("update", uri, agent_key)

    def attest(self, provider: Address, machine: Hash32, class_: Hash32, score: int, expires: int) -> Call[None]:
        """Say what was measured on a machine."""
        return self._send("attest", provider, machine, class_, score, expires)

    def appoint(self, market: Address, factor: int) -> Call[None]:
        """As an arbiter, name a Market, once."""
        return self._send("appoint", market, factor)

    def stake(self, arbiter: Address, amount: int) -> Call[None]:
        """Stake with an arbiter (needs an allowance to Registry)."""
        return self._send("stake", arbiter, amount)

    def start_unstake(self, arbiter: Address, amount: int) -> Call[None]:
        """Begin to take stake back."""
        return self._send("start_unstake", arbiter, amount)

    def finish_unstake(self, arbiter: Address, receiver: Address) -> Call[None]:
        """Take unbonded stake."""
        return self._send("finish_unstake", arbiter, receiver)


class Market(Contract):
    """Leases and all customer money."""

    artifact = "Market"

    def account_of(self, lease_id: Hash32) -> Call[Account]:
        """What changes in a lease; zero for one that is closed or never was."""

        def shape(deposit: int, settled: int, ends_at: int, phase: int) -> Account:
            if phase > max(Phase):
                raise BadAnswer(f"a lease has phase {phase}", "ask another node")
            return Account(Amount(deposit), Amount(settled), ends_at, Phase(phase))

        return self._view("account_of", shape, lease_id)

    def lease_hash(self, lease_id: Hash32) -> Call[Hash32]:
        """The hash of a lease's fixed part; zero for an id never used."""
        return self._view("lease_hash", Hash32, lease_id)

    def leased(self, provider: Address, machine: Hash32) -> Call[int]:
        """Units of the machine in leases that have not ended."""
        return self._view("leased", int, provider, machine)

    def epoch_of(self, provider: Address) -> Call[int]:
        """The epoch of the provider's live offers."""
        return self._view("epoch_of", int, provider)

    def owed(self, owner: Address) -> Call[Amount]:
        """Payouts that the token refused."""
        return self._view("owed", Amount, owner)

    def fees(self) -> Call[Amount]:
        """Fees not yet collected."""
        return self._view("fees", Amount)

    def fee_bps(self) -> Call[int]:
        """Fee in basis points of the gross amount."""
        return self._view("fee_bps", int)

    def domain_separator(self) -> Call[Hash32]:
        """The EIP-712 domain that the contract computed."""
        return self._view("domain_separator", Hash32)

    def open(
        self,
        offer: Offer,
        signature: bytes,
        job: Hash32,
        attempt: int,
        units: int,
        seconds: int,
        deposit: int,
        signer: Address,
        funding: Permit | Authorization | None = None,
    ) -> Call[None]:
        """Open a lease as tenant; without `funding` the token's allowance to Market must stand."""
        name = {Permit: "open_with_permit", Authorization: "open_with_authorization"}.get(type(funding), "open")
        extra = (astuple(funding),) if funding else ()
        terms = (_values(offer), signature, job, attempt, units, seconds, deposit, signer)
        return self._send(name, *terms, *extra)

    def top_up(self, lease: Lease, amount: int) -> Call[None]:
        """Add to the deposit."""
        return self._send("top_up", _values(lease), amount)

    def extend(self, lease: Lease, ends_at: int, signature: bytes) -> Call[None]:
        """Give the lease a later end, which the provider signed."""
        return self._send("extend", _values(lease), ends_at, signature)

    def redeem(self, lease: Lease, cumulative: int, signature: bytes) -> Call[None]:
        """Settle up to a voucher."""
        return self._send("redeem", _values(lease), cumulative, signature)

    def close(self, lease: Lease, cumulative: int, signature: bytes, why: int) -> Call[None]:
        """As provider: settle up to a voucher (or none: 0 and `EMPTY_SIGNATURE`) and end."""
        return self._send("close", _values(lease), cumulative, signature, why)

    def release(self, lease: Lease, settled: int, signature: bytes, why: int) -> Call[None]:
        """As tenant: end at an amount that the provider signed."""
        return self._send("release", _values(lease), settled, signature, why)

    def start_close(self, lease: Lease, why: int) -> Call[None]:
        """As tenant: begin to end without the provider."""
        return self._send("start_close", _values(lease), why)

    def finish_close(self, lease: Lease) -> Call[None]:
        """End after the window."""
        return self._send("finish_close", _values(lease))

    def resolve(self, lease: Lease, to_tenant: int) -> Call[None]:
        """As arbiter: divide the held part."""
        return self._send("resolve", _values(lease), to_tenant)

    def finish_hold(self, lease: Lease) -> Call[None]:
        """Send the held part to the provider after the hold."""
        return self._send("finish_hold", _values(lease))

    def cancel_offers(self) -> Call[None]:
        """Kill every offer of the present epoch."""
        return self._send("cancel_offers")

    def collect_fees(self) -> Call[None]:
        """Send the fees to their recipient."""
        return self._send("collect_fees")

    def withdraw(self, receiver: Address) -> Call[None]:
        """Take what is owed, to any address."""
        return self._send("withdraw", receiver)


def _values(struct: Offer | Lease) -> tuple[Any, ...]:
    return tuple(getattr(struct, field.name) for field in fields(struct) if not field.name.startswith("_"))


def transfer_wei(to: Address, wei: int) -> Call[None]:
    """Send native coin."""
    return Call(to, b"", "transfer", _nothing, wei)


def deploy(artifact: str, *values: Any) -> Call[None]:
    """Create a contract; `values` are its constructor's."""
    interface = load_interface(artifact)
    data = interface.bytecode + encode(interface.constructor, values)
    return Call(Address(""), data, f"deploy {artifact}", _nothing)
