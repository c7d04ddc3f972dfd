"""The states of a lease and the moves between them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_abi import encode

from minga.core.crypto import ZERO_ADDRESS, Address, Hash32, keccak, to_hex
from minga.core.errors import ContractError
from minga.core.units import Amount
from minga.protocol import lease as leases
from minga.protocol.lease import NO_ACCOUNT, TIME_MAX, TRANSITIONS, Account, Lease, Move, Phase
from minga.protocol.messages import Offer, channel_id, lease_id, offer_hash
from minga.protocol.settlement import AMOUNT_MAX

TENANT, PROVIDER, SIGNER = (Address("0x" + digit * 40) for digit in "123")
OPEN = Account(Amount(1_000), Amount(100), 5_000, Phase.OPEN)
OFFER = Offer(
    provider=PROVIDER, machine=Hash32("0x" + "aa" * 32), terms=Hash32("0x" + "bb" * 32), price_per_hour=Amount(7),
    units=4, deposit_min=Amount(1), seconds_min=60, seconds_max=3_600, quantum=60, close_window=3_600,
    arbiter=ZERO_ADDRESS, hold_bps=0, hold_seconds=0, valid_until=9_999, epoch=0, salt=Hash32("0x" + "cc" * 32),
)  # fmt: skip
LEASE = leases.lease_of(OFFER, TENANT, Hash32("0x" + "dd" * 32), 3, 2, SIGNER, 4_000)


def account(phase: Phase) -> Account:
    """The same amounts in any phase."""
    return NO_ACCOUNT if phase is Phase.CLOSED else replace(OPEN, phase=phase)


def refused(reason: str) -> pytest.RaisesExc[ContractError]:
    """The revert string, exactly."""
    return pytest.raises(ContractError, check=lambda error: error.fact == reason)


def test_identities() -> None:
    """Id, channel and hash are of exactly the fields that the contract hashes, as eth_abi encodes them."""
    assert LEASE.id == lease_id(TENANT, LEASE.job, 3)
    assert LEASE.channel == channel_id(LEASE.id, offer_hash(OFFER), SIGNER)
    kinds = [
        "address", "bytes32", "uint32", "address", "address", "bytes32", "bytes32", "uint128", "uint32", "uint32",
        "address", "uint16", "uint32", "uint64",
    ]  # fmt: skip
    values = [
        bytes.fromhex(value[2:]) if kind == "bytes32" else value
        for kind, value in zip(kinds, LEASE.as_tuple(), strict=True)
    ]
    assert LEASE.hash == to_hex(keccak(encode(kinds, values)))


@pytest.mark.parametrize("field", ["tenant", "job", "attempt", "signer", "offer", "units", "hold_bps", "opened_at"])
def test_every_field_is_bound(field: str) -> None:
    """Another value is another hash."""
    value = getattr(LEASE, field)
    other: Lease = replace(
        LEASE, **{field: value + 1 if isinstance(value, int) else "0x" + "ee" * (len(value) // 2 - 1)}
    )
    assert other.hash != LEASE.hash


def test_the_table_is_total() -> None:
    """Every move has an answer in every phase: a phase or a revert string."""
    for move in Move:
        assert set(TRANSITIONS[move]) == set(Phase)
        for answer in TRANSITIONS[move].values():
            assert isinstance(answer, Phase) or answer.startswith("market: ")


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("move", list(Move))
def test_check_reads_the_table(move: Move, phase: Phase) -> None:
    """A phase is returned, a string is raised."""
    answer = TRANSITIONS[move][phase]
    if isinstance(answer, Phase):
        assert leases.check(account(phase), move) is answer
    else:
        with refused(answer):
            leases.check(account(phase), move)


def test_nothing_leaves_closed() -> None:
    """The tombstone."""
    assert all(isinstance(answers[Phase.CLOSED], str) for answers in TRANSITIONS.values())


def test_top_up() -> None:
    """Adds to the deposit, up to the largest."""
    assert leases.top_up(OPEN, 5).deposit == 1_005
    with refused("market: no amount"):
        leases.top_up(OPEN, 0)
    with refused("market: deposit too large"):
        leases.top_up(OPEN, AMOUNT_MAX - 999)


def test_extend() -> None:
    """Only to a later end that fits its field."""
    assert leases.extend(OPEN, 5_001).ends_at == 5_001
    with refused("market: end not later"):
        leases.extend(OPEN, 5_000)
    with refused("market: end too late"):
        leases.extend(OPEN, TIME_MAX + 1)


@pytest.mark.parametrize(("cumulative", "settled"), [(0, 100), (100, 100), (101, 101), (1_000, 1_000), (9_999, 1_000)])
def test_redeem(cumulative: int, settled: int) -> None:
    """Never down, never over the deposit, in CLOSING as in OPEN."""
    assert leases.redeem(OPEN, cumulative).settled == settled
    closing = replace(OPEN, phase=Phase.CLOSING)
    assert leases.redeem(closing, cumulative) == replace(closing, settled=Amount(settled))


@pytest.mark.parametrize(("now", "finish_at"), [(4_500, 8_100), (5_000, 8_600), (7_000, 8_600)])
def test_start_close(now: int, finish_at: int) -> None:
    """The window runs from now, or from the agreed end where that has passed."""
    closing = leases.start_close(OPEN, now)
    assert (closing.phase, leases.finish_at(LEASE, closing)) == (Phase.CLOSING, finish_at)


def test_end() -> None:
    """Empty without an arbiter's time; held with it, unless nothing was settled."""
    assert leases.end(LEASE, OPEN, 500, 6_000) == NO_ACCOUNT
    arbitrated = replace(LEASE, arbiter=TENANT, hold_seconds=60)
    assert arbitrated.has_arbiter
    assert not LEASE.has_arbiter
    assert leases.end(arbitrated, OPEN, 500, 6_000) == Account(Amount(500), Amount(500), 6_060, Phase.HELD)
    assert leases.end(arbitrated, OPEN, 0, 6_000) == NO_ACCOUNT
    with refused("market: lease closed"):
        leases.end(LEASE, NO_ACCOUNT, 0, 6_000)
