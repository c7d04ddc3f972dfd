"""A whole network on this machine: the embedded chain, a board and providers, each a process of its own.

```
FOLDER/                      $MINGA_HOME/local, or the demo's own
  chain/                     the embedded chain's state and deployment
  p1/ p2/ …                  a home folder for each provider: own key, own journal, own sandboxes
  processes.json log/ ready/ what runs here (minga.cli.processes)
```

`up` is idempotent and repairs: what runs with the same settings stays, what died or should run otherwise is started
anew, in the order chain, board, providers. Tokens are play money, keys are plain files marked as embedded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minga.cli.config import LOCAL, WALLET, Settings
from minga.cli.processes import Processes, Record, minga_argv
from minga.cli.provide import OPERATOR
from minga.core.errors import InvalidInput
from minga.core.units import format_usd, parse_usd

if TYPE_CHECKING:
    from minga.client.home import Home, Network
    from minga.core.crypto import Address, PrivateKey

WALLET_USD = "100"
"""Play money that the tenant's wallet is filled up with."""

CHAIN_WAIT_S = 120.0
"""The first start may fetch anvil."""

READY_WAIT_S = 60.0
WALLET_WEI = 10**18
"""Native coin for gas that each address is filled up with."""

PROVIDERS_MAX = 16
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Plan:
    """What a local network consists of. `price` is dollars per unit-hour of the first provider, each next one's is a
    cent more; `quantum` a duration; `environments` NAME=FOLDER texts; `save_s` seconds between saves of the chain;
    `stake` dollars that each provider puts under the arbiter, None for nothing.
    """

    providers: int = 3
    driver: str = "bubblewrap"
    price: str = "0.36"
    quantum: str = "60s"
    environments: tuple[str, ...] = ()
    units: int = 1
    save_s: int = 5
    stake: str | None = None

    def check(self) -> None:
        """Raise InvalidInput unless the plan can be started."""
        if not 1 <= self.providers <= PROVIDERS_MAX:
            raise InvalidInput(f"{self.providers} providers are out of range", f"use 1 … {PROVIDERS_MAX}")
        if self.driver not in ("bubblewrap", "process"):
            raise InvalidInput(f"{self.driver!r} is not a driver", "use bubblewrap or process")


