"""What a world is made of, and how it ended: plain values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Shape:
    """What a world is made of. `actor` forces one hostile actor; `plain` switches faults and hostility off."""

    seed: int
    agents: int = 12
    minutes: int = 6
    actor: str = ""
    plain: bool = False


@dataclass
class Outcome:
    """How a world ended. `violation` is empty when every rule held."""

    seed: int
    trace: str
    violation: str
    last: list[str]
    jobs: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    actors: tuple[str, ...] = ()
    events: int = 0
    steps: int = 0
    checks: int = 0
    messages: int = 0
    transactions: int = 0
    crashes: int = 0
    seconds: int = 0


def shape_of(seed: int) -> Shape:
    """The small world of a campaign's seed: 5 to 20 agents, 3 to 10 minutes."""
    return Shape(seed, agents=5 + seed % 16, minutes=3 + seed // 16 % 8)


__all__ = ["Outcome", "Shape", "shape_of"]
