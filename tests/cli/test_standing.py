"""A provider's record on a terminal: what it rests on, each lease in a row, and nothing that is not known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.cli.reliability import _print, _rough, _word, standing_dict
from minga.client.records import Standing
from minga.core.units import DAY, HOUR, parse_duration
from minga.protocol.lease import Why
from minga.protocol.reliability import Fact, Ledger, Rules

NOW = 1_800_000_000
USD = 10**6
PROVIDER = "0x" + "0a" * 20


def fact(
    number: int, said: int | None = Why.DONE, tenant: int | None = None, worth: int = 5 * USD, ago: int = HOUR
) -> Fact:
    """A lease that was closed `ago` seconds before now, after two hours."""
    return Fact(
        f"0x{number:064x}", f"0x{number % 2:040x}", PROVIDER, 2 * USD, worth, worth // 100, NOW - ago - 2 * HOUR,
        NOW - ago, said, tenant,
    )  # fmt: skip


def standing(*facts: Fact, doubts: tuple[str, ...] = (), complaints: dict[int, int] | None = None) -> Standing:
    ledger = Ledger(Rules.of(6))
    for item in facts:
        ledger.end(item)
    for number, reason in (complaints or {}).items():
        ledger.complain(PROVIDER, f"0x{number:064x}", reason)
    return Standing(ledger.record(PROVIDER, NOW), ledger.facts(PROVIDER), NOW, doubts)


def shown(found: Standing, capsys: pytest.CaptureFixture[str], limit: int = 20) -> str:
    capsys.readouterr()
    _print(found, 6, limit)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_a_new_provider_has_the_share_that_all_begin_with_and_no_leases(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(standing(), capsys)
    assert "80.00 % (a new provider has 80.00 %)" in text
    assert "leases" not in text
    assert "to fake it" not in text
    assert len(text.splitlines()) == 3


def test_the_record_says_what_it_counts_and_what_it_would_cost_to_fake(capsys: pytest.CaptureFixture[str]) -> None:
    facts = [fact(1), fact(2), fact(3, Why.SHUTTING_DOWN), fact(4, Why.DONE, Why.UNREACHABLE)]
    text = shown(standing(*facts), capsys)
    assert "4 ended: 3 kept (1 reclaimed), 1 spoilt (1 disputed, 0 unpaid)" in text
    assert "$20.00 by 2 tenants" in text
    assert "at least $0.20 in fees" in text
    assert "$20.00 by 1 tenant\n" not in text
    one = shown(standing(fact(2)), capsys)
    assert "$5.00 by 1 tenant\n" in one


def test_each_lease_has_a_row_the_last_first_with_both_words(capsys: pytest.CaptureFixture[str]) -> None:
    found = standing(
        fact(1, ago=3 * DAY), fact(2, Why.SHUTTING_DOWN), fact(3, None, Why.UNDER_SPEC, ago=2 * HOUR), complaints={1: 7}
    )
    rows = [line.split() for line in shown(found, capsys).splitlines() if line.startswith("0x")]
    assert [row[-1] for row in rows] == ["reclaimed", "spoilt", "disputed"]
    assert "3d" in rows[2]
    text = shown(found, capsys)
    for word in ("shutting", "under", "bad"):
        assert word in text
    assert "complaints" in text


def test_the_list_is_as_long_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    found = standing(*[fact(number) for number in range(30)])
    for limit in (0, 1, 7, 100):
        assert sum(line.startswith("0x") for line in shown(found, capsys, limit).splitlines()) == min(limit, 30)
        assert len(standing_dict(found, limit)["events"]) == min(limit, 30)
    assert "30 ended" in shown(found, capsys, 0)


def test_what_could_not_be_read_is_told_beside_the_record(capsys: pytest.CaptureFixture[str]) -> None:
    _print(standing(doubts=("the chain's history is still being read",)), 6, 5)
    out, err = capsys.readouterr()
    assert err == "the chain's history is still being read\n"
    assert "doubt" not in out


@given(st.integers(0, 400 * DAY))
def test_a_rough_duration_is_shorter_and_at_most_one_of_its_steps_off(seconds: int) -> None:
    text = _rough(seconds)
    back = sum(int(parse_duration(part)) for part in text.split())
    step = HOUR if seconds >= DAY else 60 if seconds >= HOUR else 1
    assert 0 <= seconds - back < step
    assert len(text.split()) <= 2


@given(st.none() | st.integers(-5, 300))
def test_a_word_for_every_code_that_a_stranger_may_put_on_record(code: int | None) -> None:
    word = _word(code)
    if code is None:
        assert word == "–"
    elif code in {int(why) for why in Why}:
        assert word.replace(" ", "_").upper() == Why(code).name
    else:
        assert word == str(code)
