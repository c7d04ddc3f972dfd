"""What is judged when a world is over: who lost what, and whether everything ended.

Rules, for each lease that touched somebody honest (amounts are gross token units, seconds are of truth):

- an honest provider's unpaid metered work is worth at most one quantum (and one second of rounding);
- an honest tenant paid, beyond what really ran, at most one quantum, plus what its own runner did not watch; an actor
  that fakes progress itself (`loss_bound` "clock") may take what the tenant's clock allows and no more, and nothing
  beyond a quantum where the tenant checks checkpoints;
- between two honest parties nothing is paid that did not run;
- no second of a job is paid twice; every honest job ended with its money settled; every journal gives its state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minga.protocol import job
from minga.protocol import job_events as ev
from minga.protocol.job_state import Lease, begin
from minga.protocol.pricing import cost_up
from minga.provider import agent
from minga.provider.events import decode
from minga.provider.metering import limit_of
from minga.sim.watch import Watch

if TYPE_CHECKING:
    from minga.sim.lease import LeaseRun
    from minga.sim.provider import Provider
    from minga.sim.tenant import Runner


def judge(watch: Watch) -> None:
    """Check all of it; a broken rule is told to `watch`."""
    for runner in watch.runners:
        if runner.honest:
            _job(watch, runner)
    for provider in watch.providers:
        if provider.honest:
            for run in provider.leases.values():
                _replayed(watch, run)
                _earned(watch, provider, run)


def _job(watch: Watch, runner: Runner) -> None:
    name, state = runner.node.name, runner.state
    watch.require(state.settled, "end", name, f"is {state.phase} ({state.reason}) when the world ends")
    if not state.settled:
        return
    again = begin(runner.plan)
    for record in runner.node.journal.read(runner.plan.job):
        again, _ = job.step(again, ev.decode(record.kind, record.body), record.at)
    watch.require(again == state, "replay", name, "the journal gives another state")
    ledger = watch.chain.market.ledger
    left = ledger.balance(runner.wallet.address)
    watch.require(left == 0, "end", name, f"{left} token units are left in its job wallet")
    spent = watch.funded[runner.main.address] - ledger.balance(runner.main.address)
    gross = sum(_gross(watch, runner, lease) for lease in state.leases)
    gross -= sum(watch.chain.gifts.get(runner.lease_name(lease.attempt), 0) for lease in state.leases)
    watch.require(spent == gross, "end", name, f"{spent} spent, {gross} went to providers")
    for lease in state.leases:
        _paid(watch, runner, lease)
    _once(watch, runner)


def _gross(watch: Watch, runner: Runner, lease: Lease) -> int:
    closing = watch.chain.closings.get(runner.lease_name(lease.attempt))
    return 0 if closing is None else closing.deposit - closing.refunded


def _provider(watch: Watch, lease: Lease) -> Provider:
    return next(item for item in watch.providers if item.key.address == lease.deal.provider)


def _paid(watch: Watch, runner: Runner, lease: Lease) -> None:
    gross, provider, truth = _gross(watch, runner, lease), _provider(watch, lease), watch.truth(runner, lease.attempt)
    ran = watch.ran_s(runner.lease_name(lease.attempt))
    worked = int(cost_up(lease.deal.price_per_hour, lease.deal.units, int(ran) + 1))
    quantum = cost_up(lease.deal.price_per_hour, lease.deal.units, lease.deal.quantum)
    prepaid = lease.cost(lease.deal.quantum * lease.deal.prepaid_quanta)
    if provider.honest:
        most, bound = max(worked, int(prepaid)), "what ran"
    elif provider.loss_bound == "nothing":
        most, bound = worked, "what ran"
    elif provider.loss_bound == "clock" and not runner.plan.accept:
        most, bound = max(truth.signed, prepaid), "what the clock allowed"
    else:
        unseen = lease.cost(truth.unseen_s + truth.late_s)
        most, bound = worked + quantum + unseen, "a quantum beyond what ran"
    facts = f"paid {gross} for {ran:.1f} s worth {worked}, a quantum is {quantum}; at most {bound}"
    watch.require(gross <= most, "loss", runner.node.name, provider.node.name, facts)


def _once(watch: Watch, runner: Runner) -> None:
    """The seconds paid on all leases of a job are no more than went by, quanta paid ahead left out."""
    began = [t.running_at for (name, _), t in watch.truths.items() if name == runner.plan.job and t.running_at]
    if not began:
        return
    paid = allowed = 0
    for lease in runner.state.leases:
        rate = lease.deal.price_per_hour * lease.deal.units
        if rate:
            paid += _gross(watch, runner, lease) * 3600 // rate
            ahead = lease.deal.quantum * lease.deal.prepaid_quanta
            allowed += 3 + ahead + watch.truth(runner, lease.attempt).unseen_s
    allowed += int(max(0.0, watch.signed_at.get(runner.plan.job, 0.0) - min(began)))
    watch.require(paid <= allowed, "twice", runner.node.name, f"{paid} s were paid, {allowed} s went by")


def _replayed(watch: Watch, run: LeaseRun) -> None:
    records = run.node.journal.read(run.channel)
    again, told = agent.replay([(decode(record.kind, record.body), record.at) for record in records])
    same = again == run.state and told == run.told
    watch.require(same, "replay", run.node.name, "the journal gives another lease")


def _earned(watch: Watch, provider: Provider, run: LeaseRun) -> None:
    state, name = run.state, provider.node.name
    watch.require(state.phase == "closed", "end", name, f"has a lease in phase {state.phase} ({state.reason})")
    closing = watch.chain.closings.get(state.facts.lease_id)  # type: ignore[call-overload]
    gross = 0 if closing is None else closing.deposit - closing.refunded
    limit = limit_of(state.price, state.facts.units, state.facts.quantum)
    second = cost_up(state.price, state.facts.units, 1)
    lost = state.owed - gross
    watch.require(lost <= limit + second, "loss", name, f"{lost} unpaid of {state.owed}, a quantum is {limit}")


__all__ = ["judge"]
