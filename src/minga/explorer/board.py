"""A board: a small cache of signed offers that anyone runs and nobody believes.

`OfferBook` is the cache: pure, its clock an argument. It knows one domain (chain id and Market), checks every hash
and signature before it keeps anything, and forgets. It does not know whether an agent key is registered, a provider
alive or a unit free: readers check that themselves, on chain and at the provider.

| rule                                              | because                                                      |
|---------------------------------------------------|--------------------------------------------------------------|
| the agent that signed is a part of the key        | anyone can sign a copy of an offer with a key of their own   |
| the newest posting of a key wins, by `posted_at`  | a renewed offer replaces the old one; a replay moves nobody  |
| forgotten at `valid_until`, or `keep_s` after it was posted | the dead do not post again                         |
| at most `per_agent` offers a key, then the oldest goes | one key cannot push the others out                     |
| at most `offers_max`, then the oldest goes        | memory is bounded; the living post again in minutes          |
| at most `posts_per_minute` from one address       | fresh keys are free, addresses are not                       |
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from minga.core.eip712 import Domain
from minga.core.errors import Conflict, Expired, InvalidInput, MingaError, TooManyRequests
from minga.protocol.search import OfferIndex, Query, row_of
from minga.protocol.wire import OfferBundle

CLOCK_SLACK_S = 900
"""How far in the future a posting may be dated: the same slack that a provider grants a login."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a board: counts, seconds, and posts a minute from one address."""

    offers_max: int = 20_000
    per_agent: int = 64
    keep_s: int = 3600
    posts_per_minute: int = 600
    callers_max: int = 10_000


DEFAULT = Limits()


def key_of(bundle: OfferBundle) -> str:
    """What a bundle is filed under: all that tells one seller's kinds of offer apart, without price, times and salt."""
    offer = bundle.offer
    parts = (bundle.agent, offer.provider, offer.machine, offer.terms, offer.arbiter, offer.quantum, offer.close_window)
    return ":".join(map(str, parts))


class OfferBook:
    """Offers by key, oldest posting first. Not safe for threads: one event loop owns it."""

    def __init__(self, domain: Domain, limits: Limits = DEFAULT) -> None:
        """Keep offers that are signed for `domain`, within `limits`."""
        self.domain = domain
        self.limits = limits
        self._kept: OrderedDict[str, OfferBundle] = OrderedDict()
        self._by_agent: defaultdict[str, OrderedDict[str, None]] = defaultdict(OrderedDict)
        self._index = OfferIndex()
        self._indexed = 0
        self.changes = 0
        """How many bundles were ever kept; it grows when there is something new to write down."""

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, bundle: OfferBundle, now: int) -> bool:
        """Keep a bundle if it proves itself; returns whether anything changed (the same posting again changes nothing).

        Args:
            bundle: what somebody sent.
            now: Unix seconds.

        Raises:
            InvalidInput: wrong hashes, or dated more than 15 minutes in the future.
            InvalidSignature: another key or another domain.
            Expired: past its `valid_until`, or posted more than `keep_s` ago.
            Conflict: a newer posting of the same kind of offer by the same key is held.
        """
        offer = bundle.check(self.domain, now)
        if bundle.posted_at > now + CLOCK_SLACK_S:
            raise InvalidInput(f"posted at {bundle.posted_at}, but it is {now}", "set this machine's clock")
        if bundle.posted_at + self.limits.keep_s <= now:
            raise Expired(f"posted at {bundle.posted_at}, more than {self.limits.keep_s} s ago", "post it again")
        if offer.units == 0:
            raise InvalidInput("the offer sells no units", "offer at least one")
        key = key_of(bundle)
        held = self._kept.get(key)
        if held == bundle:
            return False
        if held is not None and _age(held) >= _age(bundle):
            raise Conflict(f"a posting of {held.posted_at} is held, this one is of {bundle.posted_at}", "post it again")
        self._forget(key)
        self._kept[key] = bundle
        self._by_agent[bundle.agent][key] = None
        self._bound(bundle.agent)
        self._add_to_index(key, bundle)
        self.changes += 1
        return True

    def expire(self, now: int) -> int:
        """Forget what is past its time; returns how many. O(offers held)."""
        old = [
            key
            for key, bundle in self._kept.items()
            if bundle.offer.valid_until <= now or bundle.posted_at + self.limits.keep_s <= now
        ]
        for key in old:
            self._forget(key)
        return len(old)

    def search(self, query: Query, limit: int, now: int) -> list[OfferBundle]:
        """At most `limit` offers that match and are valid at `now`, cheapest per unit-hour first."""
        self.expire(now)
        return [self._kept[key] for key in self._index.search(query, limit, now)]

    def lines(self) -> bytes:
        """What is held, one canonical bundle a line, for `load` after a restart."""
        return b"".join(bundle.canonical() + b"\n" for bundle in self._kept.values())

    def load(self, lines: Iterable[bytes], now: int) -> int:
        """Add what `lines` wrote, as far as it still proves itself; returns how many bundles that are."""
        count = 0
        for line in lines:
            try:
                count += self.add(OfferBundle.parse(line.strip()), now)
            except MingaError:  # expired meanwhile, or torn: forgotten, as anything a board holds may be
                continue
        return count

    def _bound(self, agent: str) -> None:
        own = self._by_agent[agent]
        while len(own) > self.limits.per_agent:
            self._forget(next(iter(own)))
        while len(self._kept) > self.limits.offers_max:
            self._forget(next(iter(self._kept)))

    def _add_to_index(self, key: str, bundle: OfferBundle) -> None:
        self._indexed += 1
        if self._indexed > 2 * self.limits.offers_max:
            # The index remembers every text that it ever saw; a flood of fresh names must not grow it for ever.
            self._index, self._indexed = OfferIndex(), len(self._kept)
            self._index.add_many((held, row_of(kept)) for held, kept in self._kept.items())
        elif key in self._kept:
            self._index.add(key, row_of(bundle))

    def _forget(self, key: str) -> None:
        if self._kept.pop(key, None) is None:
            return
        self._index.remove(key)
        agent = key.partition(":")[0]
        self._by_agent[agent].pop(key, None)
        if not self._by_agent[agent]:
            del self._by_agent[agent]


def _age(bundle: OfferBundle) -> tuple[int, int]:
    """Orders postings of one key; within a second, the offer that lasts longer is the newer one."""
    return bundle.posted_at, bundle.offer.valid_until


class FloodGate:
    """A token bucket for each caller: `posts_per_minute` refill a bucket of the same size."""

    def __init__(self, limits: Limits = DEFAULT) -> None:
        """Bounded by `limits.callers_max` callers; the one that was quiet longest is forgotten first."""
        self._limits = limits
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def pass_one(self, caller: str, monotonic: float) -> None:
        """Count one post.

        Args:
            caller: an address.
            monotonic: seconds of a clock that never runs backwards.

        Raises:
            TooManyRequests: the bucket is empty; nothing was counted.
        """
        full = float(self._limits.posts_per_minute)
        left, at = self._buckets.get(caller, (full, monotonic))
        left = min(full, left + (monotonic - at) * full / 60)
        if left < 1:
            wait = int((1 - left) * 60 / full) + 1
            raise TooManyRequests(f"more than {int(full)} posts a minute", f"wait {wait} s", wait_s=wait)
        self._buckets[caller] = (left - 1, monotonic)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > self._limits.callers_max:
            self._buckets.popitem(last=False)
