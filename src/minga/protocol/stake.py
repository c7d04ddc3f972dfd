"""The token and the stakes, as Market relies on them: the executable specification of Registry.

What it is: a ledger that moves exactly what it says, and stake that a provider puts under one arbiter each. What it
does not know: leases, beyond the exposure that their Market locks; attestations and web addresses, which are events.

Rule: stake leaves only by unbonding or by its own arbiter's verdict; while it covers leases it does not unbond. A
refused call raises `ContractError` with the contract's revert string and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from minga.core.crypto import ZERO_ADDRESS, Address
from minga.core.errors import ContractError

UNBONDING_SECONDS = 21 * 86400
FACTOR_MAX = 1000
STAKE_AMOUNT_MAX = 2**128 - 1
ALLOWANCE_UNLIMITED = 2**256 - 1

Key = tuple[Address, Address]


def require(condition: bool, reason: str) -> None:
    """Raise the contract's revert string unless `condition` holds."""
    if not condition:
        raise ContractError(reason)


@dataclass
class Ledger:
    """The token as the contracts trust it: exact transfers, truthful answers; it may freeze anybody at any time.

    `balances`, `allowances` (owner, spender) and amounts are token units; a frozen address neither pays nor receives.
    """

    balances: dict[Address, int] = field(default_factory=dict)
    allowances: dict[Key, int] = field(default_factory=dict)
    frozen: set[Address] = field(default_factory=set)

    def balance(self, owner: Address) -> int:
        """Token units that `owner` holds."""
        return self.balances.get(owner, 0)

    def can_move(self, sender: Address, receiver: Address, amount: int) -> bool:
        """Whether a transfer would go through."""
        return self.balance(sender) >= amount and not self.frozen & {sender, receiver}

    def can_pull(self, owner: Address, spender: Address, amount: int) -> bool:
        """Whether `spender` may move `amount` from `owner` to itself."""
        return self.allowances.get((owner, spender), 0) >= amount and self.can_move(owner, spender, amount)

    def move(self, sender: Address, receiver: Address, amount: int) -> bool:
        """Transfer; False, and no change, when it cannot go through."""
        if not self.can_move(sender, receiver, amount):
            return False
        self.balances[sender] = self.balance(sender) - amount
        self.balances[receiver] = self.balance(receiver) + amount
        return True

    def pull(self, owner: Address, spender: Address, amount: int) -> None:
        """Transfer out of an allowance that `can_pull` has checked."""
        allowed = self.allowances.get((owner, spender), 0)
        if allowed != ALLOWANCE_UNLIMITED:
            self.allowances[owner, spender] = allowed - amount
        self.move(owner, spender, amount)


@dataclass(frozen=True, slots=True)
class Stake:
    """What a provider has under one arbiter: backing leases, exposure answered for, on its way out, and until when."""

    staked: int = 0
    locked: int = 0
    unbonding: int = 0
    free_at: int = 0


NO_STAKE = Stake()


