"""A world of one provider, one job and one stranger, in which a test does what it likes.

`Stage.do` runs a call of the stranger to its end and gives its result, or raises what it raised. Rule: what a test
says of the provider or of the job is an argument; everything else is a plain world's.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from minga.core.crypto import Hash32
from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.sim.kernel import SECOND
from minga.sim.provider import Ask, Provider
from minga.sim.shape import Shape
from minga.sim.stranger import Deal, Rogue
from minga.sim.tenant import Runner
from minga.sim.work import Work
from minga.sim.world import World

PRICE = 3_600_000
"""Token units per unit-hour: a thousand a second."""

USUAL = Ask(PRICE, 20, units=4)


class Small(World):
    """Three agents; `asked`, `working` and `planned` are what the test says."""

    def __init__(self, seed: int, ask: Ask, kind: type[Provider], work: dict[str, Any], plan: dict[str, Any]) -> None:
        self.asked, self.kind, self.working, self.planned = ask, kind, work, plan
        super().__init__(Shape(seed, agents=3, plain=True))

    def ask(self) -> Ask:
        """As the test says."""
        return self.asked

    def provider(self, name: str, kind: type[Provider], ask: Ask) -> Provider:
        """Of the class that the test says."""
        return super().provider(name, self.kind if name == "p0" else kind, ask)

    def work(self, job: Hash32) -> Work:
        """As the test says."""
        return Work(job, **{"seconds": 50, "every_s": 15, **self.working})

    def plan(self, job: Hash32, dear: int, work: Work) -> ev.Plan:
        """As the test says."""
        return ev.Plan(job, Amount(self.planned.get("budget", 1_000_000)), **{
            name: value for name, value in self.planned.items() if name != "budget"
        })  # fmt: skip


class Client(Rogue):
    """A stranger that does only what it is told."""

    async def play(self) -> None:
        await self.sleep(0)


class Stage:
    """See the module."""

    def __init__(
        self, seed: int = 1, ask: Ask = USUAL, kind: type[Provider] = Provider, work: dict[str, Any] | None = None,
        **plan: Any,
    ) -> None:  # fmt: skip
        self.world = Small(seed, ask, kind, work or {}, plan)
        self.kernel, self.chain, self.watch = self.world.kernel, self.world.chain, self.world.watch
        self.provider: Provider = self.world.watch.providers[0]
        self.runner: Runner = self.world.watch.runners[0]
        self.client = Client(self.world.crowd, "c0")
        self.provider.node.do(self.provider.start)

    def run(self, seconds: float) -> None:
        """Let time go by."""
        with self.world.ring.installed():
            self.kernel.run(self.kernel.now + int(seconds * SECOND))
        assert not self.watch.violation, self.watch.violation

    def do(self, what: Coroutine[Any, Any, Any], seconds: float = 60.0) -> Any:
        """The result of what the stranger does."""
        found: list[Any] = []

        async def go() -> None:
            try:
                found.append((await what, None))
            except Exception as error:  # it is raised again below
                found.append((None, error))

        self.client.node.spawn(go())
        until = self.kernel.now + int(seconds * SECOND)
        with self.world.ring.installed():
            while not found and self.kernel.now < until:
                self.kernel.run(self.kernel.now + SECOND // 20)
        assert found, "it did not end"
        assert not self.watch.violation, self.watch.violation
        value, error = found[0]
        if error is not None:
            raise error
        return value

    def opened(self) -> Deal:
        """A lease of the stranger, logged in."""
        deal: Deal = self.do(self.client.open())
        self.do(self.client.enter(deal))
        assert deal.token
        return deal

    def ready(self) -> Deal:
        """The same, with its manifest."""
        deal = self.opened()
        self.ask(deal, "set_manifest", self.client.manifest(deal))
        return deal

    def started(self) -> Deal:
        """The same, at work."""
        deal = self.ready()
        self.ask(deal, "start_job")
        self.run(4)
        assert self.lease(deal).state.phase == "running"
        return deal

    def ask(self, deal: Deal, what: str, *args: Any) -> Any:
        """One request of the stranger."""
        return self.do(self.client.ask(deal, what, *args))

    def lease(self, deal: Deal) -> Any:
        """The provider's side of a lease."""
        return self.provider.leases[deal.lease.channel]

    def order(self, seconds: float = 0.0) -> Runner:
        """The honest tenant's job begins."""
        self.runner.node.start = self.runner.start
        self.runner.node.do(self.runner.start)
        self.run(seconds)
        return self.runner

    def finish(self, seconds: float = 8 * 3600) -> Runner:
        """Until the honest job is settled."""
        until = self.kernel.seconds + seconds
        while not self.runner.state.settled and self.kernel.seconds < until:
            self.run(5)
        assert self.runner.state.settled, self.runner.state
        return self.runner


__all__ = ["PRICE", "USUAL", "Client", "Small", "Stage"]
