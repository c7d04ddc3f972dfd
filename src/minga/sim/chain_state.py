"""What a simulated block changes, and what it leaves to be known of a lease that ended: plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minga.core.crypto import Address, Hash32
from minga.protocol.lease import Account, Lease


@dataclass(frozen=True, slots=True)
class Closing:
    """How a lease ended, in whole-lease totals of token units."""

    deposit: int
    paid: int
    fee: int
    held: int
    refunded: int
    block: int
    by: str


@dataclass
class State:
    """All that a block changes, as it stands after one."""

    leases: dict[Hash32, Lease]
    accounts: dict[Hash32, Account]
    leased: dict[tuple[Address, Hash32], int]
    epochs: dict[Address, int]
    owed: dict[Address, int]
    fees: int
    balances: dict[Address, int]
    allowances: dict[tuple[Address, Address], int]
    agents: dict[Address, Address]
    deposits: dict[Hash32, int]
    closings: dict[Hash32, Closing]
    by_provider: dict[Address, tuple[Hash32, ...]]
    gifts: dict[Hash32, int]

    def copy(self) -> State:
        """The same, in dictionaries of its own."""
        copied: dict[str, Any] = {name: dict(v) if isinstance(v, dict) else v for name, v in vars(self).items()}
        return State(**copied)


__all__ = ["Closing", "State"]
