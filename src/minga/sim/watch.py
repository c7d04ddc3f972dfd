"""Who judges: every rule of the simulated world, checked at every step of every agent and at every block.

| rule                     | checked at          | what it says                                                       |
|--------------------------|---------------------|--------------------------------------------------------------------|
| conservation             | every block         | the market holds what it owes, and no token unit came or went      |
| budget                   | every block, step   | a job's wallets never lose more than its budget; slices are slices |
| vouchers                 | every signature     | they rise, and stay below the deposit                              |
| clock                    | every signature     | no more is signed than our own clock allows                        |
| durability               | every effect, reply | nothing is done or acknowledged that the journal does not hold     |
| meter                    | every provider step | no second is claimed that did not run, none unpaid over a quantum  |
| exclusion                | every choice        | no machine that failed is taken again                              |
| probe, checkpoints       | every signature     | no voucher before the probe; no older checkpoint, none of another  |
| offers                   | every block         | no lease on an offer of an older epoch, none beyond the units      |
| loss, twice, end, replay | the end             | see `minga.sim.verdict`                                            |

Knows: the truth (what really ran, who is honest). Does not know: how anything is done. Rule: a broken rule halts the
world and is kept as one sentence; nothing that an actor catches can hide it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minga.core.codec import parse_json
from minga.core.crypto import Address
from minga.protocol import job_events as ev
from minga.protocol.pricing import cost_up
from minga.protocol.settlement import AMOUNT_MAX
from minga.provider import events as pe
from minga.provider.metering import limit_of
from minga.sim.kernel import Kernel
from minga.sim.work import Process

if TYPE_CHECKING:
    from minga.provider.agent import State as LeaseState
    from minga.sim.chain import Block, SimChain
    from minga.sim.lease import LeaseRun
    from minga.sim.provider import Provider
    from minga.sim.tenant import Runner

BURNT = frozenset({"under-spec", "bad-artifact", "bad-result", "provider-unreachable"})
SLICES = 4


@dataclass
class Truth:
    """What is known of one attempt at its tenant: when it was first seen running, what was signed, what not watched.

    `late_s`: how long the word that its job had ended was on the way.
    """

    running_at: float | None = None
    signed: int = 0
    unseen_s: int = 0
    late_s: int = 0


@dataclass
class Watch:
    """See the module."""

    kernel: Kernel
    chain: SimChain
    providers: list[Provider] = field(default_factory=list)
    runners: list[Runner] = field(default_factory=list)
    funded: dict[Address, int] = field(default_factory=dict)
    processes: dict[str, list[Process]] = field(default_factory=dict)
    genuine: set[bytes] = field(default_factory=set)
    truths: dict[tuple[str, int], Truth] = field(default_factory=dict)
    signed_at: dict[str, float] = field(default_factory=dict)
    burnt: dict[tuple[str, str], float] = field(default_factory=dict)
    violation: str = ""
    checks: int = 0
    steps: int = 0

    def require(self, good: bool, rule: str, *facts: Any) -> None:
        """Halt the world unless `good`."""
        self.checks += 1
        if not good and not self.violation:
            self.violation = f"{rule}: " + " ".join(str(fact) for fact in facts)
            self.kernel.note(f"VIOLATION {self.violation}")
            self.kernel.halted = True

    def truth(self, runner: Runner, attempt: int) -> Truth:
        """What is known of an attempt."""
        return self.truths.setdefault((runner.plan.job, attempt), Truth())

    # --------------------------------------------------------------------------------------------------- what really is

    def job_runs(self, lease: str, process: Process) -> None:
        """A process of the job of `lease` began."""
        self.processes.setdefault(lease, []).append(process)
        process.wrote = self.genuine.add

    def ran_s(self, lease: str) -> float:
        """Seconds in which the job really ran on `lease`."""
        return sum(process.ran_s for process in self.processes.get(lease, ()))

    # -------------------------------------------------------------------------------------------------------- the chain

    def block(self, block: Block) -> None:
        """Money, after every block."""
        chain, market = self.chain, self.chain.market
        ledger = market.ledger
        held, due = ledger.balance(market.address), market.liabilities()
        self.require(held == due, "conservation", f"the market holds {held} and owes {due}")
        total = sum(ledger.balances.values())
        self.require(total == chain.minted, "conservation", f"{total} token units of {chain.minted}")
        for name, account in market.accounts.items():
            closing = chain.closings.get(name)
            if closing is not None and closing.block == block.number:
                parts = closing.paid + closing.fee + closing.held + closing.refunded
                self.require(parts == chain.deposits[name] == closing.deposit, "conservation", name[:10], closing)
                self.require(closing.paid >= 0 and closing.refunded >= 0, "conservation", name[:10], closing)
            self.require(0 <= account.settled <= account.deposit <= AMOUNT_MAX, "conservation", name[:10], account)
        for lease, offer, epoch in block.opened:
            self.require(offer.epoch == epoch, "offers", f"a lease on an offer of epoch {offer.epoch}, now {epoch}")
            self.require(
                market.leased[lease.provider, lease.machine] <= offer.units,
                "offers",
                "more units leased than there are",
            )
        for runner in self.runners:
            if runner.honest:
                out = self.funded[runner.main.address] - ledger.balance(runner.main.address)
                self.require(out <= runner.plan.budget, "budget", f"{out} left the wallet of {runner.plan.budget}")

    # ----------------------------------------------------------------------------------------------------- the provider

    def provider_stepped(self, run: LeaseRun, before: LeaseState, event: pe.Event) -> None:
        """An event was taken in."""
        self.steps += 1
        if not run.provider.honest:
            return
        state, name = run.state, run.node.name
        self.require(before.paid <= state.paid <= state.deposit, "vouchers", name, before.paid, state.paid)
        ran = self.ran_s(state.facts.lease_id)
        self.require(state.working_s <= ran + 0.01, "meter", name, f"claims {state.working_s} s, ran {ran:.3f} s")
        limit = limit_of(state.price, state.facts.units, state.facts.quantum)
        unpaid = state.owed - state.paid
        second = cost_up(state.price, state.facts.units, 1)
        self.require(unpaid <= limit + second, "meter", name, f"{unpaid} unpaid, a quantum is {limit}")

    def provider_acts(self, run: LeaseRun, effect: pe.Effect) -> None:
        """An effect is about to be done."""
        held = run.node.journal.count(run.channel)
        self.require(held >= run.applied, "durability", run.node.name, type(effect).__name__, "before its event")
        if isinstance(effect, pe.CloseLease) and run.provider.honest:
            spared = run.state.reclaimed and run.state.working_s == 0
            self.require(spared or effect.cumulative == run.state.paid, "vouchers", run.node.name, "closes with less")

    def provider_restored(self, run: LeaseRun) -> None:
        """A lease was read from the journal after a death: what was known then, or one event more."""
        old = run.provider.leases.get(run.channel)
        known = old is None or run.state in (old.state, old.pending)
        self.require(known, "replay", run.node.name, run.channel[:10])

    def best_voucher(self, run: LeaseRun) -> int:
        """The best voucher on the disk."""
        for line in reversed(run.node.journal.lines(run.channel)):
            if b'"VoucherStored"' in line and line.endswith(b"\n"):
                return int(parse_json(line[9:-1])[2]["cumulative"])
        return 0

    # ------------------------------------------------------------------------------------------------------- the tenant

    def tenant_stepped(self, runner: Runner, before: Any, event: ev.Event) -> None:
        """An event was taken in."""
        self.steps += 1
        state, plan, name = runner.state, runner.plan, runner.node.name
        out = sum(item.deposit - item.refunded for item in (*state.past, *([state.lease] if state.lease else ())))
        out += state.top_up[0] if state.top_up else 0
        self.require(out <= plan.budget, "budget", name, f"{out} in leases or spent, of {plan.budget}")
        self.require(state.spent <= plan.budget, "budget", name, f"{state.spent} spent of {plan.budget}")
        if isinstance(event, ev.Found) and state.lease is not None:
            self._chosen(runner, event)
        elif isinstance(event, ev.PhaseSeen) and event.phase == "running":
            truth = self.truth(runner, event.attempt)
            truth.running_at = self.kernel.seconds if truth.running_at is None else truth.running_at
        elif isinstance(event, ev.Exited):
            ended = max((item.ended_at for item in self.processes.get(runner.lease_name(event.attempt), ())), default=0)
            self.truth(runner, event.attempt).late_s = int(self.kernel.seconds - ended) if ended else 0
        elif isinstance(event, ev.Lost) and event.code in BURNT and before.lease is not None:
            self.burnt[plan.job, before.lease.deal.machine] = self.kernel.seconds
        if before.checkpoint is not None and state.checkpoint is not None:
            self.require(state.checkpoint[:2] >= before.checkpoint[:2], "checkpoints", name, "an older one counts now")

    def _chosen(self, runner: Runner, event: ev.Found) -> None:
        lease, plan = runner.state.lease, runner.plan
        assert lease is not None
        deal = event.deal
        burnt = (plan.job, deal.machine) in self.burnt
        self.require(not burnt, "exclusion", runner.node.name, "takes a machine again that failed it")
        least = max(deal.deposit_min, cost_up(deal.price_per_hour, deal.units, deal.quantum), 1)
        most = max(least, plan.budget // SLICES)
        self.require(lease.deposit <= most, "budget", runner.node.name, f"a slice of {lease.deposit}, most {most}")

    def checkpoint_sent(self, runner: Runner, content: bytes) -> None:
        """A checkpoint goes to the next provider: it must be the newest that counts."""
        newest = runner.keeper.checkpoints.get(max(runner.keeper.checkpoints, default=(0, 0)))
        self.require(content == newest, "checkpoints", runner.node.name, "restores an older one")

    def tenant_acts(self, runner: Runner, effect: ev.Effect) -> None:
        """An effect is about to be done."""
        held = runner.node.journal.count(runner.plan.job)
        name = type(effect).__name__
        self.require(held >= runner.applied, "durability", runner.node.name, name, "before its event")

    def tenant_restored(self, runner: Runner, old: tuple[Any, Any]) -> None:
        """The job was read from the journal after a death."""
        self.require(runner.state in old, "replay", runner.node.name)
        lease = runner.state.lease
        if lease is not None and runner.state.phase == "running":
            # The event may have been on the disk when the node died, and taken in by nobody yet.
            truth = self.truth(runner, lease.attempt)
            truth.running_at = self.kernel.seconds if truth.running_at is None else truth.running_at

    def unseen(self, runner: Runner, attempt: int, seconds: int) -> None:
        """The runner was away so long, and pays for it as agreed."""
        truth = self.truth(runner, attempt)
        truth.unseen_s += seconds
        truth.running_at = self.kernel.seconds if truth.running_at is None else truth.running_at

    def voucher_signed(self, runner: Runner, attempt: int, cumulative: int) -> None:
        """A voucher is about to leave."""
        lease, truth, name = runner.state.lease_of(attempt), self.truth(runner, attempt), runner.node.name
        self.require(cumulative >= truth.signed, "vouchers", name, f"{cumulative} after {truth.signed}")
        truth.signed = cumulative
        self.signed_at[runner.plan.job] = self.kernel.seconds
        self.require(cumulative <= lease.signed, "durability", name, f"{cumulative} signed, journaled {lease.signed}")
        deposit = max(self.chain.deposits.get(runner.lease_name(attempt), 0), lease.deposit)
        self.require(cumulative <= deposit, "vouchers", name, f"{cumulative} above the deposit {deposit}")
        since = 0.0 if truth.running_at is None else self.kernel.seconds - truth.running_at
        prepaid = lease.cost(lease.deal.quantum * lease.deal.prepaid_quanta)
        most = max(prepaid, lease.cost(int(since) + 2 + truth.unseen_s))
        self.require(cumulative <= most, "clock", name, f"{cumulative} signed, the clock allows {most}")
        if lease.deal.probe and runner.plan.probe:
            probed = any(b'"Probed"' in line for line in runner.node.journal.lines(runner.plan.job))
            self.require(probed, "probe", name, "a voucher before the machine was measured")

    def voucher_acknowledged(self, runner: Runner, attempt: int, cumulative: int) -> None:
        """A provider said that it holds a voucher."""
        lease = runner.state.lease_of(attempt)
        for provider in self.providers:
            run = provider.leases.get(lease.channel)
            if provider.honest and run is not None:
                held = self.best_voucher(run)
                self.require(held >= cumulative, "durability", provider.node.name, f"says {cumulative}, has {held}")


__all__ = ["SLICES", "Truth", "Watch"]
