"""How results and errors look: tables of eighty columns whose numbers are whole, text alone, one form of error."""

from __future__ import annotations

import errno
import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from minga.cli.output import (
    as_minga_error,
    debugging,
    plain,
    print_error,
    print_facts,
    print_json,
    print_table,
    short,
)
from minga.core.errors import InternalError, InvalidInput, NoMatch, NotFound, RpcUnavailable

HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x1b[0m\u202egnp\x9b2J\r\n"


@given(st.text(max_size=200))
@example(HOSTILE)
@example("\ud800\x1b")
def test_plain_text_is_one_line_that_commands_nothing(text: str) -> None:
    found = plain(text)
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in found)
    assert not set(found) & set("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    found.encode()


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200))
def test_plain_text_that_is_plain_stays(text: str) -> None:
    assert plain(text) == text


@given(
    rows=st.lists(
        st.tuples(st.from_regex(r"\$[0-9]{1,18}\.[0-9]{2}", fullmatch=True), st.text("abc xyz", max_size=200)),
        min_size=1, max_size=6,
    )
)  # fmt: skip
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_number_is_never_cut_however_long_the_rest(
    rows: list[tuple[str, str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    capsys.readouterr()
    print_table((">price", "~what"), rows, "nothing")
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert all(price in shown for price, _ in rows)


def test_markup_and_escapes_in_a_cell_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "~more"), [(HOSTILE, "[bold]x[/bold] :smile:")], "nothing")
    shown = capsys.readouterr().out
    assert "redgnp" in shown
    assert "[bold]x[/bold] :smile:" in shown
    assert not set(shown) & {"\x1b", "\x07", "\x9b", "\u202e", "\r"}


def test_an_empty_table_is_a_hint_and_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a",), iter([]), "nothing yet")
    assert capsys.readouterr() == ("", "nothing yet\n")


def test_facts_stand_in_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts([("a", "1"), ("longer", "2")])
    assert capsys.readouterr().out == "a       1\nlonger  2\n"
    print_facts([])
    assert capsys.readouterr().out == ""


def test_json_keeps_amounts_beyond_the_floats_and_other_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"amount": 2**64 + 1, "name": "漢字"})
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"amount": 2**64 + 1, "name": "漢字"}
    assert "漢字" in shown


def test_only_long_names_are_shortened() -> None:
    assert short("0x" + "ab" * 20) == "0xabababab…"
    assert short("p1") == "p1"
    assert short("123456789012") == "123456789012"


# --------------------------------------------------------------------------------------------------------------- errors


def test_an_error_is_its_code_fact_counts_and_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    excluded = {"region": 2, "gpus": 7, "egress": 2}
    error = NoMatch("none of 9 offers matches", "ask for less", excluded=excluded)
    print_error(error, as_json=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "no-match: none of 9 offers matches", "    gpus excludes 7", "    egress excludes 2", "    region excludes 2",
        "  → ask for less",
    ]  # fmt: skip
    print_error(error, as_json=True)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["error"]["details"]["excluded"] == excluded


def test_an_error_without_a_remedy_shows_none(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(NotFound("it is gone", ""), as_json=False)
    assert capsys.readouterr().err == "not-found: it is gone\n"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "disk-full"), (errno.EDQUOT, "disk-full"), (errno.ENOENT, "not-found"),
        (errno.EACCES, "invalid-input"), (errno.EROFS, "invalid-input"), (errno.EISDIR, "invalid-input"),
        (errno.EIO, InternalError.code),
    ],
)  # fmt: skip
def test_the_systems_errors_are_told_by_kind_with_the_file(number: int, code: str) -> None:
    found = as_minga_error(OSError(number, "why it is so", "/some/file"))
    assert found.code == code
    assert found.fact == "why it is so (/some/file)"
    assert found.remedy
    assert as_minga_error(OSError(number, "why")).fact == "why"


def test_of_many_errors_the_first_of_ours_is_shown_however_deep() -> None:
    ours = RpcUnavailable("no node answers", "see the network")
    inner = BaseExceptionGroup("inner", [ValueError("x"), ours])
    assert as_minga_error(BaseExceptionGroup("outer", [OSError(5, "io"), inner])) is ours
    only = as_minga_error(BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [OSError(errno.ENOENT, "no")])]))
    assert isinstance(only, NotFound)


def test_a_defect_is_told_as_one_and_bounded() -> None:
    found = as_minga_error(KeyError("k" * 5000))
    assert isinstance(found, InternalError)
    assert found.fact.startswith("KeyError: ")
    assert len(found.fact) <= 300
    assert "MINGA_DEBUG=1" in found.remedy
    assert as_minga_error(error := InvalidInput("a", "b")) is error


@pytest.mark.parametrize(("value", "wanted"), [("", False), ("0", False), ("1", True), ("yes", True)])
def test_tracebacks_are_for_those_who_ask(value: str, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINGA_DEBUG", value)
    assert debugging() is wanted
    monkeypatch.delenv("MINGA_DEBUG")
    assert not debugging()
