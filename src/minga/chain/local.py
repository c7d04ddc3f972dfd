"""The embedded chain: an anvil with the contracts deployed, and a faucet of test money.

    folder/  operator.embedded.json  the key that deployed and hands out test money: random, for this chain only
             operator.sqlite         what that key signed
             chain.json              the ChainSpec that everybody else reads
             (and the files of `minga.chain.process`)

Does not know providers or tenants. Rule: starting is idempotent from any point at which it was killed; addresses follow
from the operator's key, so a chain that lost its deployment gets the very same one again.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio

from minga.chain import process
from minga.chain.anvil import find_anvil
from minga.chain.blocks import MinedTransaction, quantity
from minga.chain.chain import Call, ChainSpec, Deployment
from minga.chain.contracts import Token, deploy, transfer_wei
from minga.chain.fees import Fees
from minga.chain.journal import SqliteTransactions
from minga.chain.keys import KeyStore
from minga.chain.process import CHAIN_ID, HOST, Mark, Running
from minga.chain.rpc import Rpc
from minga.chain.sender import Sender
from minga.core.crypto import Address, PrivateKey
from minga.core.effects import Clock, Dice
from minga.core.errors import Conflict, InternalError, MingaError, NetworkError, RpcUnavailable
from minga.core.faults import declare, reach
from minga.protocol.dispute import SHORT

EMBEDDED_CHAIN_ID = CHAIN_ID
TOKEN_DECIMALS = 6
FEE_BPS = 100
OPERATOR_WEI = 10**24
START_SECONDS = 20.0
WATCH_SECONDS = 0.25

declare(
    {
        "chain.local.started": "anvil runs and is on record; nothing is deployed",
        "chain.local.funded": "the operator has native coin",
        "chain.local.deployed": "the contracts are deployed; no spec is written",
        "chain.local.saved": "the spec is written",
    }
)


class Faucet:
    """Hands out native coin and test tokens of an embedded chain; several processes may have one on the same folder."""

    def __init__(self, folder: Path, rpc: Rpc, clock: Clock) -> None:
        """The chain of `folder` must have been started once.

        Raises:
            NotFound: it never was.
        """
        self.key = _key_store(folder).load("operator", embedded_ok=True)
        self._rpc = rpc
        self._store = SqliteTransactions(folder / "operator.sqlite")
        self._sender = Sender(rpc, self._store, clock, 0, Fees())

    async def aclose(self) -> None:
        """Close file and connections; idempotent."""
        await self._rpc.aclose()
        self._store.close()

    async def send(self, effect: str, call: Call[Any]) -> MinedTransaction:
        """Have the operator send `call` once; see `Chain.send`."""
        return await self._sender.send(effect, call, self.key)

    async def settle(self) -> int:
        """Broadcast again what a killed anvil forgot."""
        return await self._sender.settle()

    async def fill(self) -> None:
        """Give the operator native coin out of nothing, when it has little."""
        if quantity(await self._rpc.request("eth_getBalance", self.key.address, "latest")) < OPERATOR_WEI // 2:
            await self._rpc.request("anvil_setBalance", self.key.address, hex(OPERATOR_WEI))

    async def fund(self, token: Address, address: Address, effect: str, wei: int = 10**18, tokens: int = 0) -> None:
        """Send `wei` and mint `tokens` to an address, once for each `effect`."""
        if wei:
            await self.send(f"{effect}/wei", transfer_wei(address, wei))
        if tokens:
            await self.send(f"{effect}/tokens", Token(token).mint(address, tokens))


@asynccontextmanager
async def open_faucet(folder: Path, clock: Clock) -> AsyncIterator[Faucet]:
    """The faucet of a running embedded chain. Raises as `Faucet`."""
    spec = ChainSpec.load(folder / "chain.json")
    faucet = Faucet(folder, Rpc(spec.rpc_urls, spec.chain_id, clock), clock)
    try:
        yield faucet
    finally:
        await faucet.aclose()


class LocalChain:
    """A started embedded chain, made by `start_local`. Its owner runs `run` and, at the end, `stop`."""

    def __init__(
        self, folder: Path, clock: Clock, program: Path, interval: int, running: Running, child: Child | None
    ) -> None:
        self.folder = folder
        self.spec: ChainSpec
        self._clock = clock
        self._program = program
        self._interval = interval
        self._running = running
        self._child = child
        self._kept = 0
        self.faucet = Faucet(folder, Rpc([self.rpc_url], CHAIN_ID, clock, timeout=10.0), clock)

    @property
    def rpc_url(self) -> str:
        """Where it listens; loopback."""
        return f"http://{HOST}:{self._running.port}"

    @property
    def pid(self) -> int:
        """Anvil's process id."""
        return self._running.anvil.pid

    @property
    def operator(self) -> PrivateKey:
        """The key that deployed; the fee recipient."""
        return self.faucet.key

    async def fund(self, address: Address, effect: str, wei: int = 10**18, tokens: int = 0) -> None:
        """Send test money, once for each `effect`."""
        await self.faucet.fund(self.spec.deployment.token, address, effect, wei, tokens)

    async def run(self) -> None:
        """Watch until cancelled or stopped: keep whole dumps, start a killed anvil again on the same port."""
        while True:
            await self._clock.sleep(WATCH_SECONDS)
            if process.read_running(self.folder) is None:
                if not (self.folder / "running.json").exists():
                    return  # somebody asked for a stop
                await self._restart()
            await self._keep()

    async def _keep(self) -> None:
        state = self.folder / "state.json"
        changed = state.stat().st_mtime_ns if state.exists() else 0
        if changed != self._kept and await anyio.to_thread.run_sync(process.keep_state, self.folder):
            self._kept = changed

    async def _restart(self) -> None:
        if self._child is not None:
            self._child.wait()  # it is dead; this only clears its entry
        with process.exclusive(self.folder):
            self._child, self._running = _launch(self._program, self.folder, self._running.port, self._interval)
        await self._ready()
        await self.faucet.fill()
        await self.faucet.settle()

    async def _ready(self) -> None:
        """Wait until anvil answers.

        Raises:
            PortInUse, InternalError: it ended, or does not answer.
        """
        deadline = self._clock.monotonic() + START_SECONDS
        probe = Rpc([self.rpc_url], CHAIN_ID, self._clock, timeout=2.0)
        try:
            while True:
                try:
                    await probe.request("eth_blockNumber")
                    return
                except RpcUnavailable:
                    if self._child is not None and self._child.poll() is not None:
                        raise process.died(self.folder, self._child.returncode) from None
                    if self._clock.monotonic() > deadline:
                        raise InternalError("anvil does not answer", f"see {self.folder / 'anvil.log'}") from None
                await self._clock.sleep(0.01)
        finally:
            await probe.aclose()

    async def _deploy(self) -> None:
        """Deploy what is missing and write the spec."""
        await self.faucet.fill()
        reach("chain.local.funded")
        await self.faucet.settle()
        token = await self.faucet.send("deploy/token", deploy("Token"))
        registry = await self.faucet.send("deploy/registry", deploy("Registry", token.contract))
        fees = (FEE_BPS, self.operator.address)
        market = await self.faucet.send("deploy/market", deploy("Market", token.contract, registry.contract, *fees))
        disputes, beacon = await self._deploy_disputes(market, token, registry)
        reach("chain.local.deployed")
        if not (token.contract and registry.contract and market.contract and disputes.contract and beacon.contract):
            raise InternalError("a deployment has no address", "start with an empty folder")
        places = Deployment(
            registry.contract, market.contract, token.contract, token.block, TOKEN_DECIMALS, disputes.contract,
            beacon.contract,
        )  # fmt: skip
        self.spec = ChainSpec((self.rpc_url,), CHAIN_ID, 0, places)
        self.spec.save(self.folder / "chain.json")
        reach("chain.local.saved")

    async def _deploy_disputes(self, *around: MinedTransaction) -> tuple[MinedTransaction, MinedTransaction]:
        """Disputes and its beacon, around Market, token and Registry; a chain from before them gets them, too."""
        # No delay: this chain makes a block for each transaction and none without, so that a later one may never come.
        beacon = await self.faucet.send("deploy/beacon", deploy("BlockBeacon", 0))
        places = (*(each.contract for each in (*around, beacon)), self.operator.address)
        return await self.faucet.send("deploy/disputes", deploy("Disputes", *places, SHORT.as_tuple())), beacon

    async def stop(self) -> None:
        """End anvil with its state saved; idempotent."""
        await self.faucet.aclose()
        with anyio.CancelScope(shield=True):  # a cancelled owner must not leave an orphan
            await anyio.to_thread.run_sync(_stop, self.folder, self._running, self._child)


