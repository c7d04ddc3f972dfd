"""What people do to the contracts: the actions from which random schedules are made.

What it is: one function per action, each drawing all its choices from `dice`, so that Hypothesis can shrink a schedule
and a seed can repeat it. Half of the draws are sound, the others are the mistakes and attacks that a hostile party
would try. What it does not know: what must come out; the lockstep and the invariants judge that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from forgeries import Dice, amount, rarely, signed
from lockstep import FEE_RECIPIENT, MACHINES, Party, Record, World, key, offer_words
from token_signatures import authorization_signature, permit_signature

from minga.core.crypto import ZERO_ADDRESS, Address, Hash32, keccak, to_hex
from minga.core.units import Amount
from minga.protocol.lease import Lease, Phase
from minga.protocol.market import Order
from minga.protocol.messages import Extend, Offer, Release, Voucher

HOUR = 3600


# -------------------------------------------------------------------------------------------------- offers and leases


def open_lease(world: World, dice: Dice) -> None:
    """A tenant takes an offer."""
    tenant, provider = dice.choice(world.tenants), dice.choice(world.providers)
    offer = _offer(world, dice, provider)
    owner = provider.key if provider.wallet and rarely(dice, 3) else provider.agent
    signature, genuine = signed(world, dice, offer, owner)
    attempt = dice.integer(1, 6) if rarely(dice) else 1_000 + world.calls
    session = key(f"session {attempt}")
    order = Order(
        job=Hash32("0x" + "10" * 32),
        attempt=attempt,
        units=dice.integer(0, 4) if rarely(dice) else 1,
        seconds=dice.choice([0, 59, 86_401]) if rarely(dice, 16) else dice.integer(60, 86_400),
        deposit=min(amount(dice, 10**9) + (0 if rarely(dice) else 1_000), 2**128 - 1),
        signer=ZERO_ADDRESS if rarely(dice, 30) else session.address,
    )
    funding = _by_allowance if world.freezing else dice.choice([_by_allowance, _by_permit, _by_authorization])
    name, extra, how = funding(world, dice, tenant, order.deposit)
    lease: list[Lease] = []
    args = (
        offer_words(offer), signature, order.job, order.attempt, order.units, order.seconds, order.deposit,
        order.signer,
    )  # fmt: skip
    ok = world.call(
        tenant, world.market, name, args + extra,
        lambda: lease.append(world.spec.open(tenant.address, world.now, offer, signature, order, **how)),
    )  # fmt: skip
    if ok:
        world.forgeries_accepted += not genuine
        world.opened(lease[0], offer, provider, session, order.deposit)


Funding = tuple[str, tuple[object, ...], dict[str, Any]]


def _by_allowance(world: World, dice: Dice, tenant: Party, deposit: int) -> Funding:
    return "open", (), {}


def _by_permit(world: World, dice: Dice, tenant: Party, deposit: int) -> Funding:
    """A permit that is good, expired, another's, or good and spent first by somebody who saw it."""
    value, deadline = dice.choice([deposit, deposit, 2**256 - 1, 0]), world.now - int(rarely(dice))
    nonce = world.token.view("nonces", tenant.address)[0] + int(rarely(dice))
    signer = tenant if not rarely(dice) else world.stranger
    v, r, s = permit_signature(world, tenant.address, value, nonce, deadline, signer.key)
    good = signer is tenant and deadline == world.now and nonce == world.token.view("nonces", tenant.address)[0]
    if good and rarely(dice, 4):
        world.send(
            world.stranger, world.token, "permit",
            (tenant.address, world.market.address, value, deadline, v, r, s),
        )  # fmt: skip
        world.ledger.allowances[tenant.address, Address(world.market.address)] = value
        good = False
    return "open_with_permit", ((value, deadline, v, r, s),), {"permit": value if good else None}


