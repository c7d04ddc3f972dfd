"""Whether a trace is the one that was ordered; every way in which it can be another is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minga.core.codec import parse_json
from minga.core.errors import InvalidInput
from minga.core.work import Trace
from minga.verify.leaves import state_name
from minga.verify.ordered import FACTS, LEAVES, check_ordered, mended
from traces import facts, facts_text

ORDERED = Trace(every=2, keep=4)
HASHES = [bytes([number]) * 32 for number in range(9)]
NAMES = {FACTS, LEAVES, "result", *(f"trace/{state_name(leaf)}" for leaf in (0, 4, 8))}


def told(**changes: Any) -> bytes:
    return facts_text(**({"leaves": 9, "every": 2, "keep": 4, "steps": 15} | changes)).encode()


def test_a_trace_as_it_was_ordered_gives_its_leaves() -> None:
    assert check_ordered(ORDERED, told(), b"".join(HASHES), NAMES) == HASHES
    assert check_ordered(ORDERED, told(steps=16), b"".join(HASHES), NAMES) == HASHES, "the last leaf may be shorter"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"determinism": "D2"}, "the trace has determinism D2, ordered was D0"),
        ({"every": 3, "steps": 24}, "the trace has every 3, ordered was 2"),
        ({"keep": 5}, "the trace has keep 5, ordered was 4"),
        ({"leaves": 8, "steps": 13}, "288 bytes of leaves for 8 leaves"),
        ({"steps": 17}, "do not belong together"),
        ({"version": 2}, "another version"),
        ({"determinism": "D9"}, "another version"),
        ({"more": 1}, "other fields"),
        ({"every": "2"}, "other fields"),
    ],
)
def test_other_numbers_are_another_trace(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        check_ordered(ORDERED, told(**changes), b"".join(HASHES), NAMES)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7", b"null", b'{"version":1}', b"x" * 5000])
def test_what_is_no_trace_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"trace\.json is not that of a trace"):
        check_ordered(ORDERED, text, b"".join(HASHES), NAMES)


def test_torn_leaves_and_lost_states_cannot_be_served() -> None:
    for data in (b"", b"".join(HASHES)[:-1], b"".join(HASHES) + b"x"):
        with pytest.raises(InvalidInput, match="bytes of leaves for 9 leaves"):
            check_ordered(ORDERED, told(), data, NAMES)
    for leaf in (0, 4, 8):
        with pytest.raises(InvalidInput, match=f"the state at leaf {leaf} is not there"):
            check_ordered(ORDERED, told(), b"".join(HASHES), NAMES - {f"trace/{state_name(leaf)}"})


def test_what_a_killed_job_left_is_made_whole_once(tmp_path: Path) -> None:
    (tmp_path / "trace.json").write_bytes(told(leaves=5, steps=8))
    (tmp_path / "leaves.bin").write_bytes(b"".join(HASHES) + b"torn")
    numbers, leaves = mended(tmp_path)
    assert parse_json(numbers) == facts(9, every=2, keep=4, steps=16)
    assert leaves == b"".join(HASHES)
    assert check_ordered(ORDERED, numbers, leaves, NAMES) == HASHES
    (tmp_path / "trace.json").write_bytes(numbers)
    (tmp_path / "leaves.bin").write_bytes(leaves)
    assert mended(tmp_path) == (numbers, leaves)
    (tmp_path / "leaves.bin").unlink()
    with pytest.raises(InvalidInput):
        mended(tmp_path)
