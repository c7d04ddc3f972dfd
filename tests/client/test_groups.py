"""What a person reads when several tasks failed at once."""

from __future__ import annotations

import pytest

from minga.client.groups import first_of
from minga.core.errors import DiskFull, NotFound


def test_the_first_of_our_errors_is_found_however_deep() -> None:
    ours, later = DiskFull("no room", "free some"), NotFound("nothing", "")
    group = BaseExceptionGroup("tasks", [ValueError("x"), BaseExceptionGroup("inner", [ours, OSError(5)]), later])
    assert first_of(BaseExceptionGroup("outer", [BaseExceptionGroup("one", [later])])) is later
    with pytest.raises(BaseExceptionGroup) as caught:
        first_of(BaseExceptionGroup("tasks", [BaseExceptionGroup("inner", [OSError(5), KeyError("x")])]))
    assert caught.group_contains(OSError), "a defect is shown as it is, not as one of ours"
    assert first_of(group) is ours
