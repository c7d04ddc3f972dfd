"""Keys and budgets: what is held, what is charged, what a death leaves, what is refused."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import SeededDice, SystemClock
from minga.core.errors import BudgetSpent, Conflict, InternalError, InvalidInput, NotFound, Unauthorized
from minga.gateway.books import Books


def books(path: Path, **more) -> Books:
    return Books(path / "keys.db", SystemClock(), SeededDice(str(path)), **more)


def test_a_secret_is_shown_once_and_found_again(tmp_path):
    book = books(tmp_path)
    secret = book.add("team", 1000, ("m1", "m2"), 5)
    key = book.find(secret)
    assert (key.name, key.models, key.budget, key.left, key.per_minute) == ("team", ("m1", "m2"), 1000, 1000, 5)
    assert secret.encode() not in (tmp_path / "keys.db").read_bytes()
    assert (tmp_path / "keys.db").stat().st_mode & 0o777 == 0o600
    for wrong in ("", secret[:-1], secret.upper()):
        with pytest.raises(Unauthorized):
            book.find(wrong)


def test_a_revoked_key_is_nobody_s(tmp_path):
    book = books(tmp_path)
    secret = book.add("team", 1000)
    book.revoke("team")
    with pytest.raises(Unauthorized, match="revoked"):
        book.find(secret)
    with pytest.raises(NotFound):
        book.revoke("team")
    with pytest.raises(Conflict, match="stays taken"):
        book.add("team", 1)


@pytest.mark.parametrize("values", [("", 1), (" x", 1), ("x" * 65, 1), ("a\nb", 1), ("x", 0), ("x", -1), ("x", 2**63)])
def test_a_key_that_cannot_be_is_refused(tmp_path, values):
    with pytest.raises(InvalidInput):
        books(tmp_path).add(*values)


def test_what_is_held_is_not_there_for_others(tmp_path):
    book = books(tmp_path)
    key = book.find(book.add("team", 100))
    first = book.hold(key, 60)
    with pytest.raises(BudgetSpent, match="could cost"):
        book.hold(key, 41)
    second = book.hold(key, 40)
    assert book.settle(first, 10, 3, 4) == 10
    assert book.settle(first, 10) == 0, "settling twice charges once"
    assert book.settle(second, 400) == 40, "never more than was held"
    (left,) = book.keys()
    assert (left.spent, left.held, left.left) == (50, 0, 50)
    assert (left.requests, left.prompt_tokens, left.completion_tokens) == (2, 3, 4)


def test_a_free_request_of_a_spent_key_passes(tmp_path):
    book = books(tmp_path)
    key = book.find(book.add("team", 1))
    book.settle(book.hold(key, 1), 1)
    assert book.settle(book.hold(key, 0), 0) == 0


def test_what_a_dead_gateway_held_is_charged(tmp_path):
    book = books(tmp_path)
    key = book.find(book.add("team", 100))
    book.hold(key, 30)
    held = book.hold(key, 20)
    book.settle(held, 5)
    again = books(tmp_path, recover=True)
    (left,) = again.keys()
    assert (left.spent, left.held) == (35, 0)
    assert again.settle(held, 5) == 0


def test_another_process_that_looks_frees_nothing(tmp_path):
    book = books(tmp_path)
    book.hold(book.find(book.add("team", 100)), 30)
    assert books(tmp_path).keys()[0].held == 30


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.lists(st.tuples(st.integers(0, 90), st.integers(0, 120)), max_size=12))
def test_a_budget_is_never_passed_and_every_unit_is_somewhere(tmp_path_factory, budget, requests):
    book = books(tmp_path_factory.mktemp("book"))
    key = book.find(book.add("team", budget))
    expected, open_holds = 0, []
    for amount, cost in requests:
        try:
            open_holds.append((book.hold(key, amount), cost))
        except BudgetSpent:
            state = book.keys()[0]
            assert state.left < amount
        if len(open_holds) > 2:
            hold, cost = open_holds.pop(0)
            expected += book.settle(hold, cost)
        state = book.keys()[0]
        assert state.spent == expected
        assert state.held == sum(hold.amount for hold, _ in open_holds)
        assert state.spent + state.held <= budget


def test_many_threads_cannot_overdraw(tmp_path):
    book = books(tmp_path)
    key = book.find(book.add("team", 1000))
    charged: list[int] = []

    def spend() -> None:
        for _ in range(20):
            try:
                charged.append(book.settle(book.hold(key, 17), 13))
            except BudgetSpent:
                charged.append(0)

    threads = [threading.Thread(target=spend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = book.keys()[0]
    assert state.spent == sum(charged) <= 1000
    assert state.left < 17, "it was spent as far as it goes"


def test_a_file_that_is_no_book_is_named(tmp_path):
    (tmp_path / "keys.db").write_bytes(b"not a database" * 100)
    with pytest.raises(InternalError):
        books(tmp_path)


def test_the_file_itself_refuses_an_overdraft(tmp_path):
    book = books(tmp_path)
    book.add("team", 10)
    with sqlite3.connect(tmp_path / "keys.db") as db, pytest.raises(sqlite3.IntegrityError):
        db.execute("UPDATE key SET spent = 11")
