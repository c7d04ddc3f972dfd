"""Those who check: work pays, everything that only looks like it does not, and the rules are those of `audit_pay`."""

from __future__ import annotations

import numpy as np
import pytest

from minga.core.crypto import ZERO_HASH, Address, Hash32, keccak, to_hex
from minga.core.units import BPS
from minga.protocol import audit_pay
from minga.protocol.audit_pay import Standing, Vote
from minga.sim import economics as eco
from minga.sim import economics_checks as checks
from minga.sim.economics_world import DOLLAR, RULES, Terms, drawn_jobs

ID = Hash32(to_hex(keccak(b"a commitment")))
VALIDATOR = Address(to_hex(keccak(b"one")[:20]))
WAYS = {way.name: way for way in checks.VALIDATORS}


def earned(name: str, terms: Terms | None = None, audits: int = 40_000) -> checks.Earned:
    return checks.audit_for_pay(WAYS[name], drawn_jobs(9, audits, steps=400), terms or Terms(), 9)


def mean(name: str, terms: Terms | None = None) -> float:
    return float(earned(name, terms).profit.mean()) / DOLLAR


# ---------------------------------------------------------------------------------------------------------- validators


def test_work_pays_and_nothing_else_does():
    honest = mean("honest")
    assert honest > 0.05
    for idle in ("lazy", "copying", "accusing"):
        assert mean(idle) < 0
    assert mean("silent") == 0
    assert mean("half") < mean("nine-tenths") < honest
    assert mean("half") < 0


def test_an_honest_name_is_never_barred_and_an_idle_one_is_never_paid():
    assert earned("honest").barred == 0
    assert earned("lazy").released == 0
    assert earned("accusing").barred > 0.99


def test_without_canaries_nobody_is_paid():
    """Pay is released by canaries alone: a network without them has no validators, rather than lazy ones."""
    terms = Terms(canaries=0)
    assert mean("honest", terms) < 0
    assert earned("lazy", terms).released == 0


def test_more_canaries_release_sooner_and_change_who_is_paid_not_at_all():
    few, many = earned("honest", Terms(canaries=100)), earned("honest", Terms(canaries=2_000))
    assert few.released < many.released
    assert many.barred == few.barred == 0
    assert earned("lazy", Terms(canaries=2_000)).released == 0


@pytest.mark.parametrize(("collusion", "ring_wins"), [(2_000, False), (6_000, True)])
def test_a_ring_with_corrupt_planters_earns_less_until_they_are_many(collusion, ring_wins):
    """The border is 1 − cost/pay, 40 %: docs/audits.md."""
    terms = Terms(collusion=collusion)
    assert (mean("ring", terms) > mean("honest", terms)) is ring_wins


def test_a_thin_margin_makes_honest_work_a_loss():
    """Paid what the leaves cost at the job's price, less than computing costs there: g of 1.2."""
    assert mean("honest", Terms(margin=8_000)) < 0 < mean("honest", Terms(margin=20_000))


def test_what_is_simulated_is_what_the_protocol_pays():
    """A name's history drawn once more with the protocol's own votes, canaries and standing."""
    dice = np.random.default_rng(12)
    for way, paid in (("honest", True), ("lazy", False), ("accusing", False)):
        standing, audits = Standing(), 0
        for _ in range(600):
            if standing.barred:
                break
            audits += 1
            sampled = tuple(sorted(dice.choice(np.arange(1, 1000), 10, replace=False).tolist()))
            spoilt = frozenset(np.flatnonzero(dice.random(1000) < 0.3).tolist()) if dice.random() < 0.1 else None
            hit = sorted(audit_pay.failing(sampled, spoilt, 1)) if spoilt is not None else []
            failed = {"honest": tuple(hit), "lazy": (), "accusing": sampled}[way]
            found = audit_pay.outcome(Vote(ID, VALIDATOR, failed, ZERO_HASH), sampled, 1, spoilt)
            standing = audit_pay.after(standing, found, 100)
        assert (standing.released > 0) is paid
        assert standing.barred is not paid
        assert standing.released + standing.retained + standing.forfeited == 100 * audits


def test_answers_to_canaries_have_the_odds_of_the_work_done():
    dice = np.random.default_rng(3)
    owed = np.full(200_000, 1, dtype=np.int64)
    found, wrong = checks._answers(WAYS["half"], owed, Terms(canaries=BPS), dice)
    hit = np.mean(checks.CANARY_FAKES) / BPS
    assert found.mean() == pytest.approx(hit / 2, abs=0.005)
    assert wrong.mean() == pytest.approx(hit / 2, abs=0.005)
    found, wrong = checks._answers(WAYS["honest"], owed, Terms(canaries=BPS), dice)
    assert found.mean() == pytest.approx(hit, abs=0.005)
    assert not wrong.any()


# ------------------------------------------------------------------------------------------------------------ referees


def seat(way: str, guilty: int = 9_000, terms: Terms | None = None) -> float:
    return float(checks.sit_for_pay(way, 40_000, guilty, terms or Terms(), 6).profit.mean()) / DOLLAR


def test_with_the_contracts_rule_alone_a_referee_that_does_nothing_earns_more():
    """The negative result: the same fee for either vote pays for votes, not for work."""
    bare = Terms(rules=frozenset(RULES) - {"coherent"})
    honest = seat("honest", terms=bare)
    for idle in ("always-convict", "always-acquit", "coin"):
        assert seat(idle, terms=bare) > honest > 0
    assert seat("silent", terms=bare) == -100


def test_with_the_rule_work_pays_and_guessing_does_not():
    honest = seat("honest")
    assert honest > 0.1
    for idle in ("always-convict", "always-acquit", "coin", "silent"):
        assert seat(idle) < 0


def test_always_convicting_pays_where_the_honest_are_hardly_ever_accused():
    """Why challenges of honest work have to be planted: at 0.1 % guessing is better, at 2 % it is not."""
    assert seat("always-convict", guilty=9_990) > seat("honest", guilty=9_990)
    assert seat("always-convict", guilty=9_800) < seat("honest", guilty=9_800)


def test_a_leaf_costs_a_cent_and_its_work():
    costs = checks.leaf_costs(1_000, Terms(), 1)
    assert costs.shape == (1_000,)
    assert costs.min() >= audit_pay.FIXED_COST
    assert costs.max() > 2 * audit_pay.FIXED_COST


def test_the_pool_is_safe_below_half():
    assert checks.pool_is_safe(Terms(collusion=3_000))
    assert checks.pool_is_safe(Terms(collusion=4_600))
    assert not checks.pool_is_safe(Terms(collusion=5_000))
    assert not checks.pool_is_safe(Terms(collusion=3_000, online=4_000))


# ---------------------------------------------------------------------------------------------------------------- fund


def test_the_fund_lives_on_its_fees_at_the_default_terms():
    fund = eco.fund_per_dollar(drawn_jobs(1, 50_000), Terms())
    assert fund["audits"] + fund["canaries"] < fund["fees"] == 0.01
    assert fund["audits"] <= 0.008
    assert fund["funded_value"] > 0.95


def test_the_fund_does_not_live_on_twice_the_canaries():
    fund = eco.fund_per_dollar(drawn_jobs(1, 50_000), Terms(canaries=500))
    assert fund["audits"] + fund["canaries"] > fund["fees"]
