"""Named points at which a test may kill the process, as kill -9 would, to prove that nothing is lost there.

`reach("client.open.sent")` does nothing unless the composition root installed a handler (`install`); the command
line's handler kills the process when the environment asks for that point. Every point is declared, so that a test can
walk all of them; reaching an undeclared name is an error, which keeps the list whole.
"""

from __future__ import annotations

from collections.abc import Callable

POINTS: dict[str, str] = {}
"""Point → what was just done when it is reached. Filled by `declare` at import of the modules that have them."""

_handlers: list[Callable[[str], None]] = []


def declare(points: dict[str, str]) -> None:
    """Add a module's points; called once at import."""
    POINTS.update(points)


def install(handler: Callable[[str], None]) -> None:
    """Call `handler(point)` at every point from now on (tests and the command line only)."""
    _handlers.append(handler)


def remove(handler: Callable[[str], None]) -> None:
    """Undo `install`; idempotent."""
    if handler in _handlers:
        _handlers.remove(handler)


def reach(point: str) -> None:
    """Say that `point` was reached.

    Raises:
        KeyError: the point was not declared.
    """
    POINTS[point]
    for handler in tuple(_handlers):
        handler(point)
