"""What a job's runner must do: the effects of `minga.protocol.job`.

Frozen values; equal effects are the same deed, which is done once. `attempt` is the number of a lease of the job,
from 0. Does not know: how they are done (`minga.client.effects`), nor what comes of them (`minga.protocol.job_events`).
"""

from __future__ import annotations

from dataclasses import dataclass

from minga.core.units import Amount


@dataclass(frozen=True)
class Effect:
    """Base of everything that a runner does for a job."""


@dataclass(frozen=True)
class Fund(Effect):
    """Move the budget to the job wallet."""

    amount: Amount


@dataclass(frozen=True)
class Find(Effect):
    """Look for an offer that `available` token units can take, from `not_before` (Unix seconds) on."""

    turn: int
    tries: int
    available: Amount
    not_before: int


@dataclass(frozen=True)
class Open(Effect):
    """Open a lease on the offer found."""

    attempt: int
    deposit: Amount
    seconds: int


@dataclass(frozen=True)
class Send(Effect):
    """Log in, send the manifest and what is missing."""

    attempt: int


@dataclass(frozen=True)
class Probe(Effect):
    """Measure, before the start, whether the machine is what was sold: `Probed`, or `Lost` as "under-spec"."""

    attempt: int


@dataclass(frozen=True)
class Start(Effect):
    """Ask the provider to start."""

    attempt: int


@dataclass(frozen=True)
class Watch(Effect):
    """Follow the lease's events and log; fetch its checkpoints; say so when the provider is gone."""

    attempt: int


@dataclass(frozen=True)
class Duty(Effect):
    """Measure now and then, beside the running job; nothing is told but `Lost` as "under-spec"."""

    attempt: int


@dataclass(frozen=True)
class Pay(Effect):
    """Sign and send a voucher. The amount was journaled before this effect exists."""

    attempt: int
    cumulative: Amount


@dataclass(frozen=True)
class TopUp(Effect):
    """Add `amount` to the deposit, making it `total`."""

    attempt: int
    amount: Amount
    total: Amount


@dataclass(frozen=True)
class Stop(Effect):
    """Ask the provider to stop the job with `grace_s` seconds to checkpoint."""

    attempt: int
    reason: str
    grace_s: int


@dataclass(frozen=True)
class Gather(Effect):
    """Fetch and verify artifacts, the last checkpoint and the rest of the log."""

    attempt: int


@dataclass(frozen=True)
class AskClose(Effect):
    """Ask the provider to close, and see it on the chain."""

    attempt: int


@dataclass(frozen=True)
class StartClose(Effect):
    """Begin to close by ourselves; `why` is the contract's code."""

    attempt: int
    why: int


@dataclass(frozen=True)
class FinishClose(Effect):
    """From `finish_at` (chain time) on, finish the close; or see that the provider did."""

    attempt: int
    finish_at: int


@dataclass(frozen=True)
class AwaitHold(Effect):
    """See on the chain what became of the part of the pay that was held back."""

    attempt: int


@dataclass(frozen=True)
class Return(Effect):
    """Send all that the job wallet holds back to the tenant."""

    turn: int


@dataclass(frozen=True)
class Wake(Effect):
    """Say `Ticked` at `at` (Unix seconds)."""

    at: int


@dataclass(frozen=True)
class Patience(Effect):
    """Say `Overdue` once `seconds` of our own monotonic clock have gone by; time that this machine slept is not."""

    attempt: int
    turn: int
    seconds: int


__all__ = [
    "AskClose",
    "AwaitHold",
    "Duty",
    "Effect",
    "Find",
    "FinishClose",
    "Fund",
    "Gather",
    "Open",
    "Patience",
    "Pay",
    "Probe",
    "Return",
    "Send",
    "Start",
    "StartClose",
    "Stop",
    "TopUp",
    "Wake",
    "Watch",
]  # fmt: skip