def _by_authorization(world: World, dice: Dice, tenant: Party, deposit: int) -> Funding:
    """A signed transfer that is good, not valid now, for another amount, or another's."""
    after, before = world.now - dice.choice([1, 1, 1, 0]), world.now + dice.choice([1, 1, 1, 0])
    signer = tenant if not rarely(dice) else world.stranger
    value = deposit + int(rarely(dice))
    nonce = keccak(world.calls.to_bytes(8, "big"))
    v, r, s = authorization_signature(world, tenant.address, value, after, before, nonce, signer.key)
    good = signer is tenant and after < world.now < before and value == deposit
    return "open_with_authorization", ((after, before, nonce, v, r, s),), {"authorized": good}


def _offer(world: World, dice: Dice, provider: Party) -> Offer:
    arbiter = dice.choice([ZERO_ADDRESS, ZERO_ADDRESS, *(each.address for each in world.arbiters)])
    hold = arbiter != ZERO_ADDRESS and not rarely(dice)
    offer = Offer(
        provider=provider.address,
        machine=dice.choice(MACHINES),
        terms=Hash32("0x" + "22" * 32),
        price_per_hour=Amount(dice.integer(1, 10**7)),
        units=dice.integer(1, 4),
        deposit_min=Amount(dice.integer(0, 1_000)),
        seconds_min=60,
        seconds_max=86_400,
        quantum=60,
        close_window=dice.integer(HOUR, 24 * HOUR),
        arbiter=arbiter,
        hold_bps=dice.integer(0, 10_000) if hold else 0,
        hold_seconds=dice.integer(1, 7 * 24 * HOUR) if hold else 0,
        valid_until=world.now + dice.integer(0, HOUR),
        epoch=world.spec.epochs.get(provider.address, 0),
        salt=Hash32(to_hex(keccak(world.calls.to_bytes(8, "big")))),
    )
    if not rarely(dice):
        return offer
    wrong: dict[str, Any] = dice.choice(
        [
            {"provider": world.stranger.address},
            {"valid_until": world.now - 1},
            {"epoch": offer.epoch + 1},
            {"close_window": HOUR - 1},
            {"close_window": 24 * HOUR + 1},
            {"hold_seconds": 7 * 24 * HOUR + 1},
            {"hold_bps": 10_001},
            {"arbiter": ZERO_ADDRESS, "hold_seconds": 5},
            {"hold_bps": 5, "hold_seconds": 0},
            {"units": 0},
        ]
    )
    return replace(offer, **wrong)


def _record(world: World, dice: Dice, *phases: Phase) -> Record | None:
    """A lease: mostly one of the youngest in a phase where the call has a chance."""
    if not world.records:
        return None
    accounts = world.spec.accounts
    sound = [record for record in world.records[-24:] if accounts[record.lease.id].phase in phases]
    return dice.choice(world.records if rarely(dice) or not sound else sound)


def _rest(dice: Dice, record: Record) -> Lease:
    """What the caller passes back: mostly the truth."""
    if not rarely(dice, 12):
        return record.lease
    lie: dict[str, Any] = dice.choice(
        [
            {"tenant": record.lease.provider},
            {"provider": record.lease.tenant},
            {"signer": key("forger").address},
            {"units": record.lease.units + 1},
            {"close_window": 1},
            {"arbiter": record.lease.tenant},
            {"hold_bps": 1},
            {"attempt": record.lease.attempt + 1},
            {"offer": Hash32("0x" + "99" * 32)},
        ]
    )
    return replace(record.lease, **lie)


def _tenant(world: World, dice: Dice, record: Record) -> Party:
    if rarely(dice):
        return dice.choice(world.people)
    return next(party for party in world.tenants if party.address == record.lease.tenant)


def top_up(world: World, dice: Dice) -> None:
    """Anyone adds to a deposit."""
    record = _record(world, dice, Phase.OPEN)
    if record:
        payer, lease, more = dice.choice(world.people), _rest(dice, record), amount(dice, 10**8)
        args = (lease.as_tuple(), more)
        world.call(payer, world.market, "top_up", args, lambda: world.spec.top_up(payer.address, lease, more))