Child = subprocess.Popen[bytes]


async def start_local(
    folder: Path,
    clock: Clock,
    dice: Dice,
    port: int | None = None,
    state_interval: int = 5,
    environ: Mapping[str, str] | None = None,
) -> LocalChain:
    """Start the embedded chain of `folder`, or take over one whose owner was killed; deploy what is missing.

    Args:
        folder: its state; made when missing (0700).
        clock, dice: the caller's.
        port: on loopback; default: the one it had before, else a free one.
        state_interval: seconds between dumps of the state.
        environ: the environment for finding anvil; default: this process's.

    Raises:
        Conflict: it runs, and its owner lives.
        PortInUse: the port is taken.
        MissingPrerequisite, NetworkError: anvil is missing and cannot be fetched.
    """
    environ = os.environ if environ is None else environ
    folder = _absolute(folder)
    program = await anyio.to_thread.run_sync(find_anvil, environ)
    with process.exclusive(folder):
        child, running = await _adopt(folder, port, clock)
        if running is None:
            chosen = process.choose_port(port, _last_port(folder))
            child, running = _launch(program, folder, chosen, state_interval)
        reach("chain.local.started")
        store = _key_store(folder)
        if not store.info():
            store.create_embedded("operator", dice.bytes(32))
        chain = LocalChain(folder, clock, program, state_interval, running, child)
        try:
            await chain._ready()
            await chain._deploy()
        except BaseException:
            await chain.stop()
            raise
    return chain


