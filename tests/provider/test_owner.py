"""The owner's wish in the journal: the last word counts, whoever reads it and from where on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.core.errors import InternalError, InvalidInput
from minga.provider import owner
from minga.provider.owner import Wish, fold
from minga.store.journal import Journal, Record


def test_the_last_word_counts(tmp_path: Path):
    journal = Journal(tmp_path / "j")
    assert owner.read_wish(journal) == Wish()
    assert owner.take_back(journal, " a guest ", False, 100) == Wish(True, "a guest", 100, 0, 1)
    assert owner.take_back(journal, "two guests", True, 200) == Wish(True, "two guests", 100, 2, 2)
    assert owner.offer_again(journal, 300)
    assert owner.read_wish(journal) == Wish(False, "", 300, 2, 3)
    assert not owner.offer_again(journal, 400)
    assert owner.read_wish(journal).seen == 3


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201, "two\nlines", "\x1b[31m"])
def test_a_reason_is_one_plain_line(tmp_path: Path, reason: str):
    journal = Journal(tmp_path / "j")
    with pytest.raises(InvalidInput):
        owner.take_back(journal, reason, False, 1)
    assert owner.read_wish(journal) == Wish()


def test_a_provider_that_works_is_seen_from_outside(tmp_path: Path):
    inside, outside = Journal(tmp_path / "j"), Journal(tmp_path / "j")
    assert not owner.is_working(outside)
    with inside.exclusive(owner.WORKING):
        assert owner.is_working(outside)
        assert owner.take_back(outside, "r", False, 1) == owner.read_wish(inside)
    assert not owner.is_working(outside)


def test_a_wish_of_another_version_is_refused():
    with pytest.raises(InternalError, match="Dreamt"):
        fold(Wish(), [Record("owner", 1, 1, "Dreamt", {})])


words = st.one_of(
    st.tuples(st.just("TakenBack"), st.fixed_dictionaries({"reason": st.text(max_size=3), "revoke": st.booleans()})),
    st.tuples(st.just("Offered"), st.just({})),
)


@given(st.lists(words, max_size=12), st.integers(0, 12))
def test_reading_on_is_reading_all(said: list[tuple[str, dict]], cut: int):
    records = [Record("owner", number, 10 * number, kind, body) for number, (kind, body) in enumerate(said, 1)]
    whole = fold(Wish(), records)
    assert fold(fold(Wish(), records[:cut]), records[cut:]) == whole
    assert whole.seen == len(records)
    assert whole.taken_back == bool(said and said[-1][0] == "TakenBack")
    assert whole.revoke == max((n for n, (_, body) in enumerate(said, 1) if body.get("revoke")), default=0)
