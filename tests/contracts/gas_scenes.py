"""What each call costs, from receipts: scenes that end in one transaction, on any machine that gives receipts.

Steady state means: the machine was leased before, fees were earned before, every balance that is written holds
something before and after, and an unlimited allowance is in place. `_first` means the opposite where it matters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dispute_gas
from evm import Machine
from stage import DEPOSIT, HOLD, WINDOW, Stage
from token_signatures import authorization_signature, permit_signature

from minga.protocol.lease import Lease

HALF = DEPOSIT // 2
OPEN_GAS_TARGET = 150_000
OPEN_AND_CLOSE_GAS_TARGET = 230_000


class Scenes:
    """One deployment; each measured call leaves the state as steady as it found it."""

    def __init__(self, machine: Machine) -> None:
        self.stage = Stage(machine)
        self.attempt = 0
        self.gas: dict[str, int] = {}

    def measure(self) -> dict[str, int]:
        """Gas by scene."""
        lease = self.opened("open_first")
        self.note("close_first", lambda: self.stage.close(lease, HALF))
        for scene in (self.leases, self.ends, self.arbitrated, self.others):
            scene()
        return self.gas

    def note(self, name: str, act: Callable[[], Any]) -> Any:
        """Run and keep what the receipt says."""
        answer = act()
        self.gas[name] = self.stage.machine.gas_used
        return answer

    def opened(self, name: str = "", **how: Any) -> Lease:
        """A new lease, with a new id."""
        self.attempt += 1
        lease = self.stage.open(**{"attempt": self.attempt} | how)
        if name:
            self.gas[name] = self.stage.machine.gas_used
        return lease

    def send(self, name: str, who: str, call: str, *args: Any) -> None:
        """A measured call to Market."""
        self.note(name, lambda: self.stage.send(getattr(self.stage, who), self.stage.market, call, *args))

    def leases(self) -> None:
        """Opening in every way, and what a running lease sees."""
        stage = self.stage
        lease = self.opened("open")
        self.send("top_up", "tenant", "top_up", lease.as_tuple(), 1_000)
        self.send("extend", "tenant", "extend", *stage.extend_args(lease, stage.now + 86_400))
        self.note("redeem", lambda: stage.redeem(lease, 2_000))
        self.note("redeem_stale", lambda: stage.redeem(lease, 1_500))
        self.note("close", lambda: stage.close(lease, HALF))
        stage.send(stage.tenant, stage.token, "approve", stage.market.address, 10 * DEPOSIT)
        lease = self.opened("open_with_limited_allowance")
        self.note("close_without_voucher", lambda: stage.close(lease, 0))
        stage.close(self.funded("open_with_permit_first", self.permit()), HALF)
        stage.close(self.funded("open_with_permit", self.permit()), HALF)
        stage.close(self.funded("open_with_authorization", self.authorization()), HALF)
        stage.send(stage.tenant, stage.token, "approve", stage.market.address, 2**256 - 1)

    def funded(self, name: str, how: tuple[Any, ...]) -> Lease:
        """A lease opened with a permit or an authorization."""
        self.attempt += 1
        offer = self.stage.offer()
        args = self.stage.open_args(offer, attempt=self.attempt)
        self.send(name, "tenant", name.removesuffix("_first"), *args, how)
        return self.stage.opened(offer, args)

    def permit(self) -> tuple[Any, ...]:
        """A permit for twice the deposit, so that it leaves an allowance."""
        owner, deadline = self.stage.tenant, self.stage.now + 3_600
        nonce = self.stage.token.view("nonces", owner.address)[0]
        v, r, s = permit_signature(self.stage.world, owner.address, 2 * DEPOSIT, nonce, deadline, owner.key)
        return 2 * DEPOSIT, deadline, v, r, s

    def authorization(self) -> tuple[Any, ...]:
        """A signed transfer of the deposit."""
        owner, before, nonce = self.stage.tenant, self.stage.now + 3_600, b"n" * 32
        v, r, s = authorization_signature(self.stage.world, owner.address, DEPOSIT, 0, before, nonce, owner.key)
        return 0, before, nonce, v, r, s

    def ends(self) -> None:
        """The ways out besides close."""
        stage = self.stage
        lease = self.opened()
        self.send("release", "tenant", "release", *stage.release_args(lease, HALF))
        lease = self.opened()
        self.send("start_close", "tenant", "start_close", lease.as_tuple(), 0)
        stage.wait(WINDOW + 1)
        self.send("finish_close", "stranger", "finish_close", lease.as_tuple())

    def arbitrated(self) -> None:
        """A lease with an arbiter: stake is locked, a part is held."""
        stage = self.stage
        for name in ("resolve", "finish_hold"):
            lease = self.opened("open_arbiter", offer=stage.held_offer())
            stage.close(lease, HALF)
            self.gas["close_arbiter"] = stage.machine.gas_used
            if name == "resolve":
                self.send("resolve", "arbiter", "resolve", lease.as_tuple(), 1_000)
            else:
                stage.wait(HOLD + 1)
                self.send("finish_hold", "stranger", "finish_hold", lease.as_tuple())

    def others(self) -> None:
        """What is no lease."""
        stage, registry = self.stage, self.stage.registry
        self.send("collect_fees_first", "stranger", "collect_fees")
        stage.close(self.opened(), HALF)
        self.send("collect_fees", "stranger", "collect_fees")
        agent = stage.stranger.agent.address
        uri = "https://provider.example:8443"
        self.note("register", lambda: stage.send(stage.stranger, registry, "register", uri, agent))
        self.note("stake", lambda: stage.send(stage.provider, registry, "stake", stage.arbiter.address, DEPOSIT))
        args = (stage.arbiter.address, DEPOSIT)
        stage.send(stage.provider, registry, "start_unstake", *args)
        stage.wait(10)
        self.note("start_unstake", lambda: stage.send(stage.provider, registry, "start_unstake", *args))
        stage.send(stage.provider, stage.market, "cancel_offers")
        self.send("cancel_offers", "provider", "cancel_offers")


def withdraw_gas(machine: Machine) -> int:
    """What it costs to take what is owed, on the token that freezes."""
    stage = Stage(machine, freezing=True)
    lease = stage.open()
    stage.send(stage.stranger, stage.token, "freeze", stage.provider.address, 1)
    stage.close(lease, HALF)
    stage.send(stage.stranger, stage.token, "freeze", stage.provider.address, 0)
    stage.send(stage.provider, stage.market, "withdraw", stage.provider.address)
    return stage.machine.gas_used


def measure(new_machine: Callable[[], Machine]) -> dict[str, int]:
    """Gas by scene, sorted by name."""
    found = Scenes(new_machine()).measure() | {"withdraw": withdraw_gas(new_machine())}
    return dict(sorted((found | dispute_gas.measure(new_machine)).items()))
