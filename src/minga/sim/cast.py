"""How a hostile actor enters a world: what it is told, and what it may make there.

Knows: the world's parts that any stranger meets. Does not know: the world's plan of faults. Rule: an actor names its
bound before it plays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from minga.sim.provider import Ask, Provider
    from minga.sim.world import World

Bound = Literal["nothing", "quantum", "clock"]
Side = Literal["provider", "tenant", "board", "rpc"]


class Crowd:
    """The hostile part of a world, as its actors see it."""

    def __init__(self, world: World) -> None:
        """Nobody yet."""
        self.world = world


@dataclass(frozen=True)
class Actor:
    """One hostile actor. Honest tenants of its worlds check their checkpoints where it `needs` "accept", and have a
    deadline where it needs "deadline": what nobody can see must at least end.
    """

    name: str
    side: Side
    bound: Bound
    story: str
    enter: Callable[[Crowd, str], None]
    needs: str = ""


def seller(name: str, bound: Bound, kind: type[Provider], ask: Callable[[World], Ask], needs: str = "") -> Actor:
    """A hostile provider of class `kind`, whose docstring is its story."""

    def enter(crowd: Crowd, node: str) -> None:
        made = crowd.world.provider(node, kind, ask(crowd.world))
        made.loss_bound = bound

    return Actor(name, "provider", bound, _story(kind), enter, needs)


def _story(kind: object) -> str:
    return (kind.__doc__ or "").split("\n")[0]


__all__ = ["Actor", "Bound", "Crowd", "Side", "seller"]
