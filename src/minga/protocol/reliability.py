"""The record of a provider: what its ended leases, as the chain tells them, and tenants' complaints say of it.

    share kept        ppm = (8 $ + good) / (10 $ + good + bad)
    interruptions     an hour of paid work = (10 $ / 24 h + cut) / (10 $ + good + bad)

Everything is money that tenants paid: `good` on leases that ended as promised, `bad` on those that the provider spoilt;
`cut` is the hourly price of each lease that it interrupted (spoilt, or took back), at most ten times what that lease
paid. The constants are the prior: a new provider is one that kept 8 of 10 dollars and was interrupted once a day.

| rule                                                 | because                                                 |
|------------------------------------------------------|---------------------------------------------------------|
| a lease weighs what it paid, gross                   | of each dollar the fee is gone, whoever dealt with whom |
| a tenant's leases of a week weigh 10 $ at most       | no single customer makes or breaks a provider           |
| weights halve every 12 weeks                         | a record is earned again and again                      |
| a word against a provider weighs what its lease paid | whoever wants to harm a provider must first pay it      |
| a lease on whose end nobody spoke weighs nothing     | neither side's silence proves anything                  |
| a reclaim counts as kept, and as an interruption     | the offer said that it may come                         |

Knows facts of leases; does not know chains, boards or clocks (`as_of` is chain time). Rule: the same facts and
complaints give the same record in whatever order they come, and whether or not some were folded before and are kept
(`KeptLedger`); all of it is integers. Whoever changes what a fact weighs changes `FORMULA`; kept folds are made anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from minga.core.units import DAY
from minga.protocol.complaint import FAULTS
from minga.protocol.lease import Why

FORMULA = 1
"""Of what is folded: `tally_of`, caps, weeks and counts."""
PPM = 1_000_000
WEEK = 7 * DAY
HALF_LIFE_WEEKS = 12
FORGOTTEN_WEEKS = 20 * HALF_LIFE_WEEKS
CUT_MAX = 10
"""An interruption weighs at most so many times what its lease paid: less than six minutes paid count in part."""

_DECAY = tuple(round(PPM * 2 ** (-week / HALF_LIFE_WEEKS)) for week in range(HALF_LIFE_WEEKS))
_TENANT_FAULTS = frozenset((Why.UNREACHABLE, Why.UNDER_SPEC, Why.BAD_RESULT))
_OWN_FAULTS = frozenset((Why.UNDER_SPEC, Why.BAD_RESULT))


@dataclass(frozen=True, slots=True)
class Rules:
    """The prior and the cap in token units; `prior_cut` is token units per hour."""

    prior_good: int
    prior_bad: int
    prior_cut: int
    tenant_max: int

    @classmethod
    def of(cls, decimals: int) -> Rules:
        """The rules for a token of so many decimals: 8 $, 2 $, 10 $ / 24 h, 10 $."""
        dollar = 10**decimals
        return cls(8 * dollar, 2 * dollar, 10 * dollar // 24, 10 * dollar)

    @property
    def prior(self) -> int:
        """The weight of the prior."""
        return self.prior_good + self.prior_bad


@dataclass(frozen=True, slots=True)
class Fact:
    """A lease that ended, as the chain tells it.

    `price_per_hour` is of all its units; `worth` what the tenant paid, fee included; `taken_back` what an arbiter gave
    back of it; `provider_said`, `tenant_said`: the `Why` code of each side, None when it said nothing.
    """

    lease_id: str
    tenant: str
    provider: str
    price_per_hour: int
    worth: int
    fee: int
    opened_at: int
    closed_at: int
    provider_said: int | None
    tenant_said: int | None
    taken_back: int = 0

    def spoilt(self, complaint: int | None = None) -> bool:
        """Whether somebody says that the provider did not do as promised."""
        return complaint in FAULTS or self.tenant_said in _TENANT_FAULTS or self.provider_said in _OWN_FAULTS

    def interrupted(self, complaint: int | None = None) -> bool:
        """Whether the provider ended the work before its time: spoilt, or taken back."""
        return self.spoilt(complaint) or Why.SHUTTING_DOWN in (self.provider_said, self.tenant_said)

    def disputed(self, complaint: int | None = None) -> bool:
        """Whether the tenant blames the provider and the provider says otherwise."""
        return self.spoilt(complaint) and self.provider_said not in (*_OWN_FAULTS, None)


@dataclass(frozen=True, slots=True)
class Tally:
    """Token units: paid on leases that ended well, paid on spoilt ones, hourly prices of interrupted ones."""

    good: int = 0
    bad: int = 0
    cut: int = 0

    def plus(self, other: Tally, sign: int = 1) -> Tally:
        """The sum, or with `sign` −1 the difference."""
        return Tally(self.good + sign * other.good, self.bad + sign * other.bad, self.cut + sign * other.cut)

    def capped(self, most: int) -> Tally:
        """The same proportions, worth `most` at most."""
        worth = self.good + self.bad
        if worth <= most:
            return self
        return Tally(self.good * most // worth, self.bad * most // worth, self.cut * most // worth)


def tally_of(fact: Fact, complaint: int | None = None) -> Tally:
    """What one lease weighs before caps and age."""
    if fact.provider_said is None and fact.tenant_said is None and complaint is None and not fact.taken_back:
        return Tally()
    bad = fact.worth if fact.spoilt(complaint) else min(fact.taken_back, fact.worth)
    cut = min(fact.price_per_hour, CUT_MAX * fact.worth) if fact.interrupted(complaint) else 0
    return Tally(fact.worth - bad, bad, cut)


@dataclass(frozen=True, slots=True)
class Record:
    """A provider's record. Amounts are token units, times chain time; 0 where nothing happened yet.

    `ppm`: share kept, parts per million. `interruptions_ppm`: expected in a million hours of paid work, at least 1.
    `evidence`: the weight of all leases, capped and aged; the prior's is `Rules.prior`. The rest is not aged: of
    `leases` that ended, `well` ended as promised, `left` are spoilt (`disputed` of them the provider denies, `unpaid`
    of them weigh nothing), `reclaimed` were taken back. `paid` and `fee` are totals: `fee` is what this record would
    have cost to fake, besides gas.
    """

    provider: str
    ppm: int
    interruptions_ppm: int
    evidence: int = 0
    leases: int = 0
    well: int = 0
    left: int = 0
    disputed: int = 0
    unpaid: int = 0
    reclaimed: int = 0
    complaints: int = 0
    tenants: int = 0
    paid: int = 0
    fee: int = 0
    first: int = 0
    last: int = 0

    @property
    def mtbf_s(self) -> int:
        """Expected seconds of paid work between interruptions."""
        return 3600 * PPM // self.interruptions_ppm


def new_record(provider: str, rules: Rules) -> Record:
    """The record of a provider of which nothing is known: the prior."""
    return _judge(provider, Tally(), rules)


def _judge(provider: str, tally: Tally, rules: Rules) -> Record:
    evidence = tally.good + tally.bad
    ppm = PPM * (rules.prior_good + tally.good) // (rules.prior + evidence)
    rate = PPM * (rules.prior_cut + tally.cut) // (rules.prior + evidence)
    return Record(provider, ppm, max(1, rate), evidence)


def worth_to_reach(ppm: int, rules: Rules) -> int:
    """Token units that a new provider must be paid, all of it well, to reach a share of `ppm` (below a million).

    Whoever deals with itself pays the fee on as much, from one address for each `Rules.tenant_max`, and again as
    weights halve.
    """
    return max(0, -(-(ppm * rules.prior - PPM * rules.prior_good) // (PPM - ppm)))


@dataclass(slots=True)
class Sums:
    """What is summed up of one provider: tallies by week after each tenant's cap, counts, tenants, first and last."""

    by_week: dict[int, Tally] = field(default_factory=dict)
    counts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    tenants: int = 0
    first: int = 0
    last: int = 0