async def _adopt(folder: Path, port: int | None, clock: Clock) -> tuple[None, Running | None]:
    """An anvil that lives on without its owner, when it is fit; ended when it is not."""
    running = process.read_record(folder)
    dead = running is None or not running.anvil.alive()
    if running and running.owner.alive() and not (dead and running.owner.pid == os.getpid()):
        raise Conflict(
            f"the embedded chain runs already (process {running.owner.pid}, port {running.port})",
            "use it, or stop it with `minga down`",
        )
    if running is None or dead:
        for stray in process.strays(folder):
            await anyio.to_thread.run_sync(process.terminate, stray)
        return None, None
    probe = Rpc([f"http://{HOST}:{running.port}"], CHAIN_ID, clock, timeout=2.0)
    try:
        await probe.request("eth_blockNumber")
        fit = port in (None, running.port)
    except NetworkError:
        fit = False
    finally:
        await probe.aclose()
    if not fit:
        await anyio.to_thread.run_sync(process.terminate, running.anvil)
        return None, None
    taken = Running(running.anvil, Mark.of(os.getpid()), running.port)
    taken.save(folder)
    return None, taken


def _launch(program: Path, folder: Path, port: int, interval: int) -> tuple[Child, Running]:
    child = process.launch(program, folder, port, interval)
    running = Running(Mark.of(child.pid), Mark.of(os.getpid()), port)
    running.save(folder)
    return child, running


def _last_port(folder: Path) -> int | None:
    """The port that the folder's chain had, so that whoever knows it finds it again."""
    try:
        return urlsplit(ChainSpec.load(folder / "chain.json").rpc_urls[0]).port
    except MingaError:
        return None


def _absolute(folder: Path) -> Path:
    return Path(os.path.abspath(folder))  # anvil runs in the folder itself


def _stop(folder: Path, running: Running, child: Child | None) -> None:
    (folder / "running.json").unlink(missing_ok=True)
    process.terminate(running.anvil, child)


def _key_store(folder: Path) -> KeyStore:
    return KeyStore(folder, _no_passphrase)


def _no_passphrase(name: str) -> str:
    raise InternalError(f"the embedded chain's key {name} has no passphrase")


@asynccontextmanager
async def local_chain(
    folder: Path, clock: Clock, dice: Dice, port: int | None = None, state_interval: int = 5
) -> AsyncIterator[LocalChain]:
    """`start_local`, watched by `run` in the background, and stopped at the end."""
    chain = await start_local(folder, clock, dice, port, state_interval)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(chain.run)
            yield chain
            group.cancel_scope.cancel()
    finally:
        await chain.stop()


def running_spec(folder: Path) -> ChainSpec | None:
    """The spec of the folder's chain, if it runs now."""
    try:
        return ChainSpec.load(folder / "chain.json") if process.read_running(folder) else None
    except MingaError:
        return None


async def stop_local(folder: Path) -> bool:
    """End the folder's chain from any process, with its state saved; False when none ran."""
    folder = _absolute(folder)
    running = process.read_running(folder)
    if running is None:
        return False
    await anyio.to_thread.run_sync(_stop, folder, running, None)
    return True