def extend(world: World, dice: Dice) -> None:
    """Tenant and provider agree on a later end."""
    record = _record(world, dice, Phase.OPEN)
    if record:
        tenant, lease = _tenant(world, dice, record), _rest(dice, record)
        ends_at = 2**56 if rarely(dice, 20) else world.now + dice.integer(0, 3 * 86_400)
        signature, genuine = signed(world, dice, Extend(lease.channel, ends_at), record.provider.agent)
        args = (lease.as_tuple(), ends_at, signature)
        ok = world.call(
            tenant, world.market, "extend", args,
            lambda: world.spec.extend(tenant.address, lease, ends_at, signature),
        )  # fmt: skip
        world.forgeries_accepted += ok and not genuine


# ------------------------------------------------------------------------------------------------------ vouchers, ends


def _voucher(world: World, dice: Dice, record: Record, lease: Lease) -> tuple[int, bytes, bool]:
    worth = amount(dice, max(record.deposit, 1))
    signature, genuine = signed(world, dice, Voucher(lease.channel, Amount(worth)), record.signer)
    if genuine:
        record.best = max(record.best, worth)
    return worth, signature, genuine


def redeem(world: World, dice: Dice) -> None:
    """Anyone brings a voucher."""
    record = _record(world, dice, Phase.OPEN, Phase.CLOSING)
    if record:
        sender, lease = dice.choice(world.people), _rest(dice, record)
        worth, signature, genuine = _voucher(world, dice, record, lease)
        args = (lease.as_tuple(), worth, signature)
        ok = world.call(sender, world.market, "redeem", args, lambda: world.spec.redeem(lease, worth, signature))
        world.forgeries_accepted += ok and not genuine


def close(world: World, dice: Dice) -> None:
    """The provider, or its agent, ends the lease with a voucher or with none."""
    record = _record(world, dice, Phase.OPEN, Phase.CLOSING)
    if record:
        lease, provider = _rest(dice, record), record.provider
        agent = Party("agent", provider.agent.address, provider.agent, provider.agent)
        sender = dice.choice(world.people) if rarely(dice) else dice.choice([provider, agent])
        worth, signature, genuine = (0, b"", True) if rarely(dice, 3) else _voucher(world, dice, record, lease)
        args = (lease.as_tuple(), worth, signature, 1)
        ok = world.call(
            sender, world.market, "close", args,
            lambda: world.spec.close(sender.address, world.now, lease, worth, signature),
        )  # fmt: skip
        world.forgeries_accepted += ok and not genuine


def release(world: World, dice: Dice) -> None:
    """The tenant ends the lease at an amount that the provider signed."""
    record = _record(world, dice, Phase.OPEN, Phase.CLOSING)
    if record:
        tenant, lease, worth = _tenant(world, dice, record), _rest(dice, record), amount(dice, record.deposit)
        signature, genuine = signed(world, dice, Release(lease.channel, Amount(worth)), record.provider.agent)
        args = (lease.as_tuple(), worth, signature, 2)
        best, record.best = record.best, max(record.best, worth)
        ok = world.call(
            tenant, world.market, "release", args,
            lambda: world.spec.release(tenant.address, world.now, lease, worth, signature),
        )  # fmt: skip
        if not ok:
            record.best = best
        world.forgeries_accepted += ok and not genuine


def start_close(world: World, dice: Dice) -> None:
    """The tenant wants out."""
    record = _record(world, dice, Phase.OPEN)
    if record:
        tenant, lease = _tenant(world, dice, record), _rest(dice, record)
        world.call(
            tenant, world.market, "start_close", (lease.as_tuple(), 5),
            lambda: world.spec.start_close(tenant.address, world.now, lease),
        )  # fmt: skip


def finish_close(world: World, dice: Dice) -> None:
    """Anyone ends a lease whose window is over."""
    record = _record(world, dice, Phase.OPEN, Phase.CLOSING)
    if record:
        sender, lease = dice.choice(world.people), _rest(dice, record)
        world.call(
            sender, world.market, "finish_close", (lease.as_tuple(),),
            lambda: world.spec.finish_close(world.now, lease),
        )  # fmt: skip


