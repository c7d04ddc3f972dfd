"""Bugs to plant: each is one line of the real sources, or of an edge, made wrong; the simulator has to find it.

A plant is a function that patches; `swap` puts a function in the place of another in every module that holds it, as
an edit of its source would. Rule: a plant changes one decision and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest

from minga.core.errors import StaleVoucher
from minga.protocol import job, job_lease, job_money, job_moves
from minga.protocol import job_events as ev
from minga.protocol.market import Market
from minga.provider import agent, metering, turn
from minga.provider import events as pe
from minga.sim.chain import SimChain
from minga.sim.lease import LeaseRun
from minga.sim.provider import Provider
from minga.sim.talk import Keeper
from minga.sim.tenant import Runner

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Plant:
    """A bug: its name, what it does, and how it is planted. `rules`: what may find it."""

    name: str
    story: str
    apply: Callable[[Patch], None]
    rules: tuple[str, ...]


def swap(patch: Patch, before: Any, after: Any) -> None:
    """Put `after` where any module of ours holds `before`."""
    places = 0
    for name, module in list(sys.modules.items()):
        if name.startswith("minga.") and not name.startswith("minga.sim.watch"):
            for attribute, held in list(vars(module).items()):
                if held is before:
                    patch.setattr(module, attribute, after)
                    places += 1
    assert places, f"nobody holds {before}"


def handler(patch: Patch, kind: type, make: Callable[[Any], Any], table: dict[Any, Any] = job.TABLE) -> None:
    """Wrap the handler of an event."""
    phases, old = table[kind]
    patch.setitem(table, kind, (phases, make(old)))


def acknowledge_before_commit(patch: Patch) -> None:
    def store(self: Provider, run: LeaseRun, cumulative: int, signature: bytes) -> int:
        def later() -> None:
            with suppress(StaleVoucher):
                run.attempt(pe.VoucherStored(str(cumulative), "0x" + signature.hex()))

        self.node.kernel.after(0.5, lambda: self.node.up and self.node.do(later))
        return cumulative

    patch.setattr(Provider, "store_voucher", store)


def drop_the_epoch_check(patch: Patch) -> None:
    check = Market._check_offer

    def lax(self: Market, offer: Any, seconds: int, now: int) -> None:
        check(self, replace(offer, epoch=self.epochs.get(offer.provider, 0)), seconds, now)

    patch.setattr(Market, "_check_offer", lax)


def pay_what_is_claimed(patch: Patch) -> None:
    patch.setattr(job_lease.Lease, "worked_s", property(lambda self: self.working_s))


def deposit_everything(patch: Patch) -> None:
    slice_for = job_money.slice_for

    def whole(budget: int, available: int, deal: ev.Deal) -> int:
        return available if slice_for(budget, available, deal) else 0

    swap(patch, slice_for, whole)


def forget_excluded_machines(patch: Patch) -> None:
    swap(patch, job_moves.exclude, lambda state, machine, until: state)


def count_paused_seconds(patch: Patch) -> None:
    hold = metering.Stopwatch.hold

    def on(self: metering.Stopwatch, reading: float, at_most: float | None = None) -> None:
        if at_most is None:
            hold(self, reading)

    patch.setattr(metering.Stopwatch, "hold", on)


def act_before_the_journal(patch: Patch) -> None:
    journal = LeaseRun.journal

    def later(self: LeaseRun, event: pe.Event, now: int) -> None:
        def write() -> None:
            journal(self, event, now)

        self.node.kernel.after(0.01, lambda: self.node.up and self.node.do(write))

    patch.setattr(LeaseRun, "journal", later)


def start_before_the_journal(patch: Patch) -> None:
    journal = Runner.journal

    def later(self: Runner, event: ev.Event, now: int) -> None:
        def write() -> None:
            journal(self, event, now)

        self.node.kernel.after(0.01, lambda: self.node.up and self.node.do(write))

    patch.setattr(Runner, "journal", later)


def pay_twice_after_the_exit(patch: Patch) -> None:
    def make(old: Any) -> Any:
        def twice(state: Any, event: Any, now: int) -> Any:
            lease = state.lease
            more = lease.working_s + lease.deal.quantum
            longer = replace(lease, working_s=more, elapsed_s=more, accepted_s=more, limit_s=None)
            return old(replace(state, lease=longer), event, now)

        return twice

    handler(patch, ev.Gathered, make)


def believe_the_newest_block(patch: Patch) -> None:
    patch.setattr(SimChain, "view", SimChain.latest)
    patch.setattr(SimChain, "deep", lambda self, transaction: transaction.block is not None)


def take_an_older_checkpoint(patch: Patch) -> None:
    def make(old: Any) -> Any:
        def older(state: Any, event: Any, now: int) -> Any:
            after = old(state, event, now)
            return replace(after, checkpoint=(state.lease.attempt, event.count, event.step))

        return older

    handler(patch, ev.CheckpointKept, make)


def keep_the_first_checkpoint(patch: Patch) -> None:
    patch.setattr(Keeper, "newest", lambda self: self.checkpoints[min(self.checkpoints)] if self.checkpoints else None)


def prepay_before_the_probe(patch: Patch) -> None:
    def make(old: Any) -> Any:
        def early(state: Any, event: Any, now: int) -> Any:
            after = old(state, event, now)
            if after.lease is None or after.phase != "sending":
                return after
            return replace(after, lease=replace(after.lease, signed=after.lease.prepaid, vouchers=1))

        return early

    handler(patch, ev.Opened, make)


def top_up_beyond_the_budget(patch: Patch) -> None:
    due = job_money.next_top_up
    swap(patch, due, lambda budget, available, lease: due(budget, 1 << 60, lease))


def close_with_an_old_voucher(patch: Patch) -> None:
    effect = turn.close_effect

    def older(state: Any) -> pe.CloseLease:
        found = effect(state)
        return found if found.cumulative < 2 else pe.CloseLease(0, "", found.why)

    swap(patch, effect, older)


def take_vouchers_over_the_deposit(patch: Patch) -> None:
    def make(old: Any) -> Any:
        def lax(one: Any, event: Any) -> None:
            deposit = one.state.deposit
            one.set(deposit=1 << 128)
            old(one, event)
            one.set(deposit=deposit)

        return lax

    handler(patch, pe.VoucherStored, make, agent.TABLE)


def work_on_unpaid(patch: Patch) -> None:
    swap(patch, metering.exhausted_at, lambda *given: None)


def believe_any_signature(patch: Patch) -> None:
    import minga.sim.desk

    patch.setattr(minga.sim.desk, "verify", lambda *given: None)


def count_a_refund_twice(patch: Patch) -> None:
    from minga.protocol.job_state import State

    available = State.available.fget
    assert available is not None

    def more(self: State) -> int:
        return int(available(self)) + sum(item.refunded for item in self.past)

    patch.setattr(State, "available", property(more))


def refund_all_of_it(patch: Patch) -> None:
    end = Market._end

    def generous(self: Market, lease: Any, account: Any, settled: int, now: int) -> None:
        end(self, lease, account, settled, now)
        self.ledger.move(self.address, lease.tenant, settled)

    patch.setattr(Market, "_end", generous)


def forget_a_voucher_at_a_restart(patch: Patch) -> None:
    def make(old: Any) -> Any:
        def lost(one: Any, event: Any) -> None:
            old(one, event)
            if one.state.paid % 7 == 0:
                one.set(paid=one.state.paid - 1)

        return lost

    handler(patch, pe.VoucherStored, make, agent.TABLE)


PLANTS = (
    Plant("acknowledge before commit", "a voucher's receipt leaves before the journal has it",
          acknowledge_before_commit, ("durability",)),
    Plant("drop the epoch check", "Market takes offers that were withdrawn", drop_the_epoch_check, ("offers",)),
    Plant("voucher above the clock", "the tenant pays what is claimed", pay_what_is_claimed, ("clock", "loss")),
    Plant("slice beyond a quarter", "a deposit is all that is left", deposit_everything, ("budget",)),
    Plant("forget excluded machines", "a machine that failed is taken again", forget_excluded_machines,
          ("exclusion", "end")),
    Plant("count paused seconds", "the meter goes on while the job stands still", count_paused_seconds, ("meter",)),
    Plant("provider acts before its journal", "effects first, then the record", act_before_the_journal,
          ("durability",)),
    Plant("runner acts before its journal", "effects first, then the record", start_before_the_journal,
          ("durability",)),
    Plant("pay twice after the exit", "the last quantum is paid again", pay_twice_after_the_exit, ("clock", "loss")),
    Plant("ignore the depth", "the newest block is believed", believe_the_newest_block, ("loss", "end", "replay")),
    Plant("accept an older checkpoint", "an older checkpoint replaces a newer one", take_an_older_checkpoint,
          ("checkpoints",)),
    Plant("restore the first checkpoint", "the oldest kept is sent to the next provider", keep_the_first_checkpoint,
          ("checkpoints",)),
    Plant("prepay before the probe", "voucher 1 leaves before the machine was measured", prepay_before_the_probe,
          ("probe",)),
    Plant("top up beyond the budget", "what is left is not asked", top_up_beyond_the_budget, ("budget", "vouchers")),
    Plant("close with an old voucher", "the close carries none", close_with_an_old_voucher, ("vouchers",)),
    Plant("vouchers over the deposit", "a total above the deposit counts as paid", take_vouchers_over_the_deposit,
          ("vouchers", "loss")),
    Plant("work on unpaid", "the job is never paused", work_on_unpaid, ("meter",)),
    Plant("believe any signature", "a voucher's signature is not checked", believe_any_signature, ("loss", "end")),
    Plant("count a refund twice", "the budget grows with each close", count_a_refund_twice, ("budget",)),
    Plant("refund all of it", "Market pays the tenant back what the provider got", refund_all_of_it,
          ("conservation",)),
    Plant("keep less than the voucher", "one unit of a voucher is lost on the way to the state",
          forget_a_voucher_at_a_restart, ("vouchers", "durability", "loss")),
)  # fmt: skip

__all__ = ["PLANTS", "Plant", "swap"]
