"""A faster `dataclasses.replace` for the agents while a world runs: the same values, without the frozen `__init__`.

A third of a simulated life goes into copying states of forty fields one by one. Here a copy is one dictionary's, or
that of its slots. Worlds with real keys go without, and a test holds that one seed gives one trace with it and without.
Rule: only for classes whose `__init__` does nothing but store fields; any other goes the usual way.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PLACES = ("minga.protocol.job", "minga.provider.turn", "minga.provider.rules_")
"""Beginnings of the names of the modules that copy states."""

_plans: dict[type, tuple[frozenset[str], tuple[Any, ...] | None]] = {}


def replace(value: Any, /, **changes: Any) -> Any:
    """As `dataclasses.replace`.

    Raises:
        TypeError: a change that is no field.
    """
    kind = type(value)
    names, slots = _plans.get(kind) or _plan(value)
    if not names.issuperset(changes):
        return dataclasses.replace(value, **changes)
    made = object.__new__(kind)
    if slots is None:
        made.__dict__.update(value.__dict__)
        made.__dict__.update(changes)
        return made
    for slot in slots:
        name = slot.__name__
        slot.__set__(made, changes[name] if name in changes else slot.__get__(value))
    return made


def _plan(value: Any) -> tuple[frozenset[str], tuple[Any, ...] | None]:
    """The fields of a class that is copied in the quick way, and its slots; no fields for any other class."""
    kind = type(value)
    fields = dataclasses.fields(kind)
    names = frozenset(item.name for item in fields)
    slots = tuple(vars(kind)[name] for name in names) if names and names <= vars(kind).keys() else None
    if slots is not None and not all(type(slot).__name__ == "member_descriptor" for slot in slots):
        slots = None
    whole = slots is not None or set(getattr(value, "__dict__", ())) == names
    if not whole or hasattr(kind, "__post_init__") or not all(item.init for item in fields):
        return frozenset(), None
    _plans[kind] = names, slots
    return names, slots


@contextmanager
def installed(wanted: bool) -> Iterator[None]:
    """Let the agents copy in this way while it lasts, if it is `wanted`."""
    modules: list[Any] = [
        module
        for name, module in list(sys.modules.items())
        if wanted and name.startswith(PLACES) and getattr(module, "replace", None) is dataclasses.replace
    ]
    for module in modules:
        module.replace = replace
    try:
        yield
    finally:
        for module in modules:
            module.replace = dataclasses.replace


__all__ = ["installed", "replace"]
