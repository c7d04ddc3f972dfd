"""A world from a seed: who is in it, what goes wrong when, and how it ended.

Up to twenty agents on a chain, one or two boards between them. For some minutes everything that the seed's faults
allow goes wrong; then the faults stop, and all that is honest must end with its money settled, close windows included.
The same seed and shape give the same history, which `Outcome.trace` is the hash of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

from minga.core.codec import SAFE_INTEGER
from minga.core.crypto import Hash32, keccak, to_hex
from minga.core.spec import Speed, Terms, UnitSize
from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.protocol.lease import Phase
from minga.sim import swift
from minga.sim.actors import ACTORS
from minga.sim.cast import Actor, Crowd
from minga.sim.chain import BLOCK_S, SimChain
from minga.sim.kernel import EPOCH, SECOND, Kernel
from minga.sim.keys import Ring
from minga.sim.nodes import PLAIN, Node, Wires
from minga.sim.provider import Ask, Posted, Provider
from minga.sim.shape import Outcome, Shape
from minga.sim.tenant import Runner
from minga.sim.verdict import judge
from minga.sim.watch import Watch
from minga.sim.weather import DEPTH_MAX, Weather, draw
from minga.sim.work import Work

HORIZON_S = 8 * 3600
LOOK_S = 5
REAL_KEYS_EVERY = 64


class Board:
    """A cache of offers that anyone may run; the honest one shows what its providers offer now."""

    def __init__(self, node: Node, providers: list[Provider]) -> None:
        """Knows all `providers`."""
        self.node = node
        self.providers = providers

    async def offers(self) -> list[Posted]:
        """All that it knows."""
        return [posted for provider in self.providers if provider.node.up for posted in provider.offers()]


class World:
    """See the module."""

    def __init__(self, shape: Shape) -> None:
        """Built, and not begun."""
        self.shape = shape
        self.kernel = Kernel(shape.seed)
        self.dice: Random = self.kernel.dice
        self.faults = PLAIN if shape.plain else draw(self.dice)
        real = not shape.plain and shape.seed % REAL_KEYS_EVERY == 0
        self.ring = Ring(shape.seed, real)
        deep = self.dice.choice((DEPTH_MAX, DEPTH_MAX + 2)) if self.faults.reorgs else self.dice.choice((0, 1, 3, 8))
        self.chain = SimChain(self.kernel, 0 if shape.plain else deep)
        self.wires = Wires(self.kernel, self.faults)
        self.watch = Watch(self.kernel, self.chain)
        self.chain.observer = self.watch.block
        self.healed = False
        self.works: dict[str, Work] = {}
        self.nodes: list[Node] = []
        self.boards: list[Board] = []
        self.crowd = Crowd(self)
        self.actors = self._actors()
        self._people()

    # ---------------------------------------------------------------------------------------------------------- making

    def _actors(self) -> list[Actor]:
        shape = self.shape
        if shape.actor:
            return [ACTORS[shape.actor]]
        if shape.plain:
            return []
        names = list(ACTORS)
        return [ACTORS[self.dice.choice(names)] for _ in range(self.dice.choice((0, 1, 1, 2, 3)))]

    def _people(self) -> None:
        shape, dice = self.shape, self.dice
        room = max(3, shape.agents) - len(self.actors) - 1
        providers = max(1, room * 2 // 5) if shape.plain else dice.randrange(1, max(2, room // 2) + 1)
        jobs = room - providers if shape.plain else dice.randrange(1, max(2, room - providers) + 1)
        for number in range(providers):
            self.provider(f"p{number}", Provider, self.ask())
        for number in range(1 if shape.plain else dice.randrange(1, 3)):
            self.boards.append(Board(self.node(f"b{number}"), self.watch.providers))
        for number, actor in enumerate(self.actors):
            actor.enter(self.crowd, f"x{number}-{actor.name}")
        for number in range(jobs):
            self.job(f"t{number}")

    def node(self, name: str) -> Node:
        """A machine of the world."""
        node = Node(self.kernel, name)
        self.nodes.append(node)
        return node

    def ask(self) -> Ask:
        """What an honest provider may ask for."""
        dice = self.dice
        if self.shape.plain:
            return Ask(dice.randrange(1, 30) * 100_000, 60, units=8)
        return Ask(
            dice.choice((0, 1, 3_600, 100_000, 360_000, 999_999, 3_000_000)) if dice.random() < 0.9 else 1 << 70,
            dice.choice((5, 10, 20, 30, 45, 60)), dice.randrange(1, 3), dice.randrange(2), dice.choice((0, 5, 30)),
            3600, dice.choice((0, 0, 1000)),
        )  # fmt: skip

    def provider(self, name: str, kind: type[Provider], ask: Ask) -> Provider:
        """A provider of the world."""
        unit = UnitSize(cpu_milli=1000, memory_bytes=1 << 30, disk_bytes=1 << 30)
        terms = Terms(
            transport_key="00" * 32, unit=unit, sandbox="process", prepaid_quanta=1 if ask.prepaid_quanta else 0,
            notice_s=ask.notice_s, speed=Speed(gemm_mops=ask.speed) if ask.speed else None,
        )  # fmt: skip
        key = self.ring.key(f"{name}/provider")
        made = kind(self.node(name), self.chain, key, ask, terms, self.works, self.watch)
        self.watch.providers.append(made)
        self.chain.mint(key.address, 1)
        return made

    def work(self, job: Hash32) -> Work:
        """What a job does."""
        dice = self.dice
        if self.shape.plain:
            return Work(job, dice.randrange(10, 50), 60)
        failing = dice.randrange(1, 60) if dice.random() < 0.1 else None
        idling = dice.randrange(1, 40) if failing is None and dice.random() < 0.05 else None
        return Work(job, dice.randrange(5, 240), dice.choice((4, 8, 15, 30)), dice.choice((0, 1, 3)), failing, idling)

    def plan(self, job: Hash32, dear: int, work: Work) -> ev.Plan:
        """What its tenant ordered; `dear` is the dearest price of the market."""
        if self.shape.plain:
            return ev.Plan(job, Amount(dear * 600 // 3600 * 8))
        dice, needs = self.dice, {actor.needs for actor in self.actors}
        budget = max(1, dear * max(work.seconds, 60) // 3600 * dice.choice((1, 2, 5, 12)))
        accept = "accept" in needs or dice.random() < 0.2
        timed = "deadline" in needs or dice.random() < 0.1
        return ev.Plan(
            job, Amount(min(budget, SAFE_INTEGER)), failures_max=dice.randrange(2), grace_s=dice.choice((0, 5, 30)),
            wait_s=dice.choice((60, 300)), max_idle_s=60 if work.idles_at is not None or dice.random() < 0.1 else None,
            accept=accept, setup_wait_s=120, deadline=EPOCH + self.shape.minutes * 60 + 300 if timed else None,
        )  # fmt: skip

    def job(self, name: str) -> Runner:
        """An honest tenant with one job."""
        job = Hash32(to_hex(keccak(f"{self.shape.seed}/{name}".encode())))
        work = self.works[job] = self.work(job)
        prices = [provider.ask.price_per_hour for provider in self.watch.providers]
        plan = self.plan(job, max((price for price in prices if price < 1 << 60), default=1), work)
        boards = [(board.node, board.offers) for board in self.boards]
        runner = Runner(self.node(name), self.chain, self.wires, self.ring, plan, work, self.watch, boards)
        self.watch.runners.append(runner)
        self.watch.funded[runner.main.address] = plan.budget
        self.chain.mint(runner.main.address, plan.budget)
        return runner

    # --------------------------------------------------------------------------------------------------------- running

    def run(self) -> Outcome:
        """From the beginning to the verdict."""
        with self.ring.installed(), swift.installed(not self.ring.real):
            self._begin()
            self.kernel.run(self.shape.minutes * 60 * SECOND)
            if not self.kernel.halted:
                self._heal()
                self._until_settled()
            if not self.kernel.halted:
                judge(self.watch)
        for node in self.nodes:
            for task in list(node.tasks):
                task.cancel()
        return self._outcome()

    def _begin(self) -> None:
        kernel, dice, faults = self.kernel, self.dice, self.faults
        for node in self.nodes:
            node.crash_rate, node.crashes_left, node.down_s = faults.crash, 6, faults.down_s
            if kernel.chance(0.5 if faults.rpc_lies else 0.0):
                node.lies = faults.rpc_lies
            if kernel.chance(0.5 if faults.rpc_lag else 0.0):
                node.lag = faults.rpc_lag
        for provider in self.watch.providers:
            provider.node.do(provider.start)
        for runner in self.watch.runners:
            self._order(runner, dice.uniform(0, 2.0 if self.shape.plain else 60.0))
        Weather(self)

    def _order(self, runner: Runner, after_s: float) -> None:
        def order() -> None:
            runner.node.start = runner.start
            if runner.node.up:
                runner.node.do(runner.start)

        self.kernel.after(after_s, order)

    def _heal(self) -> None:
        self.kernel.note("healed")
        self.healed = True
        self.wires.faults = replace(PLAIN)
        for node in self.nodes:
            node.crash_rate, node.cut_until, node.full_until, node.skew, node.lag, node.lies = 0.0, 0, 0, 0, 0, 0.0

    def _over(self) -> bool:
        if any(runner.honest and not (runner.node.up and runner.state.settled) for runner in self.watch.runners):
            return False
        accounts, leases = self.chain.market.accounts, self.chain.market.leases
        honest = {provider.key.address for provider in self.watch.providers if provider.honest}
        if any(a.phase is not Phase.CLOSED and leases[name].provider in honest for name, a in accounts.items()):
            return False
        return all(
            run.state.phase == "closed"
            for provider in self.watch.providers
            if provider.honest
            for run in provider.leases.values()
        ) and all(provider.node.up for provider in self.watch.providers if provider.honest)

    def _until_settled(self) -> None:
        while not self._over() and self.kernel.seconds < HORIZON_S and not self.kernel.halted:
            self.kernel.run(self.kernel.now + LOOK_S * SECOND)
        # What was done is only final once it is at depth.
        self.kernel.run(self.kernel.now + (self.chain.confirmations + 2) * BLOCK_S * SECOND)

    def _outcome(self) -> Outcome:
        honest = [runner for runner in self.watch.runners if runner.honest]
        return Outcome(
            self.shape.seed, self.kernel.trace, self.watch.violation, list(self.kernel.last), len(honest),
            Counter(runner.state.phase for runner in honest), sum(runner.state.attempt for runner in honest),
            tuple(actor.name for actor in self.actors), self.kernel.events, self.watch.steps, self.watch.checks,
            self.wires.messages, self.chain.transactions, sum(node.lives for node in self.nodes),
            int(self.kernel.seconds),
        )  # fmt: skip


def run_world(shape: Shape, sink: Callable[[str], None] | None = None) -> Outcome:
    """Run the world of `shape`; `sink` is given every line of its history."""
    world = World(shape)
    world.kernel.sink = sink
    return world.run()


__all__ = ["Outcome", "Shape", "World", "run_world"]
