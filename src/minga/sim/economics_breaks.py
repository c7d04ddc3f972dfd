"""Where the design breaks: how far each number can be moved, the others as they are, before something wrong pays.

Knows: the inequalities behind the tables. Does not know: jobs, except through them. Each line is a formula, and the
tests play a cheat on both sides of it. Needs numpy.

Rule: a line names what breaks, at which value, and what would move it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minga.core.units import BPS
from minga.protocol import audit, audit_pay
from minga.sim.economics_games import jury_errs
from minga.sim.economics_world import DOLLAR, SEATS, Terms


@dataclass(frozen=True, slots=True)
class Line:
    """A break-even line: `what` holds as long as `quantity` is on the good side of `at` (in `unit`)."""

    what: str
    quantity: str
    at: float
    unit: str
    moved_by: str


def root(below: Callable[[float], bool], low: float, high: float) -> float:
    """The border, within (high − low) / 2**50, below which `below` holds; `low` when it holds nowhere."""
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low


def fake_loses(
    terms: Terms, *, validators: float | None = None, errs: float = 0.0, saving: float | None = None, kept: float = 0.5
) -> bool:
    """Whether p·q·(R + (1 − ρ)·S) > g·R for a deposit that is the price.

    Args:
        validators: share of validators that are corrupt; the terms' collusion by default.
        errs: chance that a fault is not convicted.
        saving: g; the terms' by default.
        kept: 1 − ρ, the part of a slash that does not come back.
    """
    corrupt = terms.collusion / BPS if validators is None else validators
    q = (1 - corrupt**audit.VALIDATORS) * (1 - errs)
    g = terms.saving / BPS if saving is None else saving
    return terms.rate / BPS * q * (1 + kept * terms.factor) > g


def lines(terms: Terms) -> list[Line]:
    """Every line, for a network with these terms."""
    return [*_cheating(terms), *_judging(terms), *_paying(terms)]


def _cheating(terms: Terms) -> list[Line]:
    floor = audit.floor_bps(terms.factor) / 100
    return [
        Line("faking loses", "audit rate, at least", floor, "%", "a larger stake factor"),
        Line(
            "faking loses", "corrupt validators, below",
            100 * root(lambda c: fake_loses(terms, validators=c), 0, 1), "%", "more validators an audit",
        ),
        Line(
            "faking loses", "saving of a fake, share of its price, below",
            100 * root(lambda g: fake_loses(terms, saving=g), 0, 2), "%", "a higher rate or factor",
        ),
        Line(
            "faking loses", "part of a slash that comes back, below",
            100 * root(lambda back: fake_loses(terms, kept=1 - back), 0, 1), "%", "less for tenant and challenger",
        ),
        Line(
            "faking loses", "jobs done on a stake while a game is open on it, below", _reuse(terms), "jobs",
            "the rule `cover`",
        ),
    ]  # fmt: skip


def _reuse(terms: Terms) -> float:
    """W more jobs until the slash comes: (1/f + W)·g against S/2 + R + W·f·R, with f = p·q; solved for W, R = 1."""
    found = terms.rate / BPS * (1 - (terms.collusion / BPS) ** audit.VALIDATORS)
    saving = terms.saving / BPS
    if saving <= found:
        return float("inf")
    return max(0.0, (terms.factor / 2 + 1 - saving / found) / (saving - found))


def _judging(terms: Terms) -> list[Line]:
    online = terms.online / BPS

    def pool_right(corrupt: float) -> bool:
        return corrupt < (1 - corrupt) * online

    def jury_enough(corrupt: float) -> bool:
        drawn = Terms(rate=terms.rate, factor=terms.factor, collusion=round(corrupt * BPS))
        return fake_loses(terms, errs=jury_errs(drawn))

    errs = jury_errs(terms)
    fees = terms.jury * terms.seat_fee * terms.collusion / BPS
    sham = ((1 - errs) * terms.bond - fees) / errs / (terms.factor / 2 - 1) / DOLLAR if errs else float("inf")
    return [
        Line(
            "a vote of the whole pool is right", "corrupt referees, below", 100 * root(pool_right, 0, 1), "%",
            "more on line",
        ),
        Line(
            "a vote of the whole pool is right", "honest referees on line, above", 100 * _online_needed(terms), "%",
            "fines for silence",
        ),
        Line(
            "faking loses although nobody appeals", "corrupt referees, below", 100 * root(jury_enough, 0, 0.6), "%",
            "a larger jury",
        ),
        Line(
            "accusing the honest loses although they do not appeal", "deposit, below", sham, "$",
            "an agent that appeals by itself",
        ),
    ]  # fmt: skip


def _online_needed(terms: Terms) -> float:
    corrupt = terms.collusion / BPS
    return corrupt / (1 - corrupt)


def _paying(terms: Terms) -> list[Line]:
    computing = terms.saving / BPS * BPS / terms.margin
    fine, fee = terms.contradicted, terms.seat_fee
    work = audit_pay.FIXED_COST
    rates = sorted({terms.rate, audit.RATE_KNOWN_BPS, audit.RATE_NEW_BPS})
    seat_left = terms.seat_fee - 2 * terms.move_gas - audit_pay.FIXED_COST
    found = [
        Line(
            "honest validating pays more than a ring with corrupt planters", "corrupt planters, below",
            100 * (1 - computing), "%", "a larger margin",
        ),
        Line(
            "an honest referee earns more than one who always convicts", "accused who are honest, above",
            100 * work / (fee + fine), "%", "planted challenges of honest work",
        ),
        Line(
            "a referee who always convicts earns nothing", "accused who are honest, above",
            100 * (fee - 2 * terms.move_gas) / (fee + fine), "%", "a higher fine, more planted challenges",
        ),
        Line(
            "a seat is worth its work", "price of one leaf with the way to it, below", seat_left / DOLLAR, "$",
            "a seat fee by exposure, or more leaves",
        ),
        Line(
            "a finder that is first gets anything", "deposit, above",
            (SEATS + terms.jury) * terms.seat_fee / (terms.factor - 1) / DOLLAR, "$", "a least deposit in `commit`",
        ),
        Line(
            "a stake costs an honest provider at most", "share of a short job's price, at 5 % a year for 4 days",
            100 * terms.factor * 0.05 * 4 / 365, "%", "a smaller factor and a higher rate",
        ),
    ]  # fmt: skip
    for rate in rates:
        price = terms.margin * audit_pay.FIXED_COST * rate * audit.validators_for(rate)
        least = price / (terms.fee * audit_pay.AUDIT_SHARE_BPS) / DOLLAR
        at = f"at a rate of {rate / 100:g} %"
        found.append(Line("the fund pays an audit", f"price {at}, above", least, "$", "a higher fee; the tenant pays"))
        fewest = float(audit_pay.leaves_min(1, rate, terms.fee))
        found.append(Line("the fund pays an audit", f"leaves {at}, all kept, at least", fewest, "leaves", "the same"))
    return found
