"""What `minga quote` and the quotes' line of `minga status` show: within 80 columns, nothing invented, nothing cut."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "protocol"))

from offers_made import GB, bundle_of

from minga.cli.calibration import calibration_line, calibration_of
from minga.cli.quote import hours, print_exclusion, print_quote, quote_dict, span
from minga.client.home import Home
from minga.client.jobspec import JobSpec
from minga.client.order import needs_of
from minga.client.outcomes import Outcome
from minga.client.past import Calibration, History, Past, Quoted, remember
from minga.client.quotes import Quote, fingerprint_of, make_quote, savings_of
from minga.core.spec import Gpu, Speed
from minga.protocol.accelerators import parse_accelerators
from minga.protocol.matching import Requirements
from minga.protocol.reliability import Rules, new_record
from minga.store.journal import Journal

TODAY = 20_700
H100 = Gpu(vendor="nvidia", model="NVIDIA H100 80GB HBM3", memory_bytes=80 * GB)


def quote_of(gpus: list[Gpu], past: History | None = None, price: int = 2_400_000, **fields: object) -> Quote:
    """A quote over twelve offers."""
    spec = JobSpec(**({"run": "python train.py", "budget": "20"} | fields))  # type: ignore[arg-type]
    offers = [
        bundle_of(number, price + 10_000 * number, gpus, notice_s=60 * (number % 3), region="eu-de",
                  speed=Speed(gemm_mops=1000 + number) if number % 4 else None)
        for number in range(12)
    ]  # fmt: skip
    rules = Rules.of(6)
    return make_quote(
        spec, needs_of(spec, 6, False), offers, past or History(), lambda p: 812_345, lambda p: new_record(p, rules), 6
    )


def shown(found: Quote, capsys: pytest.CaptureFixture[str]) -> str:
    """The screen."""
    if found.best is None:
        print_exclusion(found)
    else:
        print_quote(found, savings_of(found, TODAY))
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80, text
    return text


def test_a_quote_with_a_duration_shows_totals_and_what_they_rest_on(capsys: pytest.CaptureFixture[str]) -> None:
    found = quote_of([H100], duration_s=4 * 3600, checkpoint=True, deadline_s=86_400)
    text = shown(found, capsys)
    assert text.count("1× H100-80GB") == 10
    assert "… and 2 more" in text
    for words in ("as stated", "every 10m", "breaks about once in 24 h", "enough in", "deadline", "of 100 such jobs"):
        assert words in text, words
    assert "81 %" in text
    assert "none" in text, "an offer without notice says so"
    assert "up to" not in text


def test_all_three_references_are_shown_with_date_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    found = quote_of([H100], duration_s=3600)
    flat = " ".join(shown(found, capsys).split())
    saved = savings_of(found, TODAY)
    assert [item.label for item in saved] == ["on-demand minimum", "on-demand median", "spot minimum"]
    for item in saved:
        assert item.label in flat
        if item.saving_ppm is None:
            assert "withheld, because" in flat
        else:
            assert f"{item.saving_ppm / 10_000:.0f} %" in flat
            assert item.dated in flat
            assert "".join(item.source.split()) in "".join(flat.split()), "no source is cut"


def test_a_dear_offer_shows_a_negative_saving(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        "-" in shown(quote_of([H100], price=90_000_000, duration_s=60), capsys).split("spot minimum")[1].split("%")[0]
    )


def test_without_a_gpu_the_saving_is_withheld_once(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(quote_of([], duration_s=60), capsys)
    assert text.count("withheld, because") == 1
    assert "cloud" in text


def test_without_a_duration_rates_are_shown_and_that_it_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(quote_of([H100]), capsys)
    assert "how long is not known: write `duration: 2h`" in text
    assert "work/h" in text
    assert "mean" not in text
    assert "$20.00" in text
    assert "buys" in text
    assert "enough in" not in text


def test_a_job_of_before_is_named_as_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    spec = JobSpec(run="python train.py", budget="20")
    quoted = Quoted(fingerprint_of(spec), None, "0x", 0, "1", None, None, None, None, None)
    past = History([Past("0x", quoted, Outcome("done", 0, "1", 700, 600, 600, (5,), 2, 1))])
    assert "1 job like it" in shown(quote_of([H100], past), capsys)


def test_long_names_and_large_prices_still_fit(capsys: pytest.CaptureFixture[str]) -> None:
    odd = Gpu(vendor="nvidia", model="X" * 90, memory_bytes=80 * GB)
    shown(quote_of([odd], price=123_456_000_000, duration_s=900_000, budget="999999"), capsys)
    shown(quote_of([H100], price=3, duration_s=1, budget="0.0001"), capsys)


def test_what_excludes_is_shown_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    needs = Requirements(gpus=parse_accelerators("T4"), region="moon", cpu_milli=99_000)
    text = shown(quote_of([H100], requirements=needs), capsys)
    assert "none of 12 offers matches" in text
    for name, remedy in (("gpu", "H100"), ("region", "--region eu-de"), ("cpus", "--cpus 8")):
        row = next(row for row in text.splitlines() if row.startswith(name))
        assert "12" in row
        assert remedy in row


@pytest.mark.parametrize("duration", [None, 7200])
def test_the_json_says_all_of_it(duration: int | None) -> None:
    found = quote_of([H100], duration_s=duration)
    value = json.loads(json.dumps(quote_dict(found, savings_of(found, TODAY))))
    assert (value["matching"], value["offers"], value["excluded"], value["only"]) == (12, 12, {}, {})
    assert value["work"]["source"] == ("unknown" if duration is None else "stated")
    assert (value["best"]["cost_p90"] is None) == (duration is None)
    assert value["best"] == value["estimates"][0]
    assert len(value["matches"]) == len(value["estimates"]) == 10
    assert [item["offer"] for item in value["matches"]] == [item["offer"] for item in value["estimates"]]
    assert isinstance(value["best"]["per_work_hour"], str)
    assert [item["label"] for item in value["savings"]] == ["on-demand minimum", "on-demand median", "spot minimum"]
    none = quote_dict(quote_of([H100], requirements=Requirements(region="moon")), ())
    assert (none["best"], none["estimates"], none["excluded"]) == (None, [], {"region": 12})
    assert "eu-de" in none["remedies"]["region"]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (3, 9, "3–9 s"), (42, 65, "42–65 s"), (100, 300, "1.7–5.0 m"), (3000, 9000, "0.8–2.5 h"), (0, 0, "0–0 s"),
        (90_000, 90_000, "25–25 h"), (90_000, 900_000, "1.0–10.4 d"),
    ],
)  # fmt: skip
def test_two_times_share_a_unit(low: int, high: int, text: str) -> None:
    assert span(low, high) == text


def test_long_times_are_hours_or_days() -> None:
    assert [hours(seconds) for seconds in (3600, 86_400, 864_000)] == ["1 h", "24 h", "10 days"]


# --------------------------------------------------------------------------------------------------------- calibration


def test_calibration_is_read_from_the_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert calibration_of(home) == Calibration(0, 0, 0, 0).as_dict()
    assert not home.journal.exists(), "looking makes nothing"
    journal = Journal(home.journal)
    quoted = Quoted("0x", 1, "0x", 0, "100", None, "5", "9", 5, 9)
    outcome = {"phase": "done", "exit_code": 0, "elapsed_s": 7, "worked_s": 5, "work_s": 5, "starts_s": [1], "end_s": 1}
    for number, cost in enumerate((3, 8, 12, 9)):
        job = f"0x{number:064x}"
        remember(journal, job, quoted, 1)
        journal.append(
            "quotes", "outcome", {"job": job, "cost": str(cost), "leases": 1, **outcome}, 2, f"outcome/{job}"
        )
    journal.close()
    found = calibration_of(home)
    assert (found["cost_n"], found["cost_within"], found["finish_within"]) == (4, 3, 4)
    assert calibration_line(found) == "cost within p90 in 75 % of 4 jobs, finish time within p90 in 100 % of 4 jobs"


def test_no_job_is_no_share() -> None:
    assert calibration_line(Calibration(0, 0, 0, 0).as_dict()) == "no job has tested one yet"
    assert calibration_line(Calibration(1, 1, 0, 0).as_dict()) == "cost within p90 in 100 % of 1 jobs"