def resolve(world: World, dice: Dice) -> None:
    """The arbiter divides the held part."""
    record = _record(world, dice, Phase.HELD)
    if record:
        lease, to_tenant = _rest(dice, record), amount(dice, record.held)
        named = [party for party in world.arbiters if party.address == lease.arbiter]
        sender = dice.choice(world.people) if rarely(dice) or not named else named[0]
        world.call(
            sender, world.market, "resolve", (lease.as_tuple(), to_tenant),
            lambda: world.spec.resolve(sender.address, world.now, lease, to_tenant),
        )  # fmt: skip


def finish_hold(world: World, dice: Dice) -> None:
    """Anyone sends the held part to the provider."""
    record = _record(world, dice, Phase.HELD)
    if record:
        sender, lease = dice.choice(world.people), _rest(dice, record)
        world.call(
            sender, world.market, "finish_hold", (lease.as_tuple(),),
            lambda: world.spec.finish_hold(world.now, lease),
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------------ beside leases


def cancel_offers(world: World, dice: Dice) -> None:
    """A provider's offers die."""
    sender = dice.choice(world.people)
    world.call(sender, world.market, "cancel_offers", (), lambda: world.spec.cancel_offers(sender.address))


def collect_fees(world: World, dice: Dice) -> None:
    """Anyone sends the fees away."""
    world.call(dice.choice(world.people), world.market, "collect_fees", (), world.spec.collect_fees)


def withdraw(world: World, dice: Dice) -> None:
    """Somebody takes what is owed to it."""
    sender = dice.choice(world.people)
    receiver = _receiver(world, dice, sender, world.market.address)
    world.call(sender, world.market, "withdraw", (receiver,), lambda: world.spec.withdraw(sender.address, receiver))


def _receiver(world: World, dice: Dice, sender: Party, contract: str) -> Address:
    """An address that the entitled party chose, which makes it a party."""
    if rarely(dice):
        return dice.choice([ZERO_ADDRESS, Address(contract)])
    chosen = dice.choice([sender.address, key("refuge").address])
    world.may_receive.add(chosen)
    return chosen


def keys(world: World, dice: Dice) -> None:
    """A provider changes its key, or somebody registers."""
    sender, name = dice.choice(world.people), dice.choice(["register", "update"])
    agent = ZERO_ADDRESS if rarely(dice) else sender.agent.address
    act = world.spec.registry.register if name == "register" else world.spec.registry.update
    world.call(sender, world.registry, name, ("uri", agent), lambda: act(sender.address, agent))


def appoint(world: World, dice: Dice) -> None:
    """Somebody names a Market: mostly one who cannot, or badly. The third arbiter names one that is not ours."""
    sender = world.arbiters[2] if rarely(dice, 3) else dice.choice(world.people)
    market, factor = dice.choice([ZERO_ADDRESS, FEE_RECIPIENT]), dice.choice([0, 5, 1_001])
    world.call(
        sender, world.registry, "appoint", (market, factor),
        lambda: world.spec.registry.appoint(sender.address, market, factor),
    )  # fmt: skip


def stake(world: World, dice: Dice) -> None:
    """A provider puts stake under an arbiter."""
    provider, arbiter = dice.choice(world.providers), dice.choice(world.arbiters).address
    more = 2**128 if rarely(dice, 20) else amount(dice, 10**11)
    world.call(
        provider, world.registry, "stake", (arbiter, more),
        lambda: world.spec.registry.stake(provider.address, arbiter, more),
    )  # fmt: skip


def unstake(world: World, dice: Dice) -> None:
    """A provider starts or finishes to take stake out."""
    provider, arbiter = dice.choice(world.providers), dice.choice(world.arbiters).address
    stakes = world.spec.registry
    if dice.integer(0, 1):
        staked = stakes.stake_of(provider.address, arbiter).staked
        less = staked if rarely(dice, 3) else amount(dice, staked)
        world.call(
            provider, world.registry, "start_unstake", (arbiter, less),
            lambda: stakes.start_unstake(provider.address, arbiter, less, world.now),
        )  # fmt: skip
    else:
        receiver = _receiver(world, dice, provider, world.registry.address)
        world.call(
            provider, world.registry, "finish_unstake", (arbiter, receiver),
            lambda: stakes.finish_unstake(provider.address, arbiter, receiver, world.now),
        )  # fmt: skip


def slash(world: World, dice: Dice) -> None:
    """An arbiter, or somebody who is none, takes stake."""
    sender = dice.choice(world.people) if rarely(dice, 3) else dice.choice(world.arbiters)
    provider = dice.choice(world.providers).address
    taken = amount(dice, world.spec.registry.stake_of(provider, sender.address).staked)
    receiver = _receiver(world, dice, sender, world.registry.address)
    ok = world.call(
        sender, world.registry, "slash", (provider, taken, receiver),
        lambda: world.spec.registry.slash(sender.address, provider, taken, receiver),
    )  # fmt: skip
    if ok:
        world.slashed.add((provider, sender.address))


def lock(world: World, dice: Dice) -> None:
    """Somebody who is not Market locks or unlocks stake."""
    sender, provider = dice.choice(world.people), dice.choice(world.providers).address
    arbiter, name = dice.choice(world.arbiters).address, dice.choice(["lock", "unlock"])
    act = world.spec.registry.lock if name == "lock" else world.spec.registry.unlock
    world.call(sender, world.registry, name, (provider, arbiter, 1), lambda: act(sender.address, provider, arbiter, 1))


# ------------------------------------------------------------------------------------------------------ token and time


def approve(world: World, dice: Dice) -> None:
    """Somebody changes an allowance."""
    party, spender = dice.choice(world.people), dice.choice([world.market, world.registry])
    world.approve(party, spender, dice.choice([2**256 - 1, 2**256 - 1, 10**9, 0]))


def freeze(world: World, dice: Dice) -> None:
    """The token freezes somebody, or thaws."""
    if world.freezing:
        whom = dice.choice([*(party.address for party in world.people), FEE_RECIPIENT])
        frozen = whom not in world.ledger.frozen and dice.integer(0, 2) == 0
        world.send(world.stranger, world.token, "freeze", (whom, int(frozen)))
        (world.ledger.frozen.add if frozen else world.ledger.frozen.discard)(whom)


def donate(world: World, dice: Dice) -> None:
    """Somebody sends Market tokens that nobody asked for."""
    market, more = Address(world.market.address), dice.integer(1, 1_000)
    if world.ledger.move(world.stranger.address, market, more):
        world.send(world.stranger, world.token, "transfer", (market, more))


def wait(world: World, dice: Dice) -> None:
    """Time passes: a little, or right to the edge of something."""
    edges = [world.now + 1]
    for record in world.records[-24:]:
        ends_at, phase = world.spec.accounts[record.lease.id].ends_at, world.spec.accounts[record.lease.id].phase
        if phase:
            edges += [ends_at - 1, ends_at, ends_at + record.lease.close_window]
    edges += [each.free_at for each in world.spec.registry.stakes.values() if rarely(dice, 6)]
    target = dice.choice(edges) + dice.integer(-1, 1) if dice.integer(0, 1) else world.now + dice.integer(1, 900)
    if world.now < target < world.now + 40 * 86_400:
        world.machine.set_time(target)


ACTIONS: dict[Callable[[World, Dice], None], int] = {
    open_lease: 8, top_up: 2, extend: 2, redeem: 6, close: 2, release: 1, start_close: 2, finish_close: 3, resolve: 2,
    finish_hold: 2, cancel_offers: 1, collect_fees: 1, withdraw: 2, keys: 1, appoint: 1, stake: 3, unstake: 2, slash: 1,
    lock: 1, approve: 1, freeze: 2, donate: 1, wait: 4,
}  # fmt: skip
"""Every action, and how often it comes beside the others."""

DECK = tuple(action for action, weight in ACTIONS.items() for _ in range(weight))
