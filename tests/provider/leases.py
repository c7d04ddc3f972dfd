"""A lease of the agent alone, driven event by event, and how it gets to where a test begins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minga.provider import events as ev
from minga.provider.agent import begin, step

H = "0x" + "11" * 32
A = "0x" + "22" * 20
PRICE = 3_600_000
SECOND = PRICE // 3600

OPENED = ev.Opened(
    lease_id=H, channel="0x" + "33" * 32, offer=H, tenant=A, job=H, attempt=0, signer=A, machine=H, units=1,
    price_per_hour=str(PRICE), quantum=10, prepaid_quanta=0, close_window=3600, arbiter=A, hold_bps=0, hold_seconds=0,
    opened_at=1000, ends_at=5000, deposit=str(100 * SECOND), retention_s=60,
)  # fmt: skip
MANIFEST = ev.ManifestSet({"grace_s": 20}, H, ["aa", "bb"])


class Lease:
    """A lease that is driven event by event; it keeps its journal, its last effects, and all that was told."""

    def __init__(self, *events: ev.Event, **facts: Any) -> None:
        self.journal: list[tuple[ev.Event, int]] = [(replace(OPENED, **facts), 1000)]
        self.state = begin(self.journal[0][0])  # type: ignore[arg-type]
        self.effects: list[ev.Effect] = []
        self.told: list[ev.Emit] = []
        for event in events:
            self.do(event)

    def do(self, event: ev.Event, now: int = 2000) -> list[ev.Effect]:
        """Let an event happen; its effects, but for what is told."""
        self.state, effects = step(self.state, event, now)
        self.journal.append((event, now))
        self.told += [effect for effect in effects if isinstance(effect, ev.Emit)]
        self.effects = [effect for effect in effects if not isinstance(effect, ev.Emit)]
        return self.effects


def ready(**facts: Any) -> Lease:
    """With all inputs."""
    return Lease(MANIFEST, ev.BlobStored("aa"), ev.BlobStored("bb"), **facts)


def started(**facts: Any) -> Lease:
    """Running."""
    lease = ready(**facts)
    lease.do(ev.StartAsked([]))
    lease.do(ev.Started())
    return lease


def voucher(seconds: int) -> ev.VoucherStored:
    """One that pays for so many seconds of one unit."""
    return ev.VoucherStored(str(seconds * SECOND), "0x" + "ab" * 65)
