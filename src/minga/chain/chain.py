"""What the rest of Minga sees of a chain: one description of every network, and what agents may ask.

`ChainSpec` describes every network, the embedded one included; nothing else differs between them. `Chain` is the
protocol that the agents' loops use; `minga.chain.node.RpcChain` implements it over JSON-RPC, the simulator in memory.
Knows no I/O but the loading and saving of a spec. Rule: money moves are judged at depth `confirmations` only.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from minga.core.codec import parse_json
from minga.core.crypto import ZERO_ADDRESS, Address, Hash32, PrivateKey, parse_address
from minga.core.eip712 import Domain
from minga.core.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from minga.chain.view import View

T = TypeVar("T")
CONFIRMATIONS_MAX = 64
"""The deepest confirmation that is kept as single blocks; deeper ones say nothing more on any chain we know."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where the contracts of one network are; `decimals` is the token's, `start_block` the first that matters.

    `disputes` and `beacon` are the zero address on a network without them: there, work cannot be disputed.
    """

    registry: Address
    market: Address
    token: Address
    start_block: int
    decimals: int
    disputes: Address = ZERO_ADDRESS
    beacon: Address = ZERO_ADDRESS

    @property
    def has_disputes(self) -> bool:
        """Whether work can be disputed on this network."""
        return self.disputes != ZERO_ADDRESS


@dataclass(frozen=True, slots=True)
class ChainSpec:
    """One network: RPC urls in order of preference, chain id, depth at which money moves count, and contracts."""

    rpc_urls: tuple[str, ...]
    chain_id: int
    confirmations: int
    deployment: Deployment

    @property
    def domain(self) -> Domain:
        """Where signatures of this network count."""
        return Domain(self.chain_id, self.deployment.market)

    @property
    def disputes_domain(self) -> Domain:
        """Where `Ordered` and `Auditor` count.

        Raises:
            NotFound: the network has no Disputes.
        """
        if not self.deployment.has_disputes:
            raise NotFound(
                "this network has no contract for disputes",
                "start an embedded one again to deploy it, or write its address into the network file",
            )
        return Domain(self.chain_id, self.deployment.disputes)

    def as_dict(self) -> dict[str, Any]:
        """The spec as a JSON object."""
        return asdict(self) | {"rpc_urls": list(self.rpc_urls)}

    @classmethod
    def from_dict(cls, value: Any) -> ChainSpec:
        """A spec from a JSON object.

        Raises:
            InvalidInput: a field is missing, unknown, of the wrong type or out of range.
        """
        fields = _fields(value, "rpc_urls", "chain_id", "confirmations", "deployment")
        # A network file from before there were disputes, or of a network without them, lacks the last two.
        given = fields["deployment"]
        later = {"disputes": ZERO_ADDRESS, "beacon": ZERO_ADDRESS} | given if isinstance(given, dict) else given
        names = ("registry", "market", "token", "start_block", "decimals", "disputes", "beacon")
        places = _fields(later, *names)
        urls = fields["rpc_urls"]
        if not isinstance(urls, list | tuple) or not urls or not all(_is_url(url) for url in urls):
            raise InvalidInput("rpc_urls is not a list of http urls", "write ['https://…']")
        deployment = Deployment(
            registry=parse_address(places["registry"]),
            market=parse_address(places["market"]),
            token=parse_address(places["token"]),
            start_block=_whole(places, "start_block", 0, 2**53),
            decimals=_whole(places, "decimals", 0, 36),
            disputes=parse_address(places["disputes"]),
            beacon=parse_address(places["beacon"]),
        )
        confirmations = _whole(fields, "confirmations", 0, CONFIRMATIONS_MAX)
        return cls(tuple(urls), _whole(fields, "chain_id", 1, 2**53 - 1), confirmations, deployment)

    def save(self, path: Path) -> None:
        """Write the spec to `path`, atomically."""
        write_private(path, json.dumps(self.as_dict(), indent=2).encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> ChainSpec:
        """Read a spec that `save` wrote or a person typed.

        Raises:
            NotFound: there is no such file.
            InvalidInput: it is not a spec.
        """
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise NotFound(f"there is no network file {path}", "start one with `minga up`, or name another") from None
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read: {error.strerror}", "check the path and its rights") from error
        return cls.from_dict(parse_json(data))


def _fields(value: Any, *names: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(names):
        raise InvalidInput("a network description has the wrong fields", f"it needs exactly: {', '.join(names)}")
    return value


def _whole(fields: dict[str, Any], name: str, low: int, high: int) -> int:
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidInput(f"{name} is {value!r}", f"write a whole number, {low} … {high}")
    return value


def _is_url(value: Any) -> bool:
    try:
        return isinstance(value, str) and urlsplit(value).scheme in ("http", "https") and bool(urlsplit(value).hostname)
    except ValueError:
        return False


def write_private(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that it is there whole or not at all (mode 0600, fsync, atomic rename)."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):  # the rename itself must survive a power cut; Windows has no folder handles
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One contract call, not yet made: `decode` turns the returned bytes into a value; `value` is wei to send."""

    to: Address
    data: bytes
    name: str
    decode: Callable[[bytes], T]
    value: int = 0


