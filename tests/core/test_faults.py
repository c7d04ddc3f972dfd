"""Fault points are declared, and do nothing unless a handler was installed."""

from __future__ import annotations

import pytest

from minga.core import faults


def test_points_call_handlers_only_while_installed(monkeypatch):
    monkeypatch.setattr(faults, "POINTS", {})
    faults.declare({"test.here": "nothing"})
    seen = []
    handler = seen.append
    faults.reach("test.here")
    faults.install(handler)
    try:
        faults.reach("test.here")
    finally:
        faults.remove(handler)
    faults.remove(handler)
    faults.reach("test.here")
    assert seen == ["test.here"]


def test_an_undeclared_point_is_an_error():
    with pytest.raises(KeyError):
        faults.reach("test.nowhere")
