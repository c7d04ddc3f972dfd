"""The ten invariants of the contracts, one named check each, over a `World`.

Each check reads the compiled contracts and the books that the test kept itself; `agreement` compares the contracts with
the specification besides. Rule: a check raises AssertionError and changes nothing (5 and 10 try calls and undo them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lockstep import Party, Record, World

from minga.core.crypto import Address
from minga.protocol.lease import NO_ACCOUNT, Phase
from minga.protocol.settlement import split

REFUGE = Address("0x" + "5a" * 20)
"""An address that the token never freezes, to withdraw to."""


def agreement(world: World) -> None:
    """The contracts' whole state is the specification's."""
    spec, ledger = world.spec, world.ledger
    for record in world.records:
        account = spec.accounts.get(record.lease.id, NO_ACCOUNT)
        found = world.market.view("account_of", record.lease.id)
        assert found == (account.deposit, account.settled, account.ends_at, account.phase)
        assert world.market.view("lease_hash", record.lease.id) == (int(record.lease.hash, 16),)
    for (provider, machine), units in spec.leased.items():
        assert world.market.view("leased", provider, machine) == (units,)
    assert world.market.view("fees") == (spec.fees,)
    for owner in {*ledger.balances, *spec.owed}:
        assert world.token.view("balanceOf", owner) == (ledger.balance(owner),)
        assert world.market.view("owed", owner) == (spec.owed.get(owner, 0),)
    for provider, agent in spec.registry.agents.items():
        assert world.registry.view("agent_of", provider) == (int(agent, 16),)
        assert world.market.view("epoch_of", provider) == (spec.epochs.get(provider, 0),)
    for (provider, arbiter), stake in spec.registry.stakes.items():
        found = world.registry.view("stake_of", provider, arbiter)
        assert found == (stake.staked, stake.locked, stake.unbonding, stake.free_at)


def invariant_1_solvent(world: World) -> None:
    """Market holds at least Σ open (deposit − settled) + held + fees + owed."""
    needed = world.market.view("fees")[0]
    for record in world.records:
        deposit, settled, _, phase = world.market.view("account_of", record.lease.id)
        needed += deposit - settled
        if phase != Phase.CLOSED:
            needed += split(settled, world.fee_bps, record.lease.hold_bps).held
    for owner in sorted(world.may_receive):
        needed += world.market.view("owed", owner)[0]
    assert world.token.view("balanceOf", world.market.address)[0] >= needed


def invariant_2_conserved(world: World) -> None:
    """At its end a lease's deposit is paid + held + fee + refund, to the unit; settled never exceeds the deposit."""
    for record in world.records:
        assert record.settled <= record.deposit
        if record.ended:
            assert record.deposit == record.paid + record.held + record.fee + record.refund


def invariant_3_settled_is_signed(world: World) -> None:
    """What is settled never exceeds the largest amount truly signed (that it never falls is checked at each event)."""
    for record in world.records:
        assert record.settled <= record.best
        _, settled, _, phase = world.market.view("account_of", record.lease.id)
        assert phase == Phase.CLOSED or settled == record.settled


def invariant_4_units_sold_once(world: World) -> None:
    """Units leased of a machine stay within what was sold of it; ids live once (see `World.opened`)."""
    running: dict[tuple[str, str], list[Record]] = {}
    for record in world.records:
        found = running.setdefault((record.lease.provider, record.lease.machine), [])
        if not record.ended:
            found.append(record)
    for (provider, machine), records in running.items():
        units = sum(record.lease.units for record in records)
        assert world.market.view("leased", provider, machine) == (units,)
        assert units <= max((record.offered_units for record in records), default=0)


def invariant_5_each_leaves_alone(world: World) -> None:
    """Each party alone gets all it is owed in at most four calls, with everyone else silent and every party frozen."""
    for record in [record for record in world.records if not record.ended][-2:]:
        with undone(world):
            _freeze_all(world)
            assert _tenant_leaves(world, record) == record.deposit - record.settled
        with undone(world):
            _freeze_all(world)
            assert _provider_leaves(world, record) == world.entitled(record) - record.paid


def invariant_6_redeems_add_up(world: World) -> None:
    """However many vouchers came, the provider got and the fee took what one redeem of the last would have."""
    for record in world.records:
        once = split(record.settled, world.fee_bps, record.lease.hold_bps)
        assert (record.paid, record.fee) == (once.paid, once.fee)


def invariant_7_only_parties_receive(world: World) -> None:
    """Tokens go to parties alone: each transfer is checked as it happens; here, that no contract of ours is one."""
    assert not world.may_receive & set(world.contracts)


