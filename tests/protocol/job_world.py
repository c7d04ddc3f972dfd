"""A world for one job: it drives the machine, checks what must always hold after every step, and keeps the journal."""

from __future__ import annotations

from minga.protocol import job as machine
from minga.protocol import job_events as ev
from minga.protocol.job import step
from minga.protocol.job_state import AT_PROVIDER, SEEKING, State, begin, effects, patience
from minga.protocol.pricing import cost_up

JOB = "0x" + "11" * 32
HOUR = 3600


def deal_of(machine_number: int = 1, price: int = 3_600_000, quantum: int = 5, **more) -> ev.Deal:
    """An offer at a thousand token units a second."""
    values = {
        "provider": f"0x{machine_number:040x}", "machine": f"0x{machine_number:064x}", "offer": "0x" + "33" * 32,
        "price_per_hour": price, "units": 1, "quantum": quantum, "deposit_min": 1, "seconds_min": 60,
        "seconds_max": 86400, "close_window": 3600,
    }  # fmt: skip
    return ev.Deal(**(values | more))


def plan_of(budget: int = 100_000, **more) -> ev.Plan:
    return ev.Plan(JOB, budget, **more)


def opened(attempt: int, seconds: int = 3600) -> ev.Opened:
    return ev.Opened(attempt, f"0x{attempt:064x}", f"0x{attempt + 9:064x}", seconds, 1000, "0xaa")


class World:
    """Drives one job; checks the invariants after every step; keeps the journal."""

    def __init__(self, plan: ev.Plan) -> None:
        self.plan = plan
        self.state = begin(plan)
        self.now = 1000
        self.journal: list[tuple[ev.Event, int]] = []
        self.signed: dict[int, int] = {}
        self.deposits: dict[int, int] = {}
        self.spends: list[tuple[int, int]] = []

    def tell(self, *events: ev.Event) -> State:
        for event in events:
            before = self.state
            self.journal.append((event, self.now))
            self.state, wanted = step(before, event, self.now)
            assert wanted == effects(self.state)
            self.check(before)
        return self.state

    def wants(self, kind: type) -> bool:
        return any(isinstance(item, kind) for item in effects(self.state))

    def one(self, kind: type):
        found = [item for item in effects(self.state) if isinstance(item, kind)]
        assert len(found) == 1, (kind, effects(self.state))
        return found[0]

    def check(self, before: State) -> None:
        state = self.state
        assert sum(item.deposit - item.refunded for item in state.leases) <= self.plan.budget
        assert 0 <= state.available <= self.plan.budget
        assert state.spent <= self.plan.budget
        for lease in state.leases:
            self._check_lease(state, lease)
        self._check_slices(before)
        for pay in (item for item in effects(state) if isinstance(item, ev.Pay)):
            assert pay.cumulative <= self.plan.budget
        if self.plan.per_hour is not None:
            recent = sum(amount for at, amount in self.spends if at > self.now - HOUR)
            assert recent <= self.plan.per_hour, "over the hour's cap"
        if state.phase in AT_PROVIDER - {"collecting"}:
            assert patience(state) is not None, "a provider could hold the job without end"
        if state.terminal:
            assert not state.unclosed
            assert not state.unreturned or state.past

    def _check_lease(self, state: State, lease) -> None:
        assert lease.signed <= lease.deposit or lease.status == "closed"
        assert lease.acked <= lease.signed
        before = self.signed.get(lease.attempt, 0)
        assert lease.signed >= before, "a voucher fell"
        if lease.signed > before:
            self.spends.append((self.now, lease.signed - before))
            assert lease.probed or not (self.plan.probe and lease.deal.probe), "paid before the machine showed itself"
        prepaid = lease.cost(lease.deal.quantum * lease.deal.prepaid_quanta)
        assert lease.signed <= max(prepaid, lease.cost(lease.elapsed_s + 1), before)
        if self.plan.accept:
            assert lease.signed <= max(prepaid, lease.cost(lease.accepted_s)), "paid for what was not accepted"
        if lease.limit_s is not None:
            assert lease.signed <= max(prepaid, lease.cost(lease.limit_s), before), "paid after the work was over"
        self.signed[lease.attempt] = lease.signed

    def _check_slices(self, before: State) -> None:
        lease = self.state.lease
        if lease is None:
            return
        grown = lease.deposit - self.deposits.get(lease.attempt, 0)
        if lease.attempt not in self.deposits and self.state.phase == "opening":
            least = max(lease.deal.deposit_min, lease.cost(lease.deal.quantum) + 1, 1)
            hour = cost_up(lease.deal.price_per_hour, lease.deal.units, HOUR)
            assert grown <= max(least, min(self.plan.budget // 4, hour, before.available // 2)), "more than a slice"
        elif grown > 0:
            low = lease.cost(max(2 * lease.deal.quantum, 20))
            least = max(lease.deal.deposit_min, lease.cost(lease.deal.quantum) + 1, low)
            hour = cost_up(lease.deal.price_per_hour, lease.deal.units, HOUR)
            assert grown <= max(least, min(self.plan.budget // 4, hour)), "more than a slice"
        self.deposits[lease.attempt] = lease.deposit

    def replayed(self) -> State:
        events = [(ev.decode(*ev.encode(event)), at) for event, at in self.journal]
        return machine.replay(ev.plan_from_json(ev.plan_to_json(self.plan)), events)


def running(world: World, deal: ev.Deal | None = None, attempt: int = 0) -> None:
    """Bring a world from its order, or from seeking, to `running` on its next lease."""
    if world.state.phase not in SEEKING:
        world.tell(ev.Funded("0x01"))
    world.tell(ev.Found(deal or deal_of(), {}), opened(attempt), ev.Sent(attempt))
    if world.wants(ev.Probe):
        world.tell(ev.Probed(attempt, "as sold"))
    while world.wants(ev.Pay):
        world.tell(ev.Paid(attempt, world.one(ev.Pay).cumulative))
    world.tell(ev.Started(attempt), ev.PhaseSeen(attempt, 1, "starting"), ev.PhaseSeen(attempt, 2, "running"))
    assert world.state.phase == "running"


def closed(world: World, attempt: int, paid: int) -> ev.LeaseClosed:
    lease = next(item for item in world.state.leases if item.attempt == attempt)
    fee = paid // 100
    return ev.LeaseClosed(attempt, paid - fee, fee, 0, lease.deposit - paid, "0xcc")


def work(world: World, seconds: int, attempt: int = 0, every: int = 2) -> None:
    """An honest provider works: claims, vouchers and top-ups follow each other as time goes by."""
    lease = world.state.lease
    assert lease is not None
    begun, number = lease.elapsed_s, lease.seen + 1
    for done in range(every, seconds + 1, every):
        world.now += every
        world.tell(ev.Metered(attempt, number, begun + done, begun + done))
        number += 1
        if world.state.lease is None or world.state.lease.attempt != attempt or world.state.stopping:
            return
        answer(world, attempt)


def answer(world: World, attempt: int = 0) -> None:
    """Take vouchers and top-ups."""
    while world.wants(ev.Pay) or world.wants(ev.TopUp):
        if world.wants(ev.Pay):
            world.tell(ev.Paid(attempt, world.one(ev.Pay).cumulative))
        if world.wants(ev.TopUp):
            world.tell(ev.ToppedUp(attempt, world.one(ev.TopUp).total))
