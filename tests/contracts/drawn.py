"""Dice that Hypothesis throws, so that it can shrink what fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import hypothesis.strategies as st

T = TypeVar("T")


class DrawnDice:
    """`forgeries.Dice` over a Hypothesis data object."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def integer(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return self._data.draw(st.integers(low, high))

    def choice(self, options: Sequence[T]) -> T:
        """One of them."""
        return options[self._data.draw(st.integers(0, len(options) - 1))]
