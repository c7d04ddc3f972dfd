"""What providers write into their offers, on a tenant's terminal: eighty columns, text alone, JSON whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "protocol"))

from offers_made import GB, bundle_of

from minga.cli.announce import speed_line
from minga.cli.market import print_offers, ranked_dict
from minga.cli.quote import print_exclusion, print_quote
from minga.client.jobspec import JobSpec
from minga.client.order import needs_of
from minga.client.past import History
from minga.client.quotes import Quote, make_quote
from minga.core.spec import Gpu, Speed
from minga.protocol.accelerators import parse_accelerators
from minga.protocol.matching import Ranked, Requirements, rank
from minga.protocol.reliability import Rules, new_record

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202egnp\x9b31m\r\n"
WORST = {"\x1b", "\x07", "\x9b", "\u202e", "\r"}


def ranked(reliability: int | None = None, **fields: Any) -> list[Ranked]:
    """An offer with these fields, as a search finds it."""
    return rank(Requirements(), [bundle_of(1, **fields)], lambda provider: reliability)


def quoted(spec: JobSpec, **fields: Any) -> Quote:
    """A quote over one offer with these fields."""
    rules = Rules.of(6)
    return make_quote(
        spec, needs_of(spec, 6, False), [bundle_of(1, **fields)], History(), lambda provider: None,
        lambda provider: new_record(provider, rules), 6,
    )  # fmt: skip


def shown(found: list[Ranked], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    print_offers(found, 6, "none")
    return capsys.readouterr().out


def test_an_offer_is_one_row_of_what_is_sold(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(ranked(987_654, price=1_230_000, region="eu-de", quantum=90), capsys)
    row = " ".join(text.splitlines()[2].split())
    assert row.startswith("0x00000000… 1×")
    for part in ("8", "29.8 GiB", "$1.23", "1m 30s", "98.8 %", "eu-de"):
        assert part in row, part
    assert "RTX" in text


def test_what_is_not_known_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    row = shown(ranked(region="", gpus=[]), capsys).splitlines()[2].split()
    assert row.count("–") >= 2


SPEED = Speed(gemm_mops=10_126, memory_mbps=913, disk_mbps=253)


def test_a_tenant_sees_the_score_that_its_owner_was_told() -> None:
    """The same promise, by the same formula, in `minga provide` and in `minga offers --json`."""
    (found,) = ranked(price=500_000, speed=SPEED)
    value = json.loads(json.dumps(ranked_dict(found, 6)))
    assert f"score {value['score']:,}" in speed_line(SPEED.plain() | {"at": 0})
    assert value["speed"] == SPEED.plain()
    assert value["work_per_dollar"] == SPEED.gemm_mops * 3600 // 500_000
    assert ranked_dict(found, 5)["work_per_dollar"] == SPEED.gemm_mops * 3600 // 5_000_000


@pytest.mark.parametrize("speed", [None, Speed(), Speed(memory_mbps=9)])
def test_without_a_promise_there_is_no_score(speed: Speed | None) -> None:
    (found,) = ranked(speed=speed)
    value = ranked_dict(found, 6)
    assert (value["score"], value["work_per_dollar"]) == (0, None)


def test_no_offers_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_offers([], 6, "no offer matches")
    assert capsys.readouterr() == ("", "no offer matches\n")


@given(region=st.text(max_size=64), model=st.text(min_size=1, max_size=128))
@example(region=HOSTILE, model=HOSTILE)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_word_of_an_offer_commands_the_terminal(region: str, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    region, model = (word.encode(errors="replace").decode() for word in (region, model))
    text = shown(ranked(region=region, gpus=[Gpu(vendor="nvidia", model=model, memory_bytes=GB)]), capsys)
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text.replace("\n", ""))
    assert "\u202e" not in text


def test_json_has_the_offer_as_it_was_signed() -> None:
    (found,) = ranked(812_345, price=2**60, region=HOSTILE, egress=["*.example.org"], prepaid_quanta=1)
    value = json.loads(json.dumps(ranked_dict(found, 6)))
    assert value["price_per_hour"] == str(2**60), "amounts are text: they may exceed the floats"
    assert int(value["expected_per_hour"]) >= 2**60
    assert (value["region"], value["egress"], value["prepaid_quanta"]) == (HOSTILE, ["*.example.org"], 1)
    assert (value["reliability_ppm"], value["units"], value["sandbox"]) == (812_345, 1, "bubblewrap")
    assert value["unit"]["gpus"] == 1
    assert value["gpus"][0]["model"] == "NVIDIA GeForce RTX 4090"
    assert value["offer"] == found.offer_hash


@pytest.mark.parametrize("duration", [None, 3600])
def test_a_quote_shows_a_strangers_card_as_text(duration: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    card = Gpu(vendor="nvidia", model=HOSTILE + "Card", memory_bytes=GB)
    print_quote(quoted(JobSpec(run="x", budget="5", duration_s=duration), gpus=[card]), ())
    text = capsys.readouterr().out
    assert "gnp" in text
    assert not set(text) & WORST
    assert max(map(len, text.splitlines())) <= 80


def test_a_remedy_that_repeats_a_strangers_words_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    needs = Requirements(gpus=parse_accelerators("H100"), region="moon", egress=("x.example",))
    card = Gpu(vendor="nvidia", model=HOSTILE + "Card", memory_bytes=GB)
    found = quoted(
        JobSpec(run="x", budget="5", requirements=needs, egress=("x.example",)),
        region=HOSTILE, gpus=[card], egress=[HOSTILE],
    )  # fmt: skip
    assert {"gpu", "region", "egress"} <= set(found.exclusion.excluded)
    print_exclusion(found)
    text = capsys.readouterr().out
    assert text.count("gnp") >= 3
    assert not set(text) & WORST


def test_where_nobody_offers_anything_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    rules, spec = Rules.of(6), JobSpec(run="x", budget="5")
    nothing = make_quote(
        spec, needs_of(spec, 6, False), [], History(), lambda provider: None,
        lambda provider: new_record(provider, rules), 6,
    )  # fmt: skip
    print_exclusion(nothing)
    out, err = capsys.readouterr()
    assert out == ""
    assert "no offers at all" in err