class ContractEvent:
    """Base of every decoded contract event (frozen dataclasses in `minga.chain.contracts`)."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Position:
    """Where an event stands on the chain; `time` is its block's, in Unix seconds."""

    block: int
    block_hash: Hash32
    transaction: Hash32
    index: int
    time: int


@dataclass(frozen=True, slots=True)
class Seen:
    """An event and where it was seen."""

    event: ContractEvent
    at: Position

    @property
    def id(self) -> str:
        """Unique for ever, reorgs included; consumers drop what they have seen by it."""
        return f"{self.at.block_hash}:{self.at.index}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """How a transaction ended, at depth: gas used, what it cost in wei, and the events of our contracts."""

    effect: str
    transaction: Hash32
    block: int
    block_hash: Hash32
    gas_used: int
    fee_wei: int
    events: tuple[Seen, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """News since the last acknowledged: first take back `undone` (newest first), then take in `confirmed`.

    Delivered at least once: `undone` may name an event that a consumer never saw, `confirmed` one that it has.
    `upto` is the block to which they reach, `upto_hash` and `time` are that block's; `mark` is the store's own.
    """

    undone: tuple[Seen, ...]
    confirmed: tuple[Seen, ...]
    upto: int
    upto_hash: Hash32
    time: int
    mark: int


class Chain(Protocol):
    """What an agent's loop may ask of a chain. Every method that asks a node may raise `RpcUnavailable`."""

    @property
    def spec(self) -> ChainSpec:
        """The network's description."""
        ...

    @property
    def view(self) -> View:
        """State derived from all events at depth, as of the last `poll`."""
        ...

    async def time(self) -> int:
        """Chain time now, Unix seconds: what a contract would see in the next block."""
        ...

    async def check_clock(self, now: int) -> None:
        """Compare a local clock with the chain's.

        Raises:
            ClockSkew: they differ by more than `CLOCK_SKEW_MAX` seconds.
        """
        ...

    async def head(self) -> int:
        """Number of the newest block."""
        ...

    async def read(self, call: Call[T], deep: bool = False) -> T:
        """The value of a view function; with `deep`, as of depth `confirmations`.

        Raises:
            ContractError: the contract refused (the subclass of its revert string).
        """
        ...

    async def balance(self, address: Address) -> int:
        """Native coin of an address, in wei."""
        ...

    async def gas_cost(self, gas: int) -> int:
        """The most that `gas` units may cost now, in wei, by the fee policy."""
        ...

    async def send(self, effect: str, call: Call[Any], key: PrivateKey) -> Receipt:
        """Have `call` mined once, signed by `key`, and wait for depth `confirmations`.

        The same effect id (per key) is the same transaction and the same receipt, across restarts and reorgs; what
        was journaled first counts.

        Raises:
            ContractError: refused; nothing was sent, or the transaction was mined and reverted.
            InsufficientFunds: the key's address cannot pay value and gas; nothing was sent.
            Conflict: the id was used for another function or contract.
            TransactionFailed: it failed for a reason that no class names.
        """
        ...

    async def settle(self) -> int:
        """Broadcast again whatever a reorg or a killed node dropped; returns how many. Call at start and often."""
        ...

    async def poll(self) -> Changes:
        """New events at depth `confirmations`."""
        ...

    def acknowledge(self, changes: Changes) -> None:
        """Durably mark `changes` as consumed."""
        ...

    async def aclose(self) -> None:
        """Close connections and files; idempotent."""
        ...
