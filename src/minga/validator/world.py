"""What all cases and seats of one validator share, and what its operator decided. Knows no rules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.abc
import httpx

from minga.chain.chain import Chain
from minga.chain.disputes import Disputes
from minga.core.crypto import Address, PrivateKey
from minga.core.effects import Clock, Dice
from minga.protocol.dispute import Preset
from minga.store.journal import Journal
from minga.validator.audits import Asker
from minga.validator.replays import Replayer

Announce = Callable[[str, dict[str, Any]], None]
Reach = Callable[[Address], Awaitable[httpx.AsyncClient]]
"""A client of a provider's API, whose base url is the provider's. Raises MingaError when nobody knows where it is."""


@dataclass(frozen=True)
class Options:
    """`audit`: whose commitments are audited: those that the beacon draws us for, all, or none. `leaves` are sampled
    for each audit; `referee`: whether seats are judged; `challenge`: whether a wrong leaf is challenged.
    """

    audit: Literal["drawn", "all", "none"] = "drawn"
    leaves: int = 4
    referee: bool = True
    challenge: bool = True


@dataclass(frozen=True)
class World:
    """See the module. `home` is this validator's alone; `preset` is the arbiter's; `findings`: channel → the leaf that
    our own audit found wrong.
    """

    chain: Chain
    key: PrivateKey
    journal: Journal
    replayer: Replayer
    clock: Clock
    dice: Dice
    reach: Reach
    announce: Announce
    home: Path
    preset: Preset
    options: Options
    tasks: anyio.abc.TaskGroup
    replaying: anyio.CapacityLimiter
    findings: dict[str, int] = field(default_factory=dict)

    @property
    def disputes(self) -> Disputes:
        """The arbiter."""
        return Disputes(self.chain.spec.deployment.disputes)

    @property
    def asker(self) -> Asker:
        """Who asks providers for evidence."""
        return Asker(self.key, self.chain.spec.disputes_domain, self.clock, self.dice)
