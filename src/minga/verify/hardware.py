"""Is it the machine that was sold? Sizes of challenges, the judge, the public score.

Knows: promises (`Speed`), rounds that a verifier timed by its own clock, and what counts as a lie. Does not know:
networks, devices, where the times came from. Rule: noise only slows, and a machine cannot be faster than it is; so the
best round speaks for it, and one is found under-spec only when no round was good enough.

| quantity    | passes from this share of its promise | because                                            |
|-------------|---------------------------------------|----------------------------------------------------|
| gemm_mops   | 75 % (45 % beside the tenant's job)   | one unit posing as two shows half of 1/0.7: 71 %   |
| memory_mbps | 50 % (25 %)                           | the rate at which fresh memory is filled           |
| disk_mbps   | 20 % (10 %)                           | synced writes vary most                            |
| link_mbps   | 50 % (25 %)                           | the tenant's own line is in it                     |

A promise is 70 % of what the owner's machine measured with all its units at work. Where tenant and provider are the
same machine (loopback), its CPUs are shared with whoever else runs there: then, if the verifier itself saw that no CPU
was idle, compute is judged per CPU second, down to a floor of 5 % by the wall clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from minga.core.spec import Speed, Terms, UnitSize
from minga.verify import hardware_math as hm

PROMISE_PERMILLE = 700
PASS_PERMILLE: Mapping[str, int] = {"gemm_mops": 750, "memory_mbps": 500, "disk_mbps": 200, "link_mbps": 500}
SHARED_PERMILLE: Mapping[str, int] = {"gemm_mops": 450, "memory_mbps": 250, "disk_mbps": 100, "link_mbps": 250}
"""While the tenant's own job runs beside the probe, elsewhere: a fair scheduler gives the probe half."""
FLOOR_PERMILLE = 50
CREDIT_PERMILLE = 250
"""At most this share of a round's expected time is forgiven for distance: a false round trip gains no more."""
WALK_SECONDS = 0.6
WALK_STEPS = 16384
WALK_NEAR_FACTOR = 4
TRIP_SECONDS_MAX = 1.0
"""A longer way there and back is no way to judge a machine; the far side of the Earth by satellite is at 0.7 s."""
COLUMNS_MAX = 4096
"""Of an answer: 8192 × 4096 residues are 16 MiB to send and to hash."""
ROUND_SECONDS = 0.08
FILL_SECONDS = 0.2
DISK_SECONDS = 0.06
RETRY_UNTIL_SECONDS = 5.0
"""Slow rounds are repeated for so long, since noise only slows."""
DUTY_SECONDS = 0.05
LINK_AREA = 24_000_000
"""Σ n² over the links that a verifier checks in about 0.2 s of plain Python."""
LINK_AREA_NUMPY = 2_500_000_000

Quantity = Literal["gemm_mops", "memory_mbps", "disk_mbps", "link_mbps"]


@dataclass(frozen=True, slots=True)
class Round:
    """One timed challenge whose answer was committed to.

    `amount` is million multiply-adds or MB; `wall_s` the verifier's time from request to commitment; `rtt_s` the
    shortest round trip that it saw; `cpu_s` CPU time that the prover says it used (0: it does not say), on `threads`
    threads; `idle_cpus` how many CPUs of the verifier's own machine stood idle meanwhile, on average.
    """

    quantity: Quantity
    amount: float
    wall_s: float
    rtt_s: float = 0.0
    cpu_s: float = 0.0
    threads: int = 1
    idle_cpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe found. `shares` is per mille of each promise; `code` is empty or `under-spec`, `fact` says why."""

    ok: bool
    code: Literal["", "under-spec"] = ""
    fact: str = ""
    measured: Speed = field(default_factory=Speed)
    shares: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setting:
    """Under which circumstances rounds are judged.

    `near`: provider and tenant are one machine. `beside_job`: the tenant's job was running.
    """

    near: bool = False
    beside_job: bool = False


def promised(terms: Terms, units: int) -> Speed:
    """What `units` units promise together; all 0 when nothing is promised."""
    speed = terms.speed or Speed()
    return Speed(**{name: getattr(speed, name) * units for name in Speed.model_fields})


def promise(measured: Speed) -> Speed:
    """What an owner may promise who measured this."""
    return Speed(**{name: getattr(measured, name) * PROMISE_PERMILLE // 1000 for name in Speed.model_fields})


def rate(round_: Round, promise_: int, setting: Setting) -> float:
    """Amount per second that a round speaks for; see the module's docstring."""
    credit = min(round_.rtt_s, round_.amount / promise_ * CREDIT_PERMILLE / 1000) if promise_ else round_.rtt_s
    wall = round_.amount / max(round_.wall_s - credit, round_.wall_s * (1 - CREDIT_PERMILLE / 1000), 1e-6)
    if not setting.near or round_.cpu_s <= 0:
        return wall
    used = round_.cpu_s / max(round_.wall_s, 1e-6)
    crowded = used + round_.idle_cpus < 0.75 * round_.threads
    if not crowded or wall * 1000 < FLOOR_PERMILLE * promise_:
        return wall
    return max(wall, min(round_.amount * round_.threads / round_.cpu_s, float(promise_)))


