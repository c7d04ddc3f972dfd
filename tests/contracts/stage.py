"""Short scenes with the contracts alone: one sound offer, one lease, and whatever a test changes in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from evm import Machine, Revm
from lockstep import MACHINES, Party, World, key, offer_words

from minga.core.crypto import ZERO_ADDRESS, Hash32, PrivateKey
from minga.core.eip712 import Struct
from minga.core.units import Amount
from minga.protocol.lease import Lease, lease_of
from minga.protocol.messages import Extend, Offer, Release, Voucher, sign

DEPOSIT = 1_000_000
SECONDS = 3_600
WINDOW = 3_600
HOLD = 86_400
JOB = Hash32("0x" + "10" * 32)


class Stage:
    """A tenant, a provider with stake under the first arbiter, a session key, and calls with sound defaults."""

    def __init__(self, machine: Machine | None = None, *, freezing: bool = False, **how: Any) -> None:
        self.world = World(machine or Revm(), freezing=freezing, staked=False, **how)
        world = self.world
        self.machine, self.market, self.registry, self.token = world.machine, world.market, world.registry, world.token
        self.tenant, self.provider, self.wallet_provider = world.tenants[0], world.providers[0], world.providers[2]
        self.arbiter, self.stranger = world.arbiters[0], world.stranger
        self.session = key("session")
        self.events: dict[str, dict[str, int]] = {}
        self.send(self.provider, self.registry, "stake", self.arbiter.address, 10 * DEPOSIT)

    @property
    def now(self) -> int:
        """Chain time."""
        return self.machine.now

    def wait(self, seconds: int) -> None:
        """Let chain time pass."""
        self.machine.set_time(self.now + seconds)

    def send(self, party: Party, contract: Any, name: str, *args: Any) -> bytes:
        """One call; `events` remembers what Market said in it."""
        output = self.world.send(party, contract, name, args)
        logs = [log for log in self.machine.logs() if log.address == self.market.address]
        self.events = dict(self.market.decode(log) for log in logs)
        return output

    def balance(self, owner: str) -> int:
        """Token units."""
        return self.token.view("balanceOf", owner)[0]

    def account(self, lease: Lease) -> tuple[int, ...]:
        """Deposit, settled, ends_at, phase."""
        return self.market.view("account_of", lease.id)

    def offer(self, **changes: Any) -> Offer:
        """A sound offer without an arbiter."""
        sound = Offer(
            provider=self.provider.address,
            machine=MACHINES[0],
            terms=Hash32("0x" + "22" * 32),
            price_per_hour=Amount(DEPOSIT),
            units=2,
            deposit_min=Amount(1_000),
            seconds_min=60,
            seconds_max=86_400,
            quantum=60,
            close_window=WINDOW,
            arbiter=ZERO_ADDRESS,
            hold_bps=0,
            hold_seconds=0,
            valid_until=self.now + 60,
            epoch=0,
            salt=Hash32("0x" + "33" * 32),
        )
        return replace(sound, **changes)

    def held_offer(self, **changes: Any) -> Offer:
        """A sound offer with an arbiter who holds a fifth for a day."""
        return self.offer(**{"arbiter": self.arbiter.address, "hold_bps": 2_000, "hold_seconds": HOLD} | changes)

    def signed(self, message: Struct, owner: PrivateKey | None = None) -> bytes:
        """A signature of the provider's agent, or of `owner`."""
        return sign(message, self.world.domain, owner or self.provider.agent)

    def open_args(self, offer: Offer | None = None, **changes: Any) -> tuple[Any, ...]:
        """The arguments of `open`, in order."""
        offer = offer or self.offer()
        order = {
            "signature": changes.pop("signature", None) or self.signed(offer),
            "job": JOB,
            "attempt": 1,
            "units": 1,
            "seconds": SECONDS,
            "deposit": DEPOSIT,
            "signer": self.session.address,
        } | changes
        return offer_words(offer), *order.values()

    def open(self, offer: Offer | None = None, **changes: Any) -> Lease:
        """Open a lease."""
        offer = offer or self.offer()
        args = self.open_args(offer, **changes)
        self.send(self.tenant, self.market, "open", *args)
        return self.opened(offer, args)

    def opened(self, offer: Offer, args: tuple[Any, ...]) -> Lease:
        """The lease that `args` have just opened."""
        return lease_of(offer, self.tenant.address, args[2], args[3], args[4], args[7], self.now)

    def voucher(self, lease: Lease, cumulative: int) -> tuple[Any, ...]:
        """The arguments of `redeem`."""
        message = Voucher(lease.channel, Amount(cumulative))
        return lease.as_tuple(), cumulative, self.signed(message, self.session)

    def redeem(self, lease: Lease, cumulative: int) -> None:
        """Bring a voucher."""
        self.send(self.stranger, self.market, "redeem", *self.voucher(lease, cumulative))

    def close(self, lease: Lease, cumulative: int) -> None:
        """End with a voucher, or with none when `cumulative` is zero."""
        args = self.voucher(lease, cumulative) if cumulative else (lease.as_tuple(), 0, b"")
        self.send(self.provider, self.market, "close", *args, 1)

    def release_args(self, lease: Lease, settled: int) -> tuple[Any, ...]:
        """The arguments of `release`."""
        return lease.as_tuple(), settled, self.signed(Release(lease.channel, Amount(settled))), 1

    def extend_args(self, lease: Lease, ends_at: int) -> tuple[Any, ...]:
        """The arguments of `extend`."""
        return lease.as_tuple(), ends_at, self.signed(Extend(lease.channel, ends_at))
