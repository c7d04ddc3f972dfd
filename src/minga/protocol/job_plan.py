"""What a job was ordered to be, and what an offer says that its money depends on. Values alone, kept in journals.

Does not know: what is done with them (`minga.protocol.job`). Rule: a field, once released, keeps its meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

from minga.core.units import Amount


@dataclass(frozen=True)
class Plan:
    """What a job was ordered to be. `budget` and `per_hour` are token units, times seconds, `deadline` Unix seconds.

    `failures_max`: how often the job's own failure is tried again; `attempts_max`: leases at most; `wait_s`: how long
    to wait for a matching offer; `grace_s`: what a stopped job gets to checkpoint. `max_idle_s`: how long it may make
    no progress; `accept`: only seconds up to a checkpoint that the tenant's check accepted are paid; `probe`: a machine
    must show what was sold; `setup_wait_s`: how long set-up may take; `input_bytes`: what is sent to each provider.
    """

    job: str
    budget: Amount
    per_hour: Amount | None = None
    deadline: int | None = None
    failures_max: int = 0
    attempts_max: int = 32
    wait_s: int = 600
    grace_s: int = 30
    close_wait_s: int = 20
    max_idle_s: int | None = None
    accept: bool = False
    probe: bool = True
    setup_wait_s: int = 1800
    input_bytes: int = 0


@dataclass(frozen=True)
class Deal:
    """What an offer says that money depends on; prices per unit-hour in token units, times in seconds.

    `probe`: its terms promise a speed; `notice_s`: the warning before a reclaim.
    """

    provider: str
    machine: str
    offer: str
    price_per_hour: Amount
    units: int
    quantum: int
    deposit_min: Amount
    seconds_min: int
    seconds_max: int
    close_window: int
    prepaid_quanta: int = 0
    probe: bool = False
    notice_s: int = 0
