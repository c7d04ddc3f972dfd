"""Offer bundles are believed only after every hash, signature and date in them was checked."""

from __future__ import annotations

import pytest

from minga.core.crypto import ZERO_ADDRESS, Address, Hash32, new_key, to_hex
from minga.core.eip712 import Domain
from minga.core.errors import Expired, InvalidInput, InvalidSignature
from minga.core.spec import Machine, Terms
from minga.core.units import Amount
from minga.protocol.messages import Offer, Posting, offer_hash, sign
from minga.protocol.wire import LeaseStatus, OfferBundle, OfferFields, VoucherRequest, amount_of

NOW = 1_700_000_000
DOMAIN = Domain(31_337, "0x" + "12" * 20)
AGENT = new_key(b"\x01" * 32)
MACHINE = Machine(
    node="0x" + "01" * 32, arch="x86_64", cpu="a cpu", cpus=2, memory_bytes=2**33, disk_bytes=2**34, os="linux"
)
TERMS = Terms.parse(
    {
        "transport_key": "0" * 64,
        "unit": {"cpu_milli": 2000, "memory_bytes": 2**32, "disk_bytes": 2**33},
        "sandbox": "bubblewrap",
    }
)


def bundle(domain=DOMAIN, key=AGENT, **changes):
    offer = Offer(
        provider=Address("0x" + "0a" * 20),
        machine=MACHINE.hash32(),
        terms=TERMS.hash32(),
        price_per_hour=Amount(2**100),
        units=1,
        deposit_min=Amount(0),
        seconds_min=60,
        seconds_max=3600,
        quantum=5,
        close_window=3600,
        arbiter=ZERO_ADDRESS,
        hold_bps=0,
        hold_seconds=0,
        valid_until=NOW + 60,
        epoch=0,
        salt=Hash32("0x" + "02" * 32),
    )
    url = "http://127.0.0.1:1"
    fields = {
        "offer": OfferFields.of(offer),
        "signature": to_hex(sign(offer, domain, key)),
        "agent": AGENT.address,
        "machine": MACHINE,
        "terms": TERMS,
        "url": url,
        "posted_at": NOW,
        "url_signature": to_hex(sign(Posting(offer_hash(offer), url, NOW), domain, key)),
    }
    return OfferBundle(**(fields | changes))


def test_a_good_bundle_survives_the_wire():
    again = OfferBundle.parse(bundle().canonical())
    assert again.check(DOMAIN, NOW).price_per_hour == 2**100
    assert again == bundle()
    assert again.offer_hash() == offer_hash(again.offer.offer())


def test_hashes_must_fit():
    other = Machine.parse(MACHINE.plain() | {"cpus": 3})
    with pytest.raises(InvalidInput):
        bundle(machine=other).check(DOMAIN, NOW)
    terms = Terms.parse(TERMS.plain() | {"notice_s": 1})
    with pytest.raises(InvalidInput):
        bundle(terms=terms).check(DOMAIN, NOW)


@pytest.mark.parametrize(
    "wrong",
    [
        bundle(domain=Domain(1, DOMAIN.market)),
        bundle(key=new_key(b"\x02" * 32)),
        bundle(agent=new_key(b"\x02" * 32).address),
        bundle(url="http://127.0.0.1:2"),
        bundle(posted_at=NOW + 1),
    ],
    ids=["chain", "key", "agent", "url", "time"],
)
def test_signatures_must_fit(wrong):
    with pytest.raises(InvalidSignature):
        wrong.check(DOMAIN, NOW)


def test_an_old_offer_is_dead():
    bundle().check(DOMAIN, NOW + 59)
    with pytest.raises(Expired):
        bundle().check(DOMAIN, NOW + 60)


@pytest.mark.parametrize("amount", ["-1", "1.0", "01", "", "1e3", str(2**128), "\u0661", 5, None])
def test_amounts_are_plain_decimals(amount):
    with pytest.raises(InvalidInput):
        VoucherRequest.parse({"cumulative": amount, "signature": "0x" + "00" * 65})


@pytest.mark.parametrize("signature", ["", "0x", "0x" + "00" * 64, "00" * 65, "0x" + "zz" * 65, 7])
def test_signatures_are_65_bytes(signature):
    with pytest.raises(InvalidInput):
        VoucherRequest.parse({"cumulative": "1", "signature": signature})


def test_large_amounts_survive():
    top = VoucherRequest.parse({"cumulative": str(2**128 - 1), "signature": "0x" + "00" * 65})
    assert amount_of(top.cumulative) == 2**128 - 1


def test_a_phase_must_be_known():
    with pytest.raises(InvalidInput):
        LeaseStatus.parse({"lease": "0x" + "00" * 32, "phase": "dreaming"})
