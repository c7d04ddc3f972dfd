"""One lease of a job, as its tenant keeps it: what was promised, claimed, seen, checked, signed and paid.

Knows: which seconds may be paid. Does not know: the job around it. Rule: a second is payable when the provider claims
it, our own clock saw it go by, an accepted checkpoint follows it (if the tenant checks them), and nothing said before
it that the work was over (a reclaim, an idle job).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from minga.core.units import Amount
from minga.protocol.job_plan import Deal
from minga.protocol.lease import Why
from minga.protocol.pricing import cost_down, seconds_covered

ZERO = Amount(0)
MARKS_MAX = 64


@dataclass(frozen=True)
class Lease:
    """One attempt. `signed` is the highest voucher that may have left this machine; `acked` the highest known held.

    `working_s` is what the provider claims, `elapsed_s` what our own clock allows, `base_s` what of that was seen
    before the runner's last restart, `idle_s` how long the job has made no progress. `checked`: seconds count up to an
    accepted checkpoint, `accepted_s`; `marks` are (event, seconds worked) of checkpoints that were announced and are
    not judged yet. `limit_s`: seconds after these are free, whatever is claimed; `limit_why` says why. `away`: the
    runner missed a quantum or more and has signed nothing since. `seen` is the last event of the provider that was
    taken in, `announced` the first checkpoint event whose files are not here, `newest` the last. `notice` is a reclaim
    that was announced, `notice_s` its seconds. `stopping` says why the job is being stopped without being over.
    `left` says why the lease was left. `status`: `open`, `closing` (our own close is on the chain), `closed`; `held` of
    its pay is then held back until `hold_ended`; `awarded` came to us of the provider's stake.
    """

    attempt: int
    deal: Deal
    bundle: dict[str, Any]
    deposit: Amount
    lease: str = ""
    channel: str = ""
    seconds: int = 0
    opened_at: int = 0
    status: str = "open"
    signed: Amount = ZERO
    acked: Amount = ZERO
    sent: bool = False
    probed: bool = False
    working_s: int = 0
    elapsed_s: int = 0
    base_s: int = 0
    idle_s: int = 0
    checked: bool = False
    accepted_s: int = 0
    marks: tuple[tuple[int, int], ...] = ()
    limit_s: int | None = None
    limit_why: str = ""
    away: bool = False
    vouchers: int = 0
    started: bool = False
    seen: int = 0
    announced: int = 0
    newest: int = 0
    notice: str = ""
    notice_s: int = 0
    stopping: str = ""
    left: str = ""
    exit_code: int | None = None
    exited: bool = False
    top_ups: bool = True
    finish_at: int = 0
    why: int = Why.NOT_SAID
    paid: Amount = ZERO
    fee: Amount = ZERO
    held: Amount = ZERO
    refunded: Amount = ZERO
    hold_ended: bool = False
    awarded: Amount = ZERO

    def cost(self, seconds: int) -> Amount:
        """What `seconds` of it cost, rounded down."""
        return cost_down(self.deal.price_per_hour, self.deal.units, seconds)

    @property
    def worked_s(self) -> int:
        """Seconds that are claimed and that our own clock saw go by."""
        return min(self.working_s, self.elapsed_s + 1)

    @property
    def payable_s(self) -> int:
        """Seconds that we will pay for."""
        payable = min(self.worked_s, self.accepted_s) if self.checked else self.worked_s
        return payable if self.limit_s is None else min(payable, self.limit_s)

    @property
    def paid_s(self) -> int:
        """Payable seconds that a voucher covers."""
        return min(self.payable_s, seconds_covered(self.deal.price_per_hour, self.deal.units, self.signed))

    @property
    def prepaid(self) -> Amount:
        """What must be paid before the start."""
        return Amount(min(self.deposit, self.cost(self.deal.quantum * self.deal.prepaid_quanta)))

    @property
    def locked(self) -> Amount:
        """Token units still in the contract."""
        return Amount(0) if self.status == "closed" else self.deposit

    @property
    def on_hold(self) -> Amount:
        """Token units of its pay about which an arbiter may still decide."""
        return self.held if self.status == "closed" and not self.hold_ended else ZERO

    @property
    def taken(self) -> int:
        """Token units that its provider got, or may get by what we signed."""
        return self.deposit - self.refunded if self.status == "closed" else self.signed

    @property
    def after(self) -> int:
        """The number after which the provider's events are asked for: what is not done yet is asked for again."""
        return min(self.seen, self.announced - 1) if self.announced else self.seen

    def seconds_at(self, elapsed_s: int) -> int:
        """Seconds that may have been worked when our own clock showed `elapsed_s`, by the last claim before."""
        return min(self.working_s + max(0, elapsed_s - self.elapsed_s), elapsed_s + 1)

    def limited(self, seconds: int, why: str) -> Lease:
        """The lease whose seconds after `seconds` are free; the first limit stands."""
        return self if self.limit_s is not None else replace(self, limit_s=seconds, limit_why=why)

    def marked(self, number: int, elapsed_s: int) -> Lease:
        """The lease with the checkpoint of event `number` waiting to be judged."""
        marks = (*self.marks, (number, self.seconds_at(elapsed_s)))[-MARKS_MAX:]
        return replace(self, marks=marks, announced=self.announced or number, newest=number)

    def judged(self, number: int) -> Lease:
        """The lease with the checkpoint of event `number` kept and accepted: what was worked before it counts."""
        seconds = max((worked for mark, worked in self.marks if mark <= number), default=0)
        return replace(
            self,
            announced=0 if number >= self.newest else self.newest,
            marks=tuple(mark for mark in self.marks if mark[0] > number),
            accepted_s=max(self.accepted_s, seconds),
            away=False,
        )
