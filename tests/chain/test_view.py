"""The derived view: a fold of events, the same for every replay."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minga.chain.chain import ContractEvent, Position, Seen
from minga.chain.contract_events import (
    Attested,
    Closed,
    ClosingStarted,
    Extended,
    HoldEnded,
    OffersCancelled,
    Opened,
    Owed,
    Redeemed,
    Registered,
    ToppedUp,
)
from minga.chain.dispute_events import Applied, Challenged, Committed, Finished
from minga.chain.view import View
from minga.core.crypto import ZERO_ADDRESS, Address, Hash32
from minga.core.units import Amount
from minga.protocol.dispute import Commitment
from minga.protocol.lease import How, Lease, Phase

TENANT, PROVIDER, VALIDATOR = (Address(f"0x{number:040x}") for number in (1, 2, 3))
MACHINE = Hash32(f"0x{5:064x}")
LEASE = Lease(
    TENANT,
    Hash32(f"0x{6:064x}"),
    1,
    Address(f"0x{7:040x}"),
    PROVIDER,
    MACHINE,
    Hash32(f"0x{8:064x}"),
    Amount(3600),
    1,
    3600,
    ZERO_ADDRESS,
    0,
    0,
    100,
)
OPENED = Opened(LEASE.id, TENANT, PROVIDER, LEASE, 700, Amount(1000))


def place(block: int) -> Position:
    return Position(block, Hash32(f"0x{block:064x}"), Hash32(f"0x{block + 1000:064x}"), 0, 1000 + block)


def view_of(*events: ContractEvent) -> View:
    view = View()
    view.apply(Seen(event, place(block)) for block, event in enumerate(events))
    return view


def amounts(*values: int) -> tuple[Amount, ...]:
    return tuple(Amount(value) for value in values)


def closed(held: int) -> Closed:
    return Closed(LEASE.id, TENANT, PROVIDER, PROVIDER, 1, 1, *amounts(500, 495 - held, 5, held, 500))


def test_providers() -> None:
    view = view_of(
        OffersCancelled(PROVIDER, 1),
        Registered(PROVIDER, PROVIDER, "old"),
        OffersCancelled(PROVIDER, 2),
        Registered(PROVIDER, VALIDATOR, "new"),
        Attested(VALIDATOR, PROVIDER, MACHINE, MACHINE, 5, 99),
        Attested(VALIDATOR, PROVIDER, MACHINE, MACHINE, 6, 99),
    )
    provider = view.providers[PROVIDER]
    assert (provider.agent_key, provider.uri, provider.since, provider.epoch) == (VALIDATOR, "new", 1001, 2)
    assert view.attestations[PROVIDER, MACHINE, VALIDATOR].score == 6


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ((), (Phase.OPEN, 1000, 0, 0, 0, 700)),
        ((ToppedUp(LEASE.id, TENANT, *amounts(5, 1005)),), (Phase.OPEN, 1005, 0, 0, 0, 700)),
        ((Extended(LEASE.id, 900),), (Phase.OPEN, 1000, 0, 0, 0, 900)),
        (
            (Redeemed(LEASE.id, PROVIDER, *amounts(200, 198, 2)), Redeemed(LEASE.id, PROVIDER, *amounts(300, 99, 1))),
            (Phase.OPEN, 1000, 300, 297, 3, 700),
        ),
        ((ClosingStarted(LEASE.id, PROVIDER, 4000, 5),), (Phase.CLOSING, 1000, 0, 0, 0, 700)),
        ((closed(0),), (Phase.CLOSED, 1000, 500, 495, 5, 700)),
        ((closed(100),), (Phase.HELD, 1000, 500, 395, 5, 700)),
        (
            (closed(100), HoldEnded(LEASE.id, TENANT, *amounts(30, 70))),
            (Phase.CLOSED, 1000, 500, 465, 5, 700),
        ),
        ((Owed(PROVIDER, Amount(5)),), (Phase.OPEN, 1000, 0, 0, 0, 700)),
    ],
)
def test_leases(events: tuple[ContractEvent, ...], expected: tuple[object, ...]) -> None:
    record = view_of(OPENED, *events).leases[LEASE.id]
    assert (record.phase, record.deposit, record.settled, record.paid, record.fee, record.ends_at) == expected
    assert record.opened == place(0)
    assert record.lease == LEASE


def test_a_closing_lease_says_when_anyone_may_finish_and_a_closed_one_how() -> None:
    record = view_of(OPENED, ClosingStarted(LEASE.id, PROVIDER, 4000, 5), closed(0)).leases[LEASE.id]
    assert record.finish_at == 4000
    assert (record.closed, record.closed_at, record.tenant_said) == (closed(0), 1002, 5)


def test_a_release_is_the_tenants_word_and_a_close_is_not() -> None:
    released = replace(closed(0), how=How.RELEASE, why=7)
    assert view_of(OPENED, released).leases[LEASE.id].tenant_said == 7
    assert view_of(OPENED, closed(0)).leases[LEASE.id].tenant_said is None


def test_ended_leases_are_listed_once_they_are_closed() -> None:
    assert view_of(OPENED, closed(100)).ended == []
    held = view_of(OPENED, closed(100), HoldEnded(LEASE.id, TENANT, *amounts(30, 70)))
    assert held.ended == view_of(OPENED, closed(0)).ended == [LEASE.id]


def test_events_of_leases_that_were_never_seen_change_nothing() -> None:
    assert view_of(Extended(LEASE.id, 5), closed(0), Owed(TENANT, Amount(1))) == View()


def test_commitments_are_known_by_channel_and_games_while_they_are_open() -> None:
    made = Commitment(LEASE.channel, PROVIDER, TENANT, MACHINE, MACHINE, 20, Amount(1000), 500)
    none = (Amount(0),) * 5
    begun = [
        OPENED, Committed(LEASE.channel, PROVIDER, TENANT, made), Challenged(1, LEASE.channel, VALIDATOR, False, 7),
        Challenged(2, LEASE.channel, TENANT, True, 7),
    ]  # fmt: skip
    view = view_of(*begun)
    assert view.commitments == {LEASE.channel: made}
    assert view.games == {1: LEASE.channel, 2: LEASE.channel}
    ended = Finished(1, LEASE.channel, 1, *none)
    assert view_of(*begun, ended).games == {2: LEASE.channel}
    assert view_of(*begun, ended, Finished(2, LEASE.channel, 3, *none)).games == {}
    assert view_of(OPENED).commitments == {}


def test_what_a_tenant_is_given_of_slashed_stake_is_summed_by_channel() -> None:
    paid = Applied(LEASE.channel, *amounts(90, 0, 0, 0))
    verdict = Applied(LEASE.channel, *amounts(90, 9, 81, 3))
    assert view_of(OPENED, paid, verdict).awards == {LEASE.channel: 81}
