"""Buying from oneself: neither the audit fund nor a low rate is worth what it costs, played with the real draws."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest

from minga.core.crypto import Address, Hash32, keccak, to_hex
from minga.core.units import BPS, DAY
from minga.protocol import audit, audit_pay
from minga.protocol.audit import Record
from minga.protocol.settlement import FEE_BPS_DEFAULT, fee_down

DOLLAR = 10**6
POOL = [Address(to_hex(keccak(bytes((n,)))[:20])) for n in range(20)]


def commitment(n: int) -> Hash32:
    return Hash32(to_hex(keccak(b"own job" + n.to_bytes(4, "big"))))


def beacon(n: int) -> bytes:
    return keccak(b"round" + n.to_bytes(4, "big"))


@dataclass
class Farm:
    """A provider that is its own tenant, with some of the validators: its record, and what it spent and got back."""

    own: set[Address]
    record: Record = audit.NEWCOMER
    fees: int = 0
    pay: int = 0
    bought: int = 0

    def buy(self, number: int, price: int) -> int:
        """One own job at a price of its choice; the rate that it had."""
        rate = audit.rate_bps(self.record, price)
        self.bought += price
        self.fees += fee_down(price, FEE_BPS_DEFAULT)
        if audit.audits(beacon(number), commitment(number), rate):
            drawn = audit.drawn_validators(beacon(number), commitment(number), POOL, audit.validators_for(rate))
            self.pay += audit_pay.pay_down(price, rate) * len(self.own & set(drawn))
            self.record = Record(self.record.jobs + 1, self.record.value + price, self.record.stake_age)
        self.record = Record(self.record.jobs, self.record.value, self.record.stake_age + DAY // 4)
        return rate


@pytest.mark.parametrize("share", [0, 6, 20])
@pytest.mark.parametrize("price", [DOLLAR // 100, 5 * DOLLAR, 5_000 * DOLLAR])
def test_buying_own_jobs_and_auditing_them_costs_more_than_it_brings(share, price):
    """Even with every validator's name the fund returns at most its share of the fees, whatever the price."""
    farm = Farm(set(POOL[:share]))
    for number in range(600):
        farm.buy(number, price)
    assert farm.pay <= farm.fees * audit_pay.AUDIT_SHARE_BPS / BPS * 1.35  # what the draws of few audits may add
    assert share == 20 or farm.pay < farm.fees
    assert (farm.pay > 0) is (share > 0)


def test_pay_by_work_alone_would_be_a_farm():
    """Why pay is bounded by the fee: at a newcomer's rate the work on 22 leaves each is worth far more than 1 %."""
    price, leaves = 5 * DOLLAR, 1000
    by_work = audit.VALIDATORS * audit_pay.cost_up(price, leaves, 22, 1) * audit_pay.MARGIN_BPS // BPS
    assert by_work > 8 * fee_down(price, FEE_BPS_DEFAULT)


def test_a_bought_record_costs_money_and_leads_to_a_rate_at_which_a_fake_loses():
    farm, rates = Farm(set()), []
    for number in range(1_200):
        rates.append(farm.buy(number, 10 * DOLLAR))
    assert rates[0] == BPS
    assert rates[-1] == audit.floor_bps(audit.FACTOR)
    assert rates == sorted(rates, reverse=True)
    assert farm.fees == farm.bought // 100 > 20 * DOLLAR
    at_floor = Fraction(rates[-1], BPS) * Fraction(audit.DETECTION_BPS, BPS) * (1 + Fraction(audit.FACTOR, 2))
    assert at_floor >= Fraction(audit.GUARDED_SAVING_BPS, BPS)
    # and for a job ten times as dear it is a newcomer's again
    assert audit.rate_bps(farm.record, 10**4 * DOLLAR) == BPS


def test_a_record_of_cheap_jobs_is_worth_their_value_however_many_they_are():
    farm = Farm(set())
    for number in range(400):
        farm.buy(number, DOLLAR // 100)
    assert farm.record.jobs > audit.JOBS_NEW
    assert audit.credit(farm.record, DOLLAR // 100) >= audit.CREDIT_KNOWN
    assert audit.credit(farm.record, 10 * DOLLAR) == 0
    assert audit.rate_bps(farm.record, 10 * DOLLAR) == BPS
