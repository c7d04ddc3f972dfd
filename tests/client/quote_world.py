"""A seeded world that quotes are judged in: tenants, their jobs, providers that break. Written from what happens, not
from how quotes are computed: exponential clocks, a progress that falls back to its checkpoint, vouchers each half
quantum, machines left and taken again.

Each tenant sees what a real one sees: signed offers, public records (made by the real ledger from leases of others),
and the outcomes of its own jobs, kept as a home keeps them. The truth (rates, paces, durations, how wrong the tenant
guesses) is drawn and never shown.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace

from minga.client.outcomes import Outcome
from minga.client.past import History, Past, Quoted
from minga.client.quotes import base_work, risks_of
from minga.core.crypto import ZERO_ADDRESS
from minga.core.spec import Gpu, Machine, Speed, Terms, UnitSize
from minga.core.units import HOUR
from minga.protocol.lease import Why
from minga.protocol.matching import Ranked, ranked
from minga.protocol.quote import estimates, order
from minga.protocol.quote_model import Limits, reference_of
from minga.protocol.reliability import Fact, Ledger, Rules
from minga.protocol.wire import OfferBundle, OfferFields

GB = 10**9
RULES = Rules.of(6)
HEARTBEAT_S = 15
CARD = Gpu(vendor="nvidia", model="NVIDIA GeForce RTX 4090", memory_bytes=24 * GB)


@dataclass(frozen=True)
class Laws:
    """What a world is like. Times in seconds, rates an hour; `_sigma` are of logarithms."""

    guess_sigma: float = 0.4
    guess_bias_sigma: float = 0.2
    guess_bias: float = 0.0
    again_sigma: float = 0.1
    wild: float = 0.0
    loss_hours: float = 30.0
    reclaim_hours: float = 30.0
    rate_sigma: float = 1.0
    lifetime_shape: float = 1.0
    outage: float = 0.0
    boast_sigma: float = 0.0
    start_s: float = 15.0
    start_drift: float = 1.0
    tight: float = 0.0


@dataclass
class Provider:
    """A machine and the truth about it."""

    item: Ranked
    loss: float
    reclaim: float
    pace: dict[float, float] = field(default_factory=dict)
    gemm: float = 1.0
    memory: float = 1.0

    def pace_of(self, bound: float) -> float:
        """Time here per time on the reference, of a job that memory binds for the share `bound`."""
        return (1 - bound) / self.gemm + bound / self.memory


@dataclass(frozen=True)
class Task:
    """A job as only the world knows it."""

    name: str
    seconds: float
    stated_s: int | None
    checkpoint_s: int
    bound: float


class World:
    """Runs jobs and keeps what their tenants would keep."""

    def __init__(self, seed: int, laws: Laws | None = None) -> None:
        """All of it follows from the seed."""
        self.laws = laws or Laws()
        self.dice = random.Random(seed)
        self.past: list[Past] = []

    def run(self, tenants: int, jobs: int) -> History:
        """The jobs of so many tenants, all of them, as one history."""
        for tenant in range(tenants):
            self._tenant(tenant, jobs)
        return History(self.past)

    # -------------------------------------------------------------------------------------------------- a tenant

    def _tenant(self, number: int, jobs: int) -> None:
        dice, laws = self.dice, self.laws
        ledger = Ledger(RULES)
        market = [self._provider(index, ledger) for index in range(dice.randint(5, 9))]
        risks = risks_of(lambda provider: ledger.record(provider, 10_000_000))
        start = laws.start_s * dice.lognormvariate(0, 0.7)
        bias = laws.guess_bias + dice.gauss(0, laws.guess_bias_sigma)
        known: list[Task] = []
        home = History()
        for turn in range(jobs):
            task = self._task(f"{number}/{turn}", known, bias)
            drifted = start * (laws.start_drift if turn > jobs // 2 else 1.0)
            past = self._job(f"{number}/{turn}", task, market, risks, home, drifted)
            home.past.append(past)
            self.past.append(past)

    def _provider(self, number: int, ledger: Ledger) -> Provider:
        dice, laws = self.dice, self.laws
        name, machine = f"0x{dice.getrandbits(160):040x}", f"0x{dice.getrandbits(256):064x}"
        price = int(400_000 * dice.lognormvariate(0, 0.2))
        gemm, memory = dice.lognormvariate(0, 0.35), dice.lognormvariate(0, 0.35)
        told = dice.lognormvariate(0, laws.boast_sigma) if laws.boast_sigma else 1.0
        speed = Speed(gemm_mops=int(50_000_000 * gemm * told), memory_mbps=int(900_000 * memory * told))
        loss = dice.lognormvariate(-math.log(laws.loss_hours), laws.rate_sigma)
        reclaim = dice.lognormvariate(-math.log(laws.reclaim_hours), laws.rate_sigma) if dice.random() < 0.6 else 0.0
        item = ranked(bundle_of(name, machine, price, speed, dice.choice((0, 60, 120))), 1, None)
        self._history_of(name, price, loss, reclaim, ledger)
        return Provider(item, loss, reclaim, gemm=gemm, memory=memory)

    def _history_of(self, name: str, price: int, loss: float, reclaim: float, ledger: Ledger) -> None:
        """Leases of other tenants, of a few hours each, that broke as the truth has it; some providers are new."""
        dice = self.dice
        for number in range(int(dice.expovariate(1 / 20)) if dice.random() < 0.8 else 0):
            wanted, broke = dice.expovariate(1 / 3), dice.expovariate(loss + reclaim)
            hours = min(wanted, broke)
            why = Why.DONE
            if broke < wanted:
                why = Why.UNREACHABLE if dice.random() < loss / (loss + reclaim) else Why.SHUTTING_DOWN
            worth = int(price * hours)
            tenant = f"0x{dice.getrandbits(160):040x}"
            own = why if why != Why.UNREACHABLE else None
            ledger.end(
                Fact(f"{name}/{number}", tenant, name, price, worth, worth // 100, 9_000_000, 9_900_000, own, why)
            )

    def _task(self, name: str, known: list[Task], bias: float) -> Task:
        dice, laws = self.dice, self.laws
        if known and dice.random() < 0.4:
            return replace(dice.choice(known))
        seconds = min(max(5400 * dice.lognormvariate(0, 1.2), 120), 48 * HOUR)
        error = dice.gauss(bias, laws.guess_sigma)
        if laws.wild and dice.random() < laws.wild:
            error += dice.choice((-1, 1)) * dice.expovariate(1.0)
        stated = max(1, round(seconds / math.exp(error)))
        checkpoint = dice.choice((120, 300, 600, 1800)) if dice.random() < 0.7 else 0
        made = Task(name, seconds, stated, checkpoint, dice.random())
        known.append(made)
        return made

    # ----------------------------------------------------------------------------------------------------- a job

    def _job(self, job: str, task: Task, market: list[Provider], risks, home: History, start_s: float) -> Past:
        matches = [provider.item for provider in market]
        base = base_work(bool(task.checkpoint_s), task.checkpoint_s or None)
        work = home.work(task.name, task.stated_s, replace(base, reference=reference_of(matches)))
        ordered = order(matches, work, risks)
        found = estimates(ordered, work, home.habits(task.name), risks, Limits())[0]
        assert found.cost_p90 is not None
        tight = self.dice.random() < self.laws.tight
        budget = int(found.cost_p90 * (self.dice.uniform(0.5, 1.0) if tight else self.dice.uniform(1.5, 20)))
        quoted = Quoted(
            task.name, task.stated_s, found.item.offer_hash, work.checkpoint_s, str(budget), None, str(found.cost_p50),
            str(found.cost_p90), found.finish_p50_s, found.finish_p90_s,
        )  # fmt: skip
        truth = {provider.item.offer_hash: provider for provider in market}
        run = Run(self, task, [truth[item.offer_hash] for item in ordered], budget, start_s, work.grace_s)
        return Past(job, quoted, run.outcome())


class Run:
    """One job, minute by minute of its life."""

    def __init__(self, world: World, task: Task, ordered: list[Provider], budget: int, start_s: float, grace_s: int):
        self.dice, self.laws, self.task = world.dice, world.laws, task
        self.ordered, self.budget, self.start_s, self.grace_s = ordered, budget, start_s, grace_s
        self.wanted = task.seconds * self.dice.lognormvariate(0, self.laws.again_sigma)
        self.done = 0.0
        self.clock = 0.0
        self.cost = 0
        self.leases: list[tuple[Provider, float]] = []
        self.starts: list[int] = []
        self.left: dict[int, float] = {}

    def outcome(self) -> Outcome:
        """Run to the end."""
        phase = "failed"
        while len(self.leases) < 200:
            provider = self._choose()
            before = self.clock
            self.clock += self._start()
            self.starts.append(round(self.clock - before))
            if not self._lease(provider):
                phase = "exhausted"
                break
            if self.done >= self.wanted:
                phase = "done"
                break
        end = 4 * self.dice.lognormvariate(0, 0.5)
        self.clock += end
        return self._told(phase, end)

    def _told(self, phase: str, end: float) -> Outcome:
        worked = [round(seconds) for _, seconds in self.leases]
        main = max(self.leases, key=lambda lease: lease[1])[0].item.bundle.terms.speed
        assert main is not None
        half = self.task.checkpoint_s // 2
        twice = sum(min(seconds, half) if self.task.checkpoint_s else seconds for seconds in worked[:-1])
        return Outcome(
            phase, None, str(self.cost), round(self.clock), sum(worked), max(0, sum(worked) - twice),
            tuple(self.starts), round(end), len(worked), main.gemm_mops, main.memory_mbps,
        )  # fmt: skip

    def _choose(self) -> Provider:
        """The best that was not left for ever or for now; waiting until one can be taken again."""
        while True:
            for index, provider in enumerate(self.ordered):
                if self.clock >= self.left.get(index, 0.0):
                    return provider
            self.clock = min(self.left.values())

    def _start(self) -> float:
        seconds = self.start_s * self.dice.lognormvariate(0, 0.4)
        return seconds * (5 if self.dice.random() < 0.03 else 1)

    def _breaks(self, rate: float) -> float:
        """Hours until a clock of this rate rings; young leases break more often where the shape is under one."""
        if rate <= 0:
            return math.inf
        if self.laws.lifetime_shape == 1.0:
            return self.dice.expovariate(rate)
        shape = self.laws.lifetime_shape
        return self.dice.weibullvariate(1 / rate / math.gamma(1 + 1 / shape), shape)

    def _lease(self, provider: Provider) -> bool:
        """Work until it is done, breaks, or the budget is spent (False)."""
        pace = provider.pace_of(self.task.bound)
        dies, reclaimed = (HOUR * self._breaks(rate) for rate in (provider.loss, provider.reclaim))
        if self.laws.outage and self.dice.random() < self.laws.outage:
            dies = min(dies, self.dice.uniform(0, 2 * HOUR))
        needs = (self.wanted - self.done) * pace
        affords = (self.budget - self.cost) * HOUR / provider.item.price_per_hour
        seconds = min(needs, dies, reclaimed, affords)
        self.clock += seconds
        self.leases.append((provider, seconds))
        if seconds == needs:
            self._pay(provider, seconds)
            self.done = self.wanted
            return True
        if seconds == affords:
            self.cost = self.budget
            return False
        warned = seconds == reclaimed and bool(self.task.checkpoint_s)
        warned = warned and provider.item.bundle.terms.notice_s >= self.grace_s
        if warned:
            self.done += seconds / pace
        elif self.task.checkpoint_s:
            self.done += seconds // self.task.checkpoint_s * self.task.checkpoint_s / pace
        else:
            self.done = 0.0
        half = provider.item.quantum / 2
        self._pay(provider, seconds if seconds == reclaimed else seconds // half * half)
        gone = seconds == dies
        self.clock += HEARTBEAT_S if gone else 0
        index = self.ordered.index(provider)
        self.left[index] = self.clock + (24 * HOUR if gone else 60)
        if gone and self.laws.outage and self.dice.random() < 0.5:
            # What took one machine took its neighbour.
            self.left[(index + 1) % len(self.ordered)] = self.clock + HOUR
        return True

    def _pay(self, provider: Provider, seconds: float) -> None:
        self.cost = min(self.budget, self.cost + int(provider.item.price_per_hour * int(seconds) / HOUR))


def bundle_of(provider: str, node: str, price: int, speed: Speed | None, notice_s: int) -> OfferBundle:
    """A posted offer; its signatures are of no meaning here."""
    machine = Machine(
        node=node, arch="x86_64", cpu="cpu", cpus=16, memory_bytes=64 * GB, disk_bytes=500 * GB, gpus=[CARD], os="linux"
    )
    unit = UnitSize(cpu_milli=8000, memory_bytes=32 * GB, disk_bytes=200 * GB, gpus=1)
    terms = Terms(transport_key="aa" * 32, unit=unit, sandbox="bubblewrap", notice_s=notice_s, speed=speed)
    offer = OfferFields(
        provider=provider, machine=machine.hash32(), terms=terms.hash32(), price_per_hour=str(price), units=1,
        deposit_min="1", quantum=60, seconds_min=60, seconds_max=7 * 86400, close_window=3600, arbiter=ZERO_ADDRESS,
        hold_bps=0, hold_seconds=0, valid_until=2**33, epoch=0, salt="0x" + "00" * 32,
    )  # fmt: skip
    signature = "0x" + "00" * 65
    return OfferBundle(
        offer=offer, signature=signature, agent=provider, machine=machine, terms=terms, url="http://127.0.0.1:1",
        posted_at=1000, url_signature=signature,
    )  # fmt: skip
