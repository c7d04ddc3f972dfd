"""The base of every contract's refusal, and the table from revert string to class.

Does not know any contract (`errors` and `dispute_errors` fill the table). Rule: one class for one revert string.
"""

from __future__ import annotations

from typing import Any, ClassVar

from minga.core.errors import ContractError

REFUSALS: dict[str, type[Refusal]] = {}
"""Revert string → its class."""


class Refusal(ContractError):
    """A contract refused a call for a reason that it named."""

    reason: ClassVar[str] = ""
    advice: ClassVar[str] = ""

    def __init_subclass__(cls, reason: str, remedy: str, **options: Any) -> None:
        super().__init_subclass__(**options)
        assert reason not in REFUSALS, f"two classes for {reason!r}"
        cls.reason, cls.advice = reason, remedy
        cls.code = reason.replace(": ", "-").replace(" ", "-")
        REFUSALS[reason] = cls

    def __init__(self, **details: Any) -> None:
        super().__init__(" ".join((type(self).__doc__ or "").split()).rstrip("."), self.advice, **details)
