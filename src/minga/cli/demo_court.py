"""The network of `minga demo-dispute`: chain, board, a cheating and an honest provider, a validator and referees.

Each is a process of its own, with its own key, home and sandbox. `p1`, the cheapest, is the cheat (`demo_cheat`); `v1`
audits everything, `v2` and the others only judge. All have a seat among the referees.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minga.cli.config import WALLET, Settings
from minga.cli.localnet import READY_WAIT_S, LocalNetwork, Plan, fill
from minga.cli.provide import OPERATOR
from minga.cli.validate import VALIDATOR

if TYPE_CHECKING:
    from minga.client.home import Network
    from minga.core.crypto import Address

CHEAT = 1
"""The number of the provider that cheats; the first is the cheapest, so the tenant takes it."""

REFEREES = 3
STAKE_USD = "10"
"""What a validator has at stake, and a provider under the arbiter."""

VALIDATOR_USD = "30"
LEAVES = "8"
"""Sampled for each audit: with four fifths of the leaves false, all of them are right once in 400,000 times."""


class CourtNetwork(LocalNetwork):
    """See the module."""

    def up(self, plan: Plan, report: Callable[[str], None]) -> Network:
        """Start everything; see `LocalNetwork.up`."""
        network = super().up(plan, report)
        with self.processes.exclusive():
            for number in range(1, REFEREES + 2):
                self._validator(number, network, plan, report)
        return network

    def down(self, report: Callable[[str], None], wait_s: float = 60.0) -> None:
        """Stop everything, validators first; see `LocalNetwork.down`."""
        with self.processes.exclusive():
            for number in range(1, REFEREES + 2):
                if self.processes.get(f"v{number}") is not None:
                    report(f"v{number:<9} {self.processes.stop(f'v{number}', wait_s)}")
        super().down(report, wait_s)

    def _command(self, number: int) -> str:
        return "demo-cheat" if number == CHEAT else "provide"

    def _validator(self, number: int, network: Network, plan: Plan, report: Callable[[str], None]) -> None:
        from minga.cli.world import run_async
        from minga.client.home import Home

        home = self.folder / f"v{number}"
        network.save(Home(home))
        keys = Settings(home).open_keys()
        if VALIDATOR not in {info.name for info in keys.info()}:
            keys.create_embedded(VALIDATOR, os.urandom(32))
        address = keys.load(VALIDATOR, embedded_ok=True).address
        run_async(lambda: fill(self.folder / "chain", address, VALIDATOR_USD))
        words = ["--stake", STAKE_USD, "--audit", "all" if number == 1 else "none", "--leaves", LEAVES]
        for environment in plan.environments:
            words += ["--environment", environment]
        if plan.driver == "process":
            words.append("--insecure-process")
        argv = self._argv(home, "validate", *words)
        record, _ = self.processes.ensure(f"v{number}", argv, {}, READY_WAIT_S)
        report(f"{record.name:<10} {'validator' if number == 1 else 'referee'} {address}")

    def people(self, plan: Plan) -> dict[str, Address]:
        """Address by role: tenant, cheat, honest provider, validator, referees."""
        found = {"tenant": _address(self.settings, WALLET)}
        for number in range(1, plan.providers + 1):
            role = "cheating provider" if number == CHEAT else f"honest provider {number - 1}"
            found[role] = _address(Settings(self.folder / f"p{number}"), OPERATOR)
        for number in range(1, REFEREES + 2):
            role = "validator" if number == 1 else f"referee {number - 1}"
            found[role] = _address(Settings(self.folder / f"v{number}"), VALIDATOR)
        return found

    def told(self) -> Told:
        """What the validator tells."""
        return Told(self.folder / "log" / "v1.log")


def _address(settings: Settings, name: str) -> Address:
    return next(info.address for info in settings.open_keys().info() if info.name == name)


@dataclass
class Told:
    """The lines that a process wrote as JSON, from where they were read last."""

    log: Path
    offset: int = 0

    def news(self) -> Iterator[dict[str, Any]]:
        """The events since the last call."""
        with self.log.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self.offset += whole
        for line in data[:whole].splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and "event" in value:
                yield value