def invariant_8_signatures_bind(world: World) -> None:
    """No call that carried a forged signature went through."""
    assert world.forgeries_accepted == 0


def invariant_9_stake_covers(world: World) -> None:
    """Stake is all there; it covers the exposure of the running leases, unless its own arbiter took it."""
    total, exposure = 0, dict.fromkeys(world.spec.registry.stakes, 0)
    for record in world.records:
        if record.lease.has_arbiter:
            deposit = world.market.view("account_of", record.lease.id)[0]
            exposure[record.lease.provider, record.lease.arbiter] += deposit
    for (provider, arbiter), exposed in exposure.items():
        staked, locked, unbonding, _ = world.registry.view("stake_of", provider, arbiter)
        total += staked + unbonding
        assert locked == exposed
        if (provider, arbiter) not in world.slashed:
            assert staked >= locked * world.registry.view("factor_of", arbiter)[0]
    assert world.token.view("balanceOf", world.registry.address)[0] == total == world.stake_in - world.stake_out


def invariant_10_nothing_stuck(world: World) -> None:
    """What a party may do alone it can do now: cancel offers, change keys, unstake, collect, withdraw."""
    with undone(world):
        for party in world.providers:
            world.send(party, world.market, "cancel_offers", ())
            world.send(party, world.registry, "update", ("", party.agent.address))
        if world.spec.fees:
            world.send(world.stranger, world.market, "collect_fees", ())
        for (provider, arbiter), stake in world.spec.registry.stakes.items():
            party = next(each for each in world.providers if each.address == provider)
            if stake.unbonding:
                world.machine.set_time(max(world.now, stake.free_at))
                world.send(party, world.registry, "finish_unstake", (arbiter, REFUGE))
        for party in world.people:
            if world.spec.owed.get(party.address):
                world.send(party, world.market, "withdraw", (REFUGE,))


INVARIANTS: tuple[Callable[[World], None], ...] = (
    invariant_1_solvent,
    invariant_2_conserved,
    invariant_3_settled_is_signed,
    invariant_4_units_sold_once,
    invariant_5_each_leaves_alone,
    invariant_6_redeems_add_up,
    invariant_7_only_parties_receive,
    invariant_8_signatures_bind,
    invariant_9_stake_covers,
    invariant_10_nothing_stuck,
)


@contextmanager
def undone(world: World) -> Iterator[None]:
    """Run calls on the contracts alone, then take them back."""
    mark = world.machine.mark()
    try:
        yield
    finally:
        world.machine.back_to(mark)


def _freeze_all(world: World) -> None:
    if world.freezing:
        for party in world.people:
            world.send(world.stranger, world.token, "freeze", (party.address, 1))


def _tenant_leaves(world: World, record: Record) -> int:
    """Start, finish, withdraw: three calls; what reached the tenant or its refuge, token units."""
    lease = record.lease
    tenant = next(party for party in world.tenants if party.address == lease.tenant)
    before = _wealth(world, tenant)
    if world.market.view("account_of", lease.id)[3] == Phase.OPEN:
        world.send(tenant, world.market, "start_close", (lease.as_tuple(), 0))
    world.machine.set_time(max(world.now, world.market.view("account_of", lease.id)[2] + lease.close_window))
    world.send(tenant, world.market, "finish_close", (lease.as_tuple(),))
    return _take_home(world, tenant) - before


def _provider_leaves(world: World, record: Record) -> int:
    """Close, finish the hold, withdraw: three calls; what reached the provider or its refuge, token units."""
    lease, provider = record.lease, record.provider
    before = _wealth(world, provider)
    amount, signature = world.best_voucher(record)
    world.send(provider, world.market, "close", (lease.as_tuple(), amount, signature, 0))
    ends_at, phase = world.market.view("account_of", lease.id)[2:]
    if phase == Phase.HELD:
        world.machine.set_time(max(world.now, ends_at))
        world.send(provider, world.market, "finish_hold", (lease.as_tuple(),))
    return _take_home(world, provider) - before


def _wealth(world: World, party: Party) -> int:
    return (
        sum(world.token.view("balanceOf", where)[0] for where in (party.address, REFUGE))
        + world.market.view("owed", party.address)[0]
    )


def _take_home(world: World, party: Party) -> int:
    if world.market.view("owed", party.address)[0]:
        world.send(party, world.market, "withdraw", (REFUGE,))
    assert world.market.view("owed", party.address) == (0,)
    return _wealth(world, party)