class LocalNetwork:
    """The network of one home folder."""

    def __init__(self, settings: Settings) -> None:
        """Of `settings.folder`; nothing is started."""
        self.settings = settings
        self.folder = settings.local
        self.processes = Processes(self.folder)

    def up(self, plan: Plan, report: Callable[[str], None]) -> Network:
        """Start what does not run yet, and fill the tenant's wallet; returns the network.

        Args:
            plan: what to start.
            report: is told each step as one line.

        Raises:
            Conflict: another command works on this network.
            MingaError: the error of the process that could not start; what was started before it stays up.
        """
        plan.check()
        with self.processes.exclusive():
            network, changed = self._chain(plan, report)
            wallet = self._wallet(report)
            keys = [self._operator(number) for number in range(1, plan.providers + 1)]
            board = self._board(network, changed, report)
            network = self._save(network, board)
            self._fund(wallet, keys, plan.stake)
            self._providers(plan, network, keys, report)
        return network

    def _chain(self, plan: Plan, report: Callable[[str], None]) -> tuple[Network, bool]:
        from minga.chain.chain import ChainSpec
        from minga.client.home import Network

        argv = self._argv(self.settings.folder, "chain", "--save", str(plan.save_s))
        record, fresh = self.processes.ensure("chain", argv, {}, CHAIN_WAIT_S)
        report(f"chain      {record.ready['url']}" + ("" if fresh else "  (was up)"))
        network = Network(LOCAL, ChainSpec.load(self.folder / "chain" / "chain.json"), ())
        known = _saved(self.settings.home)
        if known is None or known.chain != network.chain:
            network.save(self.settings.home)
            return network, True
        return network, False

    def _port(self, name: str) -> str:
        """The port that a process had, when it still can; else a free one. Clients of a restarted one find it again."""
        from minga.transport.http import bind

        held = self.processes.get(name)
        if held is not None and "--port" in held.argv:
            port = held.argv[held.argv.index("--port") + 1]
            if held.find() is not None or _is_free(int(port)):
                return port
        with bind(HOST, 0) as listener:
            return str(listener.getsockname()[1])

    def _board(self, network: Network, changed: bool, report: Callable[[str], None]) -> str:
        argv = self._argv(self.settings.folder, "board", "--port", self._port("board"))
        record, started = self.processes.ensure("board", argv, {}, READY_WAIT_S, always=changed)
        report(f"board      {record.ready['url']}" + ("" if started else "  (was up)"))
        return str(record.ready["url"])

    def _save(self, network: Network, board: str) -> Network:
        from minga.client.home import Network

        network = Network(network.name, network.chain, (board,))
        network.save(self.settings.home)
        return network

    def _wallet(self, report: Callable[[str], None]) -> PrivateKey:
        from minga.core.crypto import checksum

        keys = self.settings.open_keys()
        known = {info.name: info for info in keys.info()}
        if WALLET not in known:
            key = keys.create_embedded(WALLET, os.urandom(32))
            report(f"wallet     {checksum(key.address)}  (made for the embedded chain, ${WALLET_USD} of play money)")
            return key
        return keys.load(WALLET, embedded_ok=True)

    def _operator(self, number: int) -> PrivateKey:
        keys = Settings(self.folder / f"p{number}").open_keys()
        if OPERATOR in {info.name for info in keys.info()}:
            return keys.load(OPERATOR, embedded_ok=True)
        return keys.create_embedded(OPERATOR, os.urandom(32))

    def _fund(self, wallet: PrivateKey, operators: list[PrivateKey], stake: str | None) -> None:
        from minga.cli.world import run_async

        # What is filled up is at least half full, and that must do for the stake.
        twice = "0" if stake is None else format_usd(2 * parse_usd(stake, 18), 18)

        async def all_of_them() -> None:
            await fill(self.folder / "chain", wallet.address, WALLET_USD)
            for key in operators:
                await fill(self.folder / "chain", key.address, twice)

        run_async(all_of_them)

    def _providers(self, plan: Plan, network: Network, keys: list[PrivateKey], report: Callable[[str], None]) -> None:
        from minga.client.home import Home

        for stale in self.provider_records()[plan.providers :]:
            self.processes.stop(stale.name)
            report(f"{stale.name:<10} stopped: not in this plan")
        for number in range(1, plan.providers + 1):
            home = self.folder / f"p{number}"
            changed = _saved(Home(home)) != network
            if changed:
                network.save(Home(home))
            argv = self._argv(home, self._command(number), *self._provider_words(plan, number, network))
            record, fresh = self.processes.ensure(f"p{number}", argv, {}, READY_WAIT_S, always=changed)
            report(f"{record.name:<10} {record.ready['url']}" + ("" if fresh else "  (was up)"))

    def _command(self, number: int) -> str:
        """What the process of a provider is."""
        return "provide"

    def _provider_words(self, plan: Plan, number: int, network: Network) -> list[str]:
        decimals = network.chain.deployment.decimals
        price = parse_usd(plan.price, decimals) + (number - 1) * 10**decimals // 100
        words = ["--port", self._port(f"p{number}"), "--units", str(plan.units)]
        words += ["--price", format_usd(price, decimals), "--quantum", plan.quantum]
        # One machine: no two of them may sell the same disk.
        words += ["--disk-share", str(100 // plan.providers)]
        for environment in plan.environments:
            words += ["--environment", environment]
        if plan.stake is not None:
            words += ["--stake", plan.stake]
        return [*words, "--insecure-process"] if plan.driver == "process" else words

    def _argv(self, home: Path, *words: str) -> list[str]:
        return minga_argv("--home", str(home), "--network", LOCAL, *words, "--ready-file", "{ready}", "--json")

    def provider_records(self) -> list[Record]:
        """Records of providers, p1 first."""
        found = [record for record in self.processes.records() if record.name[:1] == "p" and record.name[1:].isdigit()]
        return sorted(found, key=lambda record: int(record.name[1:]))

    def down(self, report: Callable[[str], None], wait_s: float = 60.0) -> None:
        """Stop everything that was started here, providers first, and wait for it; idempotent.

        Args:
            report: is told each step as one line.
            wait_s: how long a provider may take to end its jobs at a checkpoint.

        Raises:
            Conflict: another command works on this network.
        """
        from minga.chain.local import stop_local
        from minga.cli.world import run_async

        with self.processes.exclusive():
            names = [record.name for record in self.provider_records()] + ["board", "chain"]
            for name in names:
                if self.processes.get(name) is not None:
                    report(f"{name:<10} {self.processes.stop(name, wait_s)}")
            if (self.folder / "chain").is_dir() and run_async(lambda: stop_local(self.folder / "chain")):
                report("anvil      stopped (its supervisor was gone)")


async def fill(folder: Path, address: Address, usd: str) -> None:
    """See that an address of the embedded chain in `folder` has gas money and at least `usd` dollars of play money."""
    from minga.chain.chain import ChainSpec
    from minga.chain.contracts import Token
    from minga.chain.node import open_chain
    from minga.cli.world import RealClock

    spec = ChainSpec.load(folder / "chain.json")
    async with open_chain(spec, folder / "asked", RealClock()) as chain:
        wei = WALLET_WEI - await chain.balance(address)
        tokens = parse_usd(usd, spec.deployment.decimals)
        held = await chain.read(Token(spec.deployment.token).balance_of(address))
    if wei > WALLET_WEI // 2 or tokens - held > tokens // 2:
        await mint(folder, address, max(0, tokens - held), max(0, wei))


async def mint(folder: Path, address: Address, tokens: int, wei: int = 0) -> None:
    """Give an address of the embedded chain in `folder` token units and native coin.

    Raises:
        NotFound: no embedded chain was ever started there.
        RpcUnavailable: it does not run.
    """
    from minga.chain.chain import ChainSpec
    from minga.chain.local import open_faucet
    from minga.cli.world import RealClock, RealDice

    token = ChainSpec.load(folder / "chain.json").deployment.token
    async with open_faucet(folder, RealClock()) as faucet:
        await faucet.fund(token, address, f"mint/{RealDice().bytes(16).hex()}", wei, tokens)


def remove_tree(folder: Path) -> None:
    """Delete a folder or a file; what belongs to root goes through `sudo -n`. Nothing there: nothing to do.

    A sandbox whose supervisor was killed leaves its disk mounted: what is mounted below the folder is unmounted first.
    """
    for mounted in _mounts_below(folder):
        command = _root_command(["umount", mounted])
        if command is not None:
            subprocess.run(command, check=False, capture_output=True)
    if folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        folder.unlink()
    if folder.exists():
        command = _root_command(["rm", "-rf", "--one-file-system", str(folder)])
        if command is not None:
            subprocess.run(list(command), check=False, capture_output=True)
    if folder.exists():
        raise InvalidInput(f"{folder} cannot be deleted", "delete it by hand, as root if need be")


def _root_command(argv: list[str]) -> list[str] | None:
    from minga.runtimes.probe import root_command

    return root_command(argv)


def _mounts_below(folder: Path) -> list[str]:
    """Places below `folder` where something is mounted, the deepest first; none where that cannot be told."""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return []
    places = [line.split(" ")[1].encode().decode("unicode_escape") for line in lines]
    return sorted((place for place in places if place.startswith(f"{folder.absolute()}/")), key=len, reverse=True)


def _saved(home: Home) -> Network | None:
    """The local network as the home knows it; None when it does not."""
    from minga.client.home import Network
    from minga.core.errors import MingaError

    try:
        return Network.load(home, LOCAL)
    except MingaError:
        return None


def _is_free(port: int) -> bool:
    from minga.core.errors import MingaError
    from minga.transport.http import bind

    try:
        bind(HOST, port).close()
    except MingaError:
        return False
    return True


def state_of(record: Record) -> dict[str, Any]:
    """A process as a JSON value: name, pid, whether it is alive, its url and log."""
    alive = record.find() is not None
    return {"name": record.name, "pid": record.pid, "alive": alive, "url": record.ready.get("url"), "log": record.log}
