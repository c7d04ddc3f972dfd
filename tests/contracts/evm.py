"""Two Ethereum machines behind one small interface, for the contract tests.

What it is: `Revm` (pyrevm: fast, for campaigns) and `PyEvm` (titanoboa's py-evm: an independent implementation), and
`Contract`, which encodes calls by ABI. What it does not know: Minga. Rule: a call either returns or raises `Reverted`
with the reason; time and chain id are arguments.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from minga.core.crypto import keccak

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "src" / "minga" / "chain" / "artifacts"
CHAIN_ID = 31337
START = 1_800_000_000
COINBASE = "0x" + "00" * 20
NOBODY = "0x" + "0b" * 20
DEPLOYER = "0x" + "de" * 20
_OUTPUT = re.compile(r"output: 0x([0-9a-f]*)")


class Reverted(Exception):
    """A call failed; `reason` is the revert string, or "" when there was none (a halt, an arithmetic check)."""

    def __init__(self, output: bytes, halted: str = "") -> None:
        self.output, self.halted = output, halted
        self.reason = output[68:].rstrip(b"\0").decode() if output[:4] == b"\x08\xc3\x79\xa0" else ""
        super().__init__(self.reason or halted or output.hex())


class Log(NamedTuple):
    """One event: who emitted it, topics and data as bytes."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes


class Machine(Protocol):
    """What the tests need of an Ethereum machine."""

    now: int
    number: int
    gas_used: int

    def deploy_code(self, sender: str, code: bytes) -> str: ...
    def message(self, sender: str, to: str, data: bytes, gas: int | None = None) -> bytes: ...
    def logs(self) -> list[Log]: ...
    def set_time(self, now: int) -> None: ...
    def set_block(self, number: int) -> None: ...
    def mark(self) -> Any: ...
    def back_to(self, mark: Any) -> None: ...


class Revm:
    """pyrevm. One transaction journal for its whole life: make a new one for each episode."""

    LIMIT = 24_576
    """Bytes of code that a contract may have (EIP-170)."""

    def __init__(self, chain_id: int = CHAIN_ID, now: int = START) -> None:
        import pyrevm

        self._pyrevm = pyrevm
        self.now, self.number, self.gas_used = now, 1, 0
        env = pyrevm.Env(
            cfg=pyrevm.CfgEnv(chain_id=chain_id, limit_contract_code_size=self.LIMIT),
            block=pyrevm.BlockEnv(number=1, timestamp=now),
        )
        self._evm = pyrevm.EVM(env=env, spec_id="CANCUN", gas_limit=30_000_000)

    def deploy_code(self, sender: str, code: bytes) -> str:
        """Deploy init code; the address."""
        try:
            return str(self._evm.deploy(sender, code)).lower()
        except RuntimeError as error:
            raise self._reverted(error) from None

    def message(self, sender: str, to: str, data: bytes, gas: int | None = None) -> bytes:
        """Call `to`; the return data."""
        try:
            output = self._evm.message_call(sender, to, data, gas=gas)
        except RuntimeError as error:
            raise self._reverted(error) from None
        self.gas_used = self._result.gas_used
        # Transient storage outlives a message here; a real transaction starts without any.
        self._evm.reset_transient_storage()
        return bytes(output)

    @property
    def _result(self) -> Any:
        return self._evm.result

    def _reverted(self, error: RuntimeError) -> Reverted:
        self._evm.reset_transient_storage()
        found = _OUTPUT.search(str(error))
        return Reverted(bytes.fromhex(found[1]) if found else b"", "" if found else str(error))

    def logs(self) -> list[Log]:
        """The events of the last call."""
        return [Log(log.address.lower(), tuple(log.data[0]), bytes(log.data[1])) for log in self._result.logs]

    def set_time(self, now: int) -> None:
        """Move chain time."""
        self.now = now
        self._evm.set_block_env(self._pyrevm.BlockEnv(number=self.number, timestamp=now))

    def set_block(self, number: int) -> None:
        """Move to a block."""
        self.number = number
        self.set_time(self.now)

    def code_size(self, address: str) -> int:
        """Bytes of deployed code."""
        return len(self._evm.get_code(address) or b"")

    def mark(self) -> Any:
        """A point to go back to."""
        return self._evm.snapshot(), self.now, self.number

    def back_to(self, mark: Any) -> None:
        """Undo all since the mark."""
        self._evm.revert(mark[0])
        self.number = mark[2]
        self.set_time(mark[1])


