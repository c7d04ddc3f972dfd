"""Cases and seats for the tests: their first events, and journals that lead to each phase."""

from __future__ import annotations

from minga.core.crypto import Address, to_hex
from minga.validator import events as ev

CHANNEL = "0x" + "c1" * 32
LEASE = "0x" + "1e" * 32
PROVIDER = Address("0x" + "9a" * 20)
VALIDATOR = Address("0x" + "7b" * 20)
WORK = "0x" + "30" * 32
ROOT = "0x" + "50" * 32
BEACON = to_hex(bytes(range(32)))
SALT = "0x" + "5a" * 32
LEAVES, KEEP = 61, 10
UNTIL = 1_000_000

NOTICED = ev.Noticed(CHANNEL, LEASE, PROVIDER, WORK, ROOT, LEAVES, UNTIL)
SEATED = ev.Seated(7, CHANNEL, LEASE, PROVIDER, WORK, ROOT, LEAVES, 23)
CHOSEN = ev.BeaconSeen(BEACON, 10_000, VALIDATOR, drawn=True, count=3)


def found(at: int = 23) -> list[ev.Event]:
    """A journal of a case in which leaf `at` came out otherwise in the first piece that was done."""
    from minga.validator.agent import replay

    begun: list[ev.Event] = [NOTICED, CHOSEN, ev.Served(KEEP)]
    case = replay([(event, 1) for event in begun])
    first, last = case.segments[0]  # type: ignore[union-attr]
    return [*begun, ev.Replayed(first, last, min(max(at, first + 1), last), "0x" + "ee" * 32)]
