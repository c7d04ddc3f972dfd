"""How a job's end becomes an exit code, and how jobs are named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from minga.cli.jobs import exit_code, short_id


@pytest.mark.parametrize(
    ("phase", "code", "reason", "expected"),
    [
        ("done", 0, "done", 0),
        ("done", None, "done", 0),
        ("failed", 7, "the job ended with code 7", 7),
        ("failed", 300, "", 255),
        ("failed", None, "", 1),
        ("failed", None, "no-match: nobody has one", 3),
        ("failed", None, "provider-unreachable: gone", 4),
        ("failed", None, "rpc-unavailable: down", 5),
        ("stopped", None, "asked by the tenant", 130),
        ("stopped", 143, "asked by the tenant", 130),
        ("stopped", None, "deadline-passed: the deadline came before the end", 3),
        ("exhausted", None, "the budget is spent", 3),
    ],
)
def test_exit_codes(phase: str, code: int | None, reason: str, expected: int) -> None:
    status: Any = SimpleNamespace(phase=phase, exit_code=code, reason=reason)
    assert exit_code(status) == expected


def test_a_short_id_is_a_prefix() -> None:
    job = "0x" + "ab" * 32
    assert job.startswith(short_id(job))
    assert len(short_id(job)) >= 6
