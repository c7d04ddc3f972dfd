"""What an owner decides about a provider, and what the offer and its terms say in consequence.

Knows: ranges, and which promise follows from which choice. Does not know: the machine, chains, keys' use. Rule: what
cannot be is refused before anything is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from minga.chain.chain import ChainSpec
from minga.core.crypto import PrivateKey
from minga.core.errors import InvalidInput
from minga.core.spec import Speed, Terms, UnitSize
from minga.protocol.lease import HOLD_SECONDS_MAX
from minga.provider.autoprice import AutoPrice
from minga.provider.bidding import Ask
from minga.provider.metering import deposit_least
from minga.runtimes.runtime import Runtime
from minga.transport.http import is_loopback
from minga.transport.tls import TlsIdentity


@dataclass(frozen=True)
class ProviderConfig:
    """What an owner decides. Prices are token units per unit-hour; times are seconds; `home` is this provider's alone.

    `operator` is the provider's address: it registers and needs a little gas; `agent` signs offers and may be the same
    key. `environments` maps names to folders. `egress` are hosts that jobs may reach (`("*",)`: any public one).
    `notice_s` is what a job gets from SIGTERM to SIGKILL when the owner wants the machine back (0: interruptible);
    `disk_share` the per cent of the free disk that may be described and sold. `auto` prices the machine instead of
    `price_per_hour`. `measure` says whether a speed is promised, and whether a measurement of this week will do.
    `stake` token units (0: none) are put under the network's arbiter, and the same units then also offered for work
    that is verified: `hold_bps` of the pay are held back for `hold_s` (0: twice as long as work can be challenged).
    """

    home: Path
    spec: ChainSpec
    operator: PrivateKey
    agent: PrivateKey
    price_per_hour: int
    host: str = "127.0.0.1"
    port: int = 0
    url: str | None = None
    units: int = 1
    unit: UnitSize | None = None
    quantum: int = 60
    boards: tuple[str, ...] = ()
    driver: Literal["bubblewrap", "process"] = "bubblewrap"
    environments: Mapping[str, Path] = field(default_factory=dict)
    egress: tuple[str, ...] = ()
    ports: int = 4
    prepaid_quanta: Literal[0, 1] = 0
    deposit_min: int | None = None
    seconds_min: int = 60
    seconds_max: int = 7 * 86400
    close_window: int = 3600
    offer_seconds: int = 600
    region: str = ""
    retention_s: int = 86400
    notice_s: int = 60
    disk_share: int = 100
    auto: AutoPrice | None = None
    measure: Literal["never", "kept", "again"] = "never"
    stake: int = 0
    hold_bps: int = 1000
    hold_s: int = 0

    def check(self) -> None:
        """Raise InvalidInput for what cannot be, before anything is touched."""
        ranges = {
            "units": (self.units, 1, 10_000),
            "quantum": (self.quantum, 1, 86400),
            "seconds_min": (self.seconds_min, 1, self.seconds_max),
            "seconds_max": (self.seconds_max, 1, 2**32 - 1),
            "close_window": (self.close_window, 3600, 86400),
            "offer_seconds": (self.offer_seconds, 10, 30 * 86400),
            "price_per_hour": (self.price_per_hour, 0, 2**96 - 1),
            "ports": (self.ports, 0, 64),
            "notice_s": (self.notice_s, 0, 86400),
            "disk_share": (self.disk_share, 1, 100),
            "stake": (self.stake, 0, 2**96 - 1),
            "hold_bps": (self.hold_bps, 1, 10_000),
            "hold_s": (self.hold_s, 0, HOLD_SECONDS_MAX),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise InvalidInput(f"{name} is {value}", f"use {low} … {high}")
        if not self.environments:
            raise InvalidInput("there is no environment for jobs", "name one, such as python=FOLDER")
        near = is_loopback(self.host) and (self.url is None or is_loopback(urlsplit(self.url).hostname or ""))
        if self.driver == "process" and not near:
            raise InvalidInput(
                "jobs that are plain processes are not offered to strangers", "listen on loopback, or use the sandbox"
            )


def ask_of(config: ProviderConfig) -> Ask:
    """The offer's numbers."""
    least = deposit_least(config.price_per_hour, config.quantum)
    return Ask(
        price_per_hour=config.price_per_hour,
        units=config.units,
        quantum=config.quantum,
        deposit_min=config.deposit_min if config.deposit_min is not None else least,
        seconds_min=config.seconds_min,
        seconds_max=config.seconds_max,
        close_window=config.close_window,
        offer_seconds=config.offer_seconds,
        deposit_floor=config.deposit_min if config.deposit_min is not None else 1,
    )


def terms_of(
    config: ProviderConfig,
    unit: UnitSize,
    transport_key: str,
    tls: TlsIdentity | None,
    runtime: Runtime,
    speed: Speed | None = None,
) -> Terms:
    """The terms of this configuration. A driver that is no sandbox is never called one."""
    return Terms(
        transport_key=transport_key,
        tls_sha256=tls.sha256 if tls else None,
        unit=unit,
        sandbox="bubblewrap" if runtime.sandboxed else "process",
        environments=sorted(config.environments),
        egress=list(config.egress) if runtime.sandboxed else [],
        ports=config.ports,
        prepaid_quanta=config.prepaid_quanta,
        notice_s=config.notice_s,
        retention_s=config.retention_s,
        region=config.region,
        speed=speed,
    )
