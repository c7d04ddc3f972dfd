"""A board's complaints: a bounded cache of what tenants signed against providers, each with a lease on chain behind it.

Pure; its clock and the leases are arguments. It checks signature and lease, so that a complaint costs at least a lease,
and forgets. It does not judge: what a complaint weighs is `minga.protocol.reliability`, and readers check all again.

| rule                                             | because                                              |
|--------------------------------------------------|------------------------------------------------------|
| one a lease, the newest by `made_at`             | a lease is one experience; a replay changes nothing  |
| only of a lease that the chain knows             | fresh keys are free, leases are not                  |
| at most `per_provider`, then the oldest goes     | one provider's cannot push the others out            |
| at most `complaints_max`, then the oldest goes   | memory is bounded                                    |
| forgotten `complaint_keep_s` after it was made   | by then its lease weighs an eighth or less           |
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from minga.core.crypto import Hash32
from minga.core.eip712 import Domain
from minga.core.errors import Conflict, Expired, InvalidInput, MingaError, NotFound
from minga.core.units import DAY
from minga.explorer.board import CLOCK_SLACK_S
from minga.protocol.complaint import SignedComplaint
from minga.protocol.lease import Lease


@dataclass(frozen=True, slots=True)
class ComplaintLimits:
    """Bounds of what is held: counts and seconds."""

    complaints_max: int = 50_000
    per_provider: int = 1000
    complaint_keep_s: int = 364 * DAY


class ComplaintBook:
    """Complaints by channel. Not safe for threads: one event loop owns it."""

    def __init__(self, domain: Domain, limits: ComplaintLimits | None = None) -> None:
        """Keep complaints that are signed for `domain`."""
        self.domain = domain
        self.limits = limits or ComplaintLimits()
        self._kept: dict[Hash32, SignedComplaint] = {}
        self._by_provider: defaultdict[str, dict[Hash32, None]] = defaultdict(dict)
        self.changes = 0
        """How many were ever kept; it grows when there is something new to write down."""

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, complaint: SignedComplaint, lease: Lease | None, now: int) -> bool:
        """Keep a complaint if it proves itself; returns whether anything changed.

        Args:
            complaint: what somebody sent.
            lease: what the chain knows of its lease.
            now: Unix seconds.

        Raises:
            NotFound: the chain knows no such lease.
            InvalidInput: the lease has another provider or signer, or the complaint is of the future.
            InvalidSignature: another key or another domain.
            Expired: made longer ago than is kept.
            Conflict: a newer one about the same lease is held.
        """
        if lease is None:
            raise NotFound(f"the chain knows no lease {complaint.lease_id}", "send it when the lease is confirmed")
        if not complaint.is_of(lease):
            raise InvalidInput("the lease has another provider, offer or signer", "complain of your own lease")
        return self._keep(complaint, now)

    def _keep(self, complaint: SignedComplaint, now: int) -> bool:
        complaint.check(self.domain)
        if complaint.made_at > now + CLOCK_SLACK_S:
            raise InvalidInput(f"made at {complaint.made_at}, but it is {now}", "set this machine's clock")
        if complaint.made_at + self.limits.complaint_keep_s <= now:
            raise Expired(f"made at {complaint.made_at}, too long ago to count", "nothing is left to do")
        channel = complaint.channel
        held = self._kept.get(channel)
        if held == complaint:
            return False
        if held is not None and held.made_at >= complaint.made_at:
            raise Conflict(f"one of {held.made_at} about this lease is held", "one complaint a lease is enough")
        self._forget(channel)
        self._kept[channel] = complaint
        self._by_provider[complaint.provider][channel] = None
        own = self._by_provider[complaint.provider]
        while len(own) > self.limits.per_provider:
            self._forget(next(iter(own)))
        while len(self._kept) > self.limits.complaints_max:
            self._forget(next(iter(self._kept)))
        self.changes += 1
        return True

    def newest(self, provider: str | None, limit: int) -> list[SignedComplaint]:
        """At most `limit` complaints, about `provider` if one is named; the last that came is the first."""
        channels = self._kept if provider is None else self._by_provider.get(provider, {})
        return [self._kept[channel] for _, channel in zip(range(limit), reversed(channels), strict=False)]

    def lines(self) -> bytes:
        """What is held, one canonical complaint a line, for `load` after a restart."""
        return b"".join(complaint.canonical() + b"\n" for complaint in self._kept.values())

    def load(self, lines: Iterable[bytes], now: int) -> int:
        """Add what `lines` wrote, as far as its signatures still hold; returns how many that are.

        Their leases were looked up when they came; readers look them up again.
        """
        count = 0
        for line in lines:
            try:
                count += self._keep(SignedComplaint.parse(line.strip()), now)
            except MingaError:  # too old meanwhile, or torn: forgotten, as anything a board holds may be
                continue
        return count

    def _forget(self, channel: Hash32) -> None:
        gone = self._kept.pop(channel, None)
        if gone is None:
            return
        own = self._by_provider[gone.provider]
        del own[channel]
        if not own:
            del self._by_provider[gone.provider]
