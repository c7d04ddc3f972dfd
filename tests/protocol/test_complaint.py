"""A complaint proves who signed it, for which lease and where; nothing else counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minga.core.crypto import ZERO_ADDRESS, Address, Hash32, new_key
from minga.core.eip712 import Domain
from minga.core.errors import BadAnswer, InvalidInput, InvalidSignature
from minga.core.units import Amount
from minga.protocol.complaint import FAULTS, SignedComplaint, complain, parse_complaints
from minga.protocol.lease import Lease, Why
from minga.protocol.messages import Voucher, sign

DOMAIN = Domain(31337, "0x" + "ab" * 20)
SIGNER, OTHER = new_key(b"\x01" * 32), new_key(b"\x02" * 32)
LEASE = Lease(
    Address("0x" + "01" * 20), Hash32("0x" + "02" * 32), 3, SIGNER.address, Address("0x" + "04" * 20),
    Hash32("0x" + "05" * 32), Hash32("0x" + "06" * 32), Amount(3600), 1, 3600, ZERO_ADDRESS, 0, 0, 100,
)  # fmt: skip


def made(reason: int = 5, made_at: int = 1_800_000_000, signer=SIGNER, domain: Domain = DOMAIN) -> SignedComplaint:
    return complain(LEASE.id, LEASE.offer, LEASE.provider, reason, made_at, domain, signer)


def test_a_complaint_survives_the_wire_and_names_its_lease() -> None:
    again = SignedComplaint.parse(made().canonical())
    assert again == made()
    assert again.check(DOMAIN).reason == 5
    assert again.channel == LEASE.channel
    assert again.is_of(LEASE)


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": 6}, {"made_at": 1_800_000_001}, {"provider": "0x" + "05" * 20}, {"lease_id": "0x" + "09" * 32},
        {"offer": "0x" + "09" * 32}, {"signer": OTHER.address},
    ],
)  # fmt: skip
def test_every_field_is_signed(changes) -> None:
    with pytest.raises(InvalidSignature):
        made().model_copy(update=changes).check(DOMAIN)


def test_another_chain_market_or_message_is_another_signature() -> None:
    for domain in (Domain(1, DOMAIN.market), Domain(31337, "0x" + "cd" * 20)):
        with pytest.raises(InvalidSignature):
            made().check(domain)
    voucher = sign(Voucher(LEASE.channel, Amount(5)), DOMAIN, SIGNER)
    with pytest.raises(InvalidSignature):
        made().model_copy(update={"signature": "0x" + voucher.hex()}).check(DOMAIN)


def test_a_lease_of_another_signer_offer_or_provider_is_not_the_one() -> None:
    assert not made(signer=OTHER).is_of(LEASE)
    assert not made().is_of(replace(LEASE, offer=Hash32("0x" + "07" * 32)))
    assert not made().is_of(replace(LEASE, provider=Address("0x" + "07" * 20)))
    assert not made().is_of(replace(LEASE, attempt=4))
    assert made().is_of(replace(LEASE, opened_at=200))  # a reorg may open the same lease at another time


@pytest.mark.parametrize("reason", [0, 1, 4, 9, 10, 255, -1])
def test_only_faults_of_a_provider_can_be_complained_of(reason: int) -> None:
    assert reason not in FAULTS
    with pytest.raises(InvalidInput):
        made(reason) if 0 <= reason < 256 else SignedComplaint.parse(made().plain() | {"reason": reason})


def test_reasons_have_names_and_are_codes_of_the_contract() -> None:
    assert {Why(code).name: name for code, name in FAULTS.items()} == {
        "UNREACHABLE": "silent", "UNDER_SPEC": "under-spec", "BAD_RESULT": "bad-result", "SHUTTING_DOWN": "no-notice",
    }  # fmt: skip


@pytest.mark.parametrize("answer", [None, [], {}, {"complaints": 1}, {"offers": []}, "x"])
def test_nonsense_is_no_answer_of_a_board(answer) -> None:
    with pytest.raises(BadAnswer):
        parse_complaints(answer)


def test_malformed_complaints_are_left_out() -> None:
    good = made().plain()
    bad = [good | {"extra": 1}, good | {"signature": "0x00"}, good | {"made_at": -1}, 5, None, {}]
    assert parse_complaints({"complaints": [*bad, good], "held": 7}) == [made()]