class PyEvm:
    """titanoboa's py-evm. `receipts=True` makes every call a transaction: cold slots, intrinsic gas, refunds."""

    def __init__(self, chain_id: int = CHAIN_ID, now: int = START, *, receipts: bool = False) -> None:
        import boa

        self._env = boa.Env()
        self._env.evm.patch.chain_id = chain_id
        self._state = self._env.evm.vm.state
        self._receipts = receipts
        self._computation: Any = None
        self.gas_used = 0
        self.set_time(now)
        self.set_block(1)

    def deploy_code(self, sender: str, code: bytes) -> str:
        """Deploy init code; the address."""
        address, computation = self._env.deploy(sender=checksum(sender), bytecode=code)
        self._finish(computation, code, create=True)
        return str(address).lower()

    def message(self, sender: str, to: str, data: bytes, gas: int | None = None) -> bytes:
        """Call `to`; the return data."""
        if self._receipts:
            self._env.evm.reset_access_counters()
            for warm in (sender, to, COINBASE):
                self._state.mark_address_warm(bytes.fromhex(warm[2:]))
        computation = self._env.execute_code(to_address=checksum(to), sender=checksum(sender), data=data, gas=gas)
        return self._finish(computation, data)

    def _finish(self, computation: Any, data: bytes, *, create: bool = False) -> bytes:
        self._computation = computation
        if computation.is_error:
            raise Reverted(bytes(computation.output), "" if computation.output else repr(computation.error))
        used = computation.get_gas_used() + 21_000 + sum(16 if byte else 4 for byte in data)
        self.gas_used = used - min(computation.get_gas_refund(), used // 5)
        if self._receipts:
            self._state.lock_changes()
        return b"" if create else bytes(computation.output)

    def logs(self) -> list[Log]:
        """The events of the last call."""
        return [
            Log("0x" + address.hex(), tuple(topic.to_bytes(32, "big") for topic in topics), data)
            for address, topics, data in self._computation.get_log_entries()
        ]

    def set_time(self, now: int) -> None:
        """Move chain time."""
        self.now = now
        self._env.evm.patch.timestamp = now

    def set_block(self, number: int) -> None:
        """Move to a block; the hashes of those before it are `block_hash`."""
        self.number = number
        self._env.evm.patch.block_number = number
        self._env.evm.patch.prev_hashes = [block_hash(each) for each in range(number - 1, max(-1, number - 257), -1)]

    def mark(self) -> Any:
        """A point to go back to."""
        return self._env.evm.snapshot(), self.now, self.number

    def back_to(self, mark: Any) -> None:
        """Undo all since the mark."""
        self._env.evm.revert(mark[0])
        self.set_time(mark[1])
        self.set_block(mark[2])


def block_hash(number: int) -> bytes:
    """The hash of block `number` on both machines: of its number as text, as revm has it without a chain."""
    return keccak(str(number).encode())


class Contract:
    """A deployed contract: `call` encodes by ABI and sends; a struct is a tuple, or its words already encoded."""

    def __init__(self, machine: Machine, address: str, abi: Sequence[dict[str, Any]]) -> None:
        self.machine, self.address, self.abi = machine, address, abi
        self._functions = {}
        for entry in abi:
            if entry["type"] == "function":
                types = [abi_type(item) for item in entry["inputs"]]
                selector = keccak(f"{entry['name']}({','.join(types)})".encode())[:4]
                self._functions[entry["name"]] = selector, types
        self.events = {
            keccak(f"{entry['name']}({','.join(map(abi_type, entry['inputs']))})".encode()): entry
            for entry in abi
            if entry["type"] == "event"
        }

    def data(self, name: str, *args: Any) -> bytes:
        """The call data."""
        selector, types = self._functions[name]
        return selector + encode(types, args)

    def call(self, sender: str, name: str, *args: Any, gas: int | None = None) -> bytes:
        """Send a call; the raw return data.

        Raises:
            Reverted: it failed.
        """
        return self.machine.message(sender, self.address, self.data(name, *args), gas)

    def view(self, name: str, *args: Any) -> tuple[int, ...]:
        """The words that a view returns, as integers."""
        output = self.call(NOBODY, name, *args)
        return tuple(int.from_bytes(output[i : i + 32], "big") for i in range(0, len(output), 32))

    def decode(self, log: Log) -> tuple[str, dict[str, int]]:
        """The name and the fields of an event; a struct's fields stand beside the others; a string is its offset."""
        entry = self.events[log.topics[0]]
        indexed = iter(log.topics[1:])
        words = (int.from_bytes(log.data[i : i + 32], "big") for i in range(0, len(log.data), 32))
        fields: dict[str, int] = {}
        for item in entry["inputs"]:
            if item["indexed"]:
                fields[item["name"]] = int.from_bytes(next(indexed), "big")
            else:
                for part in item.get("components", [item]):
                    fields[part["name"]] = next(words)
        return entry["name"], fields


def abi_type(item: dict[str, Any]) -> str:
    """The canonical type of an ABI item."""
    if item["type"] == "tuple":
        return f"({','.join(abi_type(part) for part in item['components'])})"
    return str(item["type"])


def words(*values: int | str | bytes) -> bytes:
    """Static values as 32-byte words: integers, `0x…` addresses and hashes, bytes32."""
    return b"".join(map(_word, values))


def _word(value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return value.to_bytes(32, "big")
    if isinstance(value, str):
        value = bytes.fromhex(value[2:])
        return value.rjust(32, b"\0")
    return value.ljust(32, b"\0")


def encode(types: Sequence[str], args: Sequence[Any]) -> bytes:
    """ABI encoding of words, static tuples, arrays of words, `bytes` and `string`."""
    parts: list[bytes | None] = []
    tails: list[bytes] = []
    for kind, value in zip(types, args, strict=True):
        if kind in ("bytes", "string"):
            raw = value.encode() if isinstance(value, str) else value
            parts.append(None)
            tails.append(_word(len(raw)) + raw + bytes(-len(raw) % 32))
        elif kind[-1] == "]":
            parts.append(words(*value))
        elif kind[0] == "(":
            parts.append(value if isinstance(value, bytes) else words(*value))
        else:
            parts.append(_word(value))
    offset = sum(32 if part is None else len(part) for part in parts)
    head, tail = b"", iter(tails)
    for part in parts:
        if part is None:
            head += _word(offset)
            offset += len(next(tail))
        else:
            head += part
    return head + b"".join(tails)


@lru_cache(maxsize=128)
def artifact(name: str, optimize: str = "gas", experimental: bool = False) -> dict[str, Any]:
    """ABI and bytecode: the shipped artifact, or a fresh compile of a mock or with another code generator."""
    shipped = ARTIFACTS / f"{name}.json"
    if shipped.exists() and (optimize, experimental) == ("gas", False):
        return dict(json.loads(shipped.read_text()))
    build = build_script()
    path = ROOT / "contracts" / f"{name}.vy"
    path = path if path.exists() else ROOT / "contracts" / "mocks" / f"{name}.vy"
    return dict(build.compile_contract(path, build.settings(optimize, experimental_codegen=experimental)))


@lru_cache(maxsize=1)
def build_script() -> Any:
    """contracts/build.py as a module."""
    spec = importlib.util.spec_from_file_location("minga_contracts_build", ROOT / "contracts" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def deploy(
    machine: Machine,
    name: str,
    types: Sequence[str] = (),
    args: Sequence[Any] = (),
    instead: Mapping[str, dict[str, Any]] = MappingProxyType({}),
    **how: Any,
) -> Contract:
    """Deploy a contract or mock by name; `instead` has artifacts that replace ours, `how` goes to `artifact`."""
    built = instead[name] if name in instead else artifact(name, **how)
    code = bytes.fromhex(built["bytecode"][2:]) + encode(types, args)
    return Contract(machine, machine.deploy_code(DEPLOYER, code), built["abi"])


def checksum(address: str) -> str:
    """The mixed-case form, which py-evm insists on."""
    from minga.core.crypto import checksum as mixed

    return mixed(address)