class KeptLedger(Protocol):
    """Facts that were folded before, without complaints, and are kept somewhere."""

    def sums(self, provider: str) -> Sums | None:
        """A provider's sums, the caller's own; None when no lease of it ended."""
        ...

    def tally(self, provider: str, tenant: str, week: int) -> Tally | None:
        """What a tenant's leases of a week weigh, before the cap."""
        ...

    def has_tenant(self, provider: str, tenant: str) -> bool:
        """Whether a lease between the two ended."""
        ...

    def fact(self, lease_id: str) -> Fact | None:
        """A lease that ended."""
        ...

    def facts(self, provider: str) -> list[Fact]:
        """All leases of a provider that ended."""
        ...

    def sellers(self) -> list[str]:
        """Every provider of which a lease ended."""
        ...


class _Nothing:
    """A `KeptLedger` without a fact."""

    def sums(self, provider: str) -> Sums | None:
        return None

    def tally(self, provider: str, tenant: str, week: int) -> Tally | None:
        return None

    def has_tenant(self, provider: str, tenant: str) -> bool:
        return False

    def fact(self, lease_id: str) -> Fact | None:
        return None

    def facts(self, provider: str) -> list[Fact]:
        return []

    def sellers(self) -> list[str]:
        return []


@dataclass(slots=True)
class _Provider:
    """One provider: its sums, which a new fact changes in constant time, and what is new since they were kept."""

    sums: Sums
    facts: dict[str, Fact] = field(default_factory=dict)
    tenants: set[str] = field(default_factory=set)
    by_tenant: dict[tuple[int, str], Tally] = field(default_factory=dict)
    judged: tuple[int, Record] | None = None


