"""One error out of an exception group: a task group wraps what its tasks raise, a person reads one line."""

from __future__ import annotations

from typing import Any

from minga.core.errors import MingaError


def first_of(group: BaseExceptionGroup[Any]) -> MingaError:
    """The first of our errors in a group; a bare one also comes as a group of one."""
    for error in group.exceptions:
        found = first_of(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, MingaError):
            return found
    raise group
