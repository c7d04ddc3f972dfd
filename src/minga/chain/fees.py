"""The fee policy: what a transaction may cost per gas, and how long it may wait. Pure; amounts are wei."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minga.chain.blocks import quantity
from minga.core.errors import BadAnswer, FeeTooHigh

GWEI = 10**9


@dataclass(frozen=True, slots=True)
class Fees:
    """The fee policy. Fees in wei per gas; `gas_margin` and `bump` are percent on top, `stuck_seconds` until a bump.

    `patience_seconds`: how long RPC failures are ridden out while waiting for a transaction.
    """

    max_fee_cap: int = 500 * GWEI
    priority_fee_cap: int = 50 * GWEI
    gas_margin: int = 25
    bump: int = 25
    stuck_seconds: float = 30.0
    patience_seconds: float = 60.0

    def of(self, block: Any, priority: Any) -> tuple[int, int]:
        """Priority and max fee in wei per gas: the base fee may double before the transaction waits (EIP-1559).

        Args:
            block: the latest block as a node gives it.
            priority: the node's answer to `eth_maxPriorityFeePerGas`.

        Raises:
            BadAnswer: the chain has no base fee.
            FeeTooHigh: over the cap; nothing is sent.
        """
        try:
            base = quantity(block["baseFeePerGas"])
        except (KeyError, TypeError) as error:
            raise BadAnswer("blocks have no base fee", "this chain has no EIP-1559; use one that has") from error
        priority_fee = min(quantity(priority), self.priority_fee_cap)
        if base + priority_fee > self.max_fee_cap:
            raise FeeTooHigh(
                f"gas costs {(base + priority_fee) // GWEI} gwei, the cap is {self.max_fee_cap // GWEI}",
                "wait, or raise the cap",
            )
        return priority_fee, min(2 * base + priority_fee, self.max_fee_cap)
