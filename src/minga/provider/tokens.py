"""What every login of this provider's API shares: how old it may be, how long a token counts, how many may come.

Does not know: who may log in to what. Rule: a token is kept as its hash.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from minga.core.crypto import keccak, to_hex
from minga.core.units import HOUR

CLOCK_TOLERANCE_S = 15 * 60
TOKEN_SECONDS = HOUR


@dataclass
class Bucket:
    """A rate limit: `size` at once, refilled at `per_second`."""

    size: float
    per_second: float
    held: float = field(init=False)
    at: float = 0.0

    def __post_init__(self) -> None:
        self.held = self.size

    def take(self, now: float) -> bool:
        """Whether one more may pass at `now` (monotonic seconds)."""
        self.held = min(self.size, self.held + (now - self.at) * self.per_second)
        self.at = now
        if self.held < 1:
            return False
        self.held -= 1
        return True


def token_hash(token: str) -> str:
    """What the journal keeps of a token."""
    return to_hex(keccak(token.encode()))