class Ledger:
    """Records of all providers, kept up to date lease by lease. Not safe for threads."""

    def __init__(self, rules: Rules, kept: KeptLedger | None = None) -> None:
        """Nothing is known yet but what is `kept`; that must stay as it is while this ledger is used."""
        self.rules = rules
        self._kept: KeptLedger = kept or _Nothing()
        self._providers: dict[str, _Provider] = {}
        self._complaints: dict[str, int] = {}

    def end(self, fact: Fact) -> None:
        """Take in a lease that ended; the same lease again changes nothing. O(1)."""
        known = self._known(fact.provider) or self._providers.setdefault(fact.provider, _Provider(Sums()))
        if fact.lease_id in known.facts or self._kept.fact(fact.lease_id):
            return
        known.facts[fact.lease_id] = fact
        if fact.tenant not in known.tenants and not self._kept.has_tenant(fact.provider, fact.tenant):
            known.tenants.add(fact.tenant)
            known.sums.tenants += 1
        known.sums.first = min(known.sums.first or fact.opened_at, fact.opened_at)
        known.sums.last = max(known.sums.last, fact.closed_at)
        self._weigh(known, fact, self._complaints.get(fact.lease_id), 1)

    def complain(self, provider: str, lease_id: str, reason: int) -> None:
        """Take in a complaint about a lease of `provider`, before or after the lease ended; of several of one lease
        the lowest reason counts. The caller has checked signature and lease. O(1).
        """
        before = self._complaints.get(lease_id)
        if before is not None and before <= reason:
            return
        self._complaints[lease_id] = reason
        known = self._known(provider)
        fact = (known.facts.get(lease_id) or self._kept.fact(lease_id)) if known else None
        if known is not None and fact is not None and fact.provider == provider:
            self._weigh(known, fact, before, -1)
            self._weigh(known, fact, reason, 1)

    def record(self, provider: str, as_of: int) -> Record:
        """A provider's record at chain time `as_of`; it changes with each ended lease, and once a week by age."""
        known = self._known(provider)
        if known is None:
            return new_record(provider, self.rules)
        week = as_of // WEEK
        if known.judged is None or known.judged[0] != week:
            known.judged = week, self._record(provider, known.sums, week)
        return known.judged[1]

    def facts(self, provider: str) -> list[tuple[Fact, int | None]]:
        """The leases behind a record, each with its complaint's reason, the last ended first."""
        known = self._known(provider)
        held = [*self._kept.facts(provider), *known.facts.values()] if known else []
        found = sorted(held, key=lambda fact: (-fact.closed_at, fact.lease_id))
        return [(fact, self._complaints.get(fact.lease_id)) for fact in found]

    def providers(self) -> list[str]:
        """Every provider of which a lease ended, in order of address."""
        return sorted({*self._providers, *self._kept.sellers()})

    def news(self) -> Iterator[tuple[str, Sums, dict[tuple[int, str], Tally]]]:
        """Of each provider that was looked at: its sums, and the tallies by (week, tenant) that changed. To keep."""
        for provider, known in self._providers.items():
            yield provider, known.sums, known.by_tenant

    def _known(self, provider: str) -> _Provider | None:
        known = self._providers.get(provider)
        if known is None and (sums := self._kept.sums(provider)) is not None:
            known = self._providers[provider] = _Provider(sums)
        return known

    def _weigh(self, known: _Provider, fact: Fact, complaint: int | None, sign: int) -> None:
        week, most = fact.closed_at // WEEK, self.rules.tenant_max
        key = week, fact.tenant
        before = known.by_tenant.get(key) or self._kept.tally(fact.provider, fact.tenant, week) or Tally()
        after = before.plus(tally_of(fact, complaint), sign)
        known.by_tenant[key] = after
        change = after.capped(most).plus(before.capped(most), -1)
        known.sums.by_week[week] = known.sums.by_week.get(week, Tally()).plus(change)
        known.judged = None
        spoilt = fact.spoilt(complaint)
        counts = {
            "leases": 1, "paid": fact.worth, "fee": fact.fee, "complaints": complaint is not None,
            "well": not spoilt and (fact.provider_said is not None or fact.tenant_said is not None),
            "left": spoilt, "disputed": fact.disputed(complaint), "unpaid": spoilt and not fact.worth,
            "reclaimed": fact.interrupted(complaint) and not spoilt,
        }  # fmt: skip
        for name, count in counts.items():
            known.sums.counts[name] += sign * count

    def _record(self, provider: str, sums: Sums, now_week: int) -> Record:
        total = Tally()
        for week, tally in sums.by_week.items():
            age = max(0, now_week - week)
            if age < FORGOTTEN_WEEKS:
                total = total.plus(_aged(tally, age))
        judged = _judge(provider, total, self.rules)
        counts: dict[str, Any] = dict(sums.counts)
        return replace(judged, **counts, tenants=sums.tenants, first=sums.first, last=sums.last)


def _aged(tally: Tally, weeks: int) -> Tally:
    halvings, rest = divmod(weeks, HALF_LIFE_WEEKS)
    factor, base = _DECAY[rest], PPM << halvings
    return Tally(tally.good * factor // base, tally.bad * factor // base, tally.cut * factor // base)