@dataclass
class Registry:
    """Agent keys, and stake opted in per arbiter; `factor * locked ≤ staked` unless the arbiter slashed."""

    address: Address
    ledger: Ledger
    agents: dict[Address, Address] = field(default_factory=dict)
    markets: dict[Address, tuple[Address, int]] = field(default_factory=dict)
    stakes: dict[Key, Stake] = field(default_factory=dict)

    def register(self, sender: Address, agent: Address) -> None:
        """Enter `sender` as a provider whose offers `agent` signs."""
        require(sender not in self.agents, "registry: already registered")
        require(agent != ZERO_ADDRESS, "registry: no agent key")
        self.agents[sender] = agent

    def update(self, sender: Address, agent: Address) -> None:
        """Replace the agent key."""
        require(sender in self.agents, "registry: not registered")
        require(agent != ZERO_ADDRESS, "registry: no agent key")
        self.agents[sender] = agent

    def appoint(self, sender: Address, market: Address, factor: int) -> None:
        """An arbiter names its Market and its stake factor, once."""
        require(sender not in self.markets, "registry: already appointed")
        require(market != ZERO_ADDRESS, "registry: no market")
        require(1 <= factor <= FACTOR_MAX, "registry: bad factor")
        self.markets[sender] = market, factor

    def stake_of(self, provider: Address, arbiter: Address) -> Stake:
        """What `provider` has at stake under `arbiter`."""
        return self.stakes.get((provider, arbiter), NO_STAKE)

    def stake(self, sender: Address, arbiter: Address, amount: int) -> None:
        """Put tokens under an arbiter."""
        require(amount > 0, "registry: no amount")
        require(amount <= STAKE_AMOUNT_MAX, "registry: amount too large")
        require(arbiter in self.markets, "registry: unknown arbiter")
        require(self.ledger.can_pull(sender, self.address, amount), "registry: transfer failed")
        held = self.stake_of(sender, arbiter)
        self.stakes[sender, arbiter] = replace(held, staked=held.staked + amount)
        self.ledger.pull(sender, self.address, amount)

    def check_lock(self, market: Address, provider: Address, arbiter: Address, exposure: int) -> None:
        """What `lock` checks."""
        named, factor = self.markets.get(arbiter, (ZERO_ADDRESS, 0))
        require(named == market, "registry: not the market")
        held = self.stake_of(provider, arbiter)
        require((held.locked + exposure) * factor <= held.staked, "registry: stake too small")

    def lock(self, market: Address, provider: Address, arbiter: Address, exposure: int) -> None:
        """A lease has `exposure` more at risk."""
        self.check_lock(market, provider, arbiter, exposure)
        held = self.stake_of(provider, arbiter)
        self.stakes[provider, arbiter] = replace(held, locked=held.locked + exposure)

    def unlock(self, market: Address, provider: Address, arbiter: Address, exposure: int) -> None:
        """That much is at risk no longer."""
        require(self.markets.get(arbiter, (ZERO_ADDRESS, 0))[0] == market, "registry: not the market")
        held = self.stake_of(provider, arbiter)
        self.stakes[provider, arbiter] = replace(held, locked=held.locked - min(held.locked, exposure))

    def slash(self, sender: Address, provider: Address, amount: int, receiver: Address) -> int:
        """The arbiter takes stake under it, unbonding tokens first; what it got, token units."""
        require(receiver not in (ZERO_ADDRESS, self.address), "registry: bad receiver")
        held = self.stake_of(provider, sender)
        from_unbonding = min(amount, held.unbonding)
        from_staked = min(amount - from_unbonding, held.staked)
        taken = from_unbonding + from_staked
        require(taken > 0, "registry: nothing at stake")
        require(self.ledger.can_move(self.address, receiver, taken), "registry: transfer failed")
        self.stakes[provider, sender] = replace(
            held, unbonding=held.unbonding - from_unbonding, staked=held.staked - from_staked
        )
        self.ledger.move(self.address, receiver, taken)
        return taken

    def start_unstake(self, sender: Address, arbiter: Address, amount: int, now: int) -> None:
        """Take stake that covers no lease out of use."""
        require(amount > 0, "registry: no amount")
        held, factor = self.stake_of(sender, arbiter), self.markets.get(arbiter, (ZERO_ADDRESS, 0))[1]
        left = held.staked - amount
        require(left >= 0 and left >= held.locked * factor, "registry: stake is locked")
        self.stakes[sender, arbiter] = replace(
            held, staked=left, unbonding=held.unbonding + amount, free_at=now + UNBONDING_SECONDS
        )

    def finish_unstake(self, sender: Address, arbiter: Address, receiver: Address, now: int) -> None:
        """Send unbonded tokens away."""
        require(receiver not in (ZERO_ADDRESS, self.address), "registry: bad receiver")
        held = self.stake_of(sender, arbiter)
        require(held.unbonding > 0, "registry: nothing unbonding")
        require(now >= held.free_at, "registry: still unbonding")
        require(self.ledger.can_move(self.address, receiver, held.unbonding), "registry: transfer failed")
        self.stakes[sender, arbiter] = replace(held, unbonding=0)
        self.ledger.move(self.address, receiver, held.unbonding)