def joined(rounds: Sequence[Round], wall_s: float) -> Round:
    """What several units did at the same moment, as one round: all of their work, until the last had answered.

    Not the sum of their rates: one machine that serves one unit after the other would then count twice for the first.
    """
    return Round(
        rounds[0].quantity,
        sum(found.amount for found in rounds),
        wall_s,
        max(found.rtt_s for found in rounds),
        sum(found.cpu_s for found in rounds) if all(found.cpu_s for found in rounds) else 0.0,
        sum(found.threads for found in rounds),
        min(found.idle_cpus for found in rounds),
    )


def needed_permille(quantity: str, setting: Setting) -> int:
    """From which share of its promise a quantity passes."""
    if setting.near:
        return (SHARED_PERMILLE if quantity == "disk_mbps" else PASS_PERMILLE)[quantity]
    return (SHARED_PERMILLE if setting.beside_job else PASS_PERMILLE)[quantity]


def is_enough(rounds: Iterable[Round], quantity: str, promise_: int, setting: Setting) -> bool:
    """Whether one of the rounds shows enough of a quantity."""
    needed = promise_ * needed_permille(quantity, setting) / 1000
    return any(rate(found, promise_, setting) >= needed for found in rounds if found.quantity == quantity)


def judge(promises: Speed, rounds: Iterable[Round], setting: Setting, wrong: str = "") -> Verdict:
    """The verdict over the rounds of one probe, or of a window of probes.

    Args:
        promises: of all units together; 0 promises nothing.
        rounds: everything that was timed; a promised quantity that none of them measured passes.
        setting: see `Setting`.
        wrong: what was wrong with an answer, if anything was: that alone condemns.
    """
    held = list(rounds)
    best: dict[str, float] = {}
    for found in held:
        value = rate(found, getattr(promises, found.quantity), setting)
        best[found.quantity] = max(best.get(found.quantity, 0.0), value)
    measured = Speed(**{name: int(value) for name, value in best.items()})
    shares = {
        name: int(1000 * value / getattr(promises, name)) for name, value in best.items() if getattr(promises, name)
    }
    if wrong:
        return Verdict(False, "under-spec", wrong, measured, shares)
    for name, share in shares.items():
        if share < (needed := needed_permille(name, setting)):
            unit = "million multiply-adds/s" if name == "gemm_mops" else "MB/s"
            fact = (
                f"{name}: {getattr(measured, name)} {unit} measured, {getattr(promises, name)} promised; "
                f"{share / 10:.0f} % is under {needed / 10:.0f} %"
            )
            return Verdict(False, "under-spec", fact, measured, shares)
    return Verdict(True, "", "", measured, shares)


def threads_of(size: UnitSize, units: int) -> int:
    """How many CPU threads a probe of so many units uses."""
    return max(1, -(-size.cpu_milli * units // 1000))


def walk_limit(setting: Setting, size: UnitSize | None = None) -> float:
    """Seconds that a walk may take: with half of the memory missing it takes many times longer (docs/probe.md).

    An accelerator is read by its host word by word, 20 to 40 µs each, and gets as much time as a crowded machine.
    """
    crowded = setting.near or setting.beside_job or (size is not None and size.gpus)
    return WALK_SECONDS * (WALK_NEAR_FACTOR if crowded else 1)


def columns_of(n: int) -> int:
    """m of a chain with an n × n matrix."""
    return min(n, COLUMNS_MAX)


def gemm_amount(n: int, links: int) -> float:
    """Million multiply-adds of a chain."""
    return n**2 * columns_of(n) * links / 1e6


def gemm_shape(mops: int, seconds: float, has_numpy: bool) -> tuple[int, int]:
    """(n, links) of a chain that takes `seconds` at `mops`, as far as the verifier can check it in time."""
    n = next((size for size, limit in _SIDES if mops < limit), 8192)
    links = max(1, round(mops * seconds / gemm_amount(n, 1)))
    return n, min(links, 4096, max(1, (LINK_AREA_NUMPY if has_numpy else LINK_AREA) // n**2))


_SIDES = ((64, 50), (128, 500), (256, 12_000), (512, 150_000), (1024, 1_000_000), (2048, 8_000_000), (4096, 60_000_000))


def fill_chunks(size: UnitSize, units: int, mbps: int, seconds: float) -> int:
    """Chunks that are filled in `seconds` at `mbps`; at most half of the memory that was sold."""
    most = size.memory_bytes * units // 2 // hm.CHUNK_BYTES
    return max(1, min(most, round(mbps * 1e6 * seconds / hm.CHUNK_BYTES)))


def disk_chunks(size: UnitSize, units: int, mbps: int, seconds: float) -> int:
    """Chunks that are written and read in `seconds`; at most a quarter of the disk that was sold."""
    most = size.disk_bytes * units // 4 // hm.CHUNK_BYTES
    return max(0, min(most, max(1, round(mbps * 1e6 * seconds / hm.CHUNK_BYTES / 2))))


def score(speed: Speed) -> int:
    """The public score: the geometric mean of compute and memory against a documented reference, times 1000.

    Reference: 50,000 million multiply-adds/s and 1,000 MB/s, about one core of a server of 2024. 0 if either is 0.
    """
    return int(1000 * ((speed.gemm_mops / 50_000) * (speed.memory_mbps / 1_000)) ** 0.5)


def work_per_dollar(speed: Speed, price_per_hour_micros: int) -> int | None:
    """10¹² exact multiply-adds that a dollar buys, the price in millionths of a dollar an hour; None: it is free."""
    if price_per_hour_micros <= 0:
        return None
    return speed.gemm_mops * 3600 // price_per_hour_micros
