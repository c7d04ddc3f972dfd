"""Limits: lines are crossed where they should be, fitting takes the worst honest audit, the fitted ones are used."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from inference_report import module_of

from minga.verify import inference_fitted
from minga.verify.inference_fitted import LIMITS
from minga.verify.inference_limits import FACTOR, FLOOR_PEAK, FLOOR_SLOPE, FLOOR_START, SLACK, Limits, Line, Scores, fit

ROOT = Path(__file__).resolve().parents[2]
LOOSE = Line(1000.0, 0.0)


def limits(**fields: object) -> Limits:
    usual = {"peak": 100.0, "margin": LOOSE, "far": LOOSE, "near": LOOSE, "logprob": LOOSE}
    return Limits(**{**usual, **fields})  # type: ignore[arg-type]


def test_the_peak_is_of_one_token():
    found = limits(peak=0.5)
    assert found.crossed(Scores((0.5,) * 100)) is None
    assert found.crossed(Scores((0.0, 0.0, 0.6, 0.9))) == (3, "peak")


def test_a_sum_is_held_against_a_line_that_grows():
    found = limits(margin=Line(1.0, 0.1))
    assert found.crossed(Scores((0.1,) * 1000)) is None
    assert found.crossed(Scores((0.3,) * 10)) == (6, "margin")
    assert found.crossed(Scores((0.0,) * 100 + (0.3,) * 10)) is None


def test_sums_over_chunks_count_in_tokens():
    found = limits(far=Line(4.0, 1.0), near=Line(1.0, 0.1))
    assert found.crossed(Scores((0.0,) * 80, far=(0.0, 128.0, 0.0), near=(0.0, 0.0, 0.0))) == (64, "far")
    assert found.crossed(Scores((0.0,) * 80, far=(0.0, 0.0, 128.0), near=(0.0, 0.0, 0.0))) == (80, "far")
    assert found.crossed(Scores((0.0,) * 80, far=(0.0,) * 3, near=(0.5, 0.5, 0.5))) == (80, "near")


def test_the_first_limit_that_is_crossed_is_named():
    found = limits(peak=0.5, far=Line(4.0, 0.0), logprob=Line(1.0, 0.0))
    assert found.crossed(Scores((0.0,) * 40 + (1.0,) * 24, far=(9.0, 0.0), near=(0.0, 0.0))) == (32, "far")
    assert found.crossed(Scores((0.0,) * 9 + (1.0,), far=(9.0,), near=(0.0,))) == (10, "far")
    assert found.crossed(Scores((0.0,) * 10, logprob=(0.4,) * 10)) == (3, "logprob")


def test_fitting_takes_the_worst_of_the_set_times_the_factor():
    found = fit(
        [
            Scores((0.0, 0.2), far=(1.0, 3.0), near=(0.5, 1.5)),
            Scores((0.1, 0.1, 0.1, 0.1), far=(4.0, 2.0), near=(0.0, 0.0)),
        ]
    )
    assert found.peak == pytest.approx(FACTOR * 0.2)
    assert found.margin == Line(pytest.approx(FACTOR * 0.2), pytest.approx(FACTOR * 0.1))
    assert found.far == Line(FACTOR * 4.0, FACTOR * 3.0)
    assert found.near == Line(FACTOR * 1.5, FACTOR * 1.0)
    assert found.logprob == Line(FLOOR_START["logprob"], FLOOR_SLOPE["logprob"])


def test_fitting_never_goes_below_the_floors():
    found = fit([Scores((0.0,) * 5, far=(0.0,), near=(0.0,))])
    assert found.peak == FLOOR_PEAK
    for name, start in FLOOR_START.items():
        assert getattr(found, name) == Line(start, FLOOR_SLOPE[name])


def test_what_was_fitted_is_within_its_own_limits():
    audits = [Scores(tuple(0.01 * (at % k) for at in range(50)), far=(1.0, 2.0), near=(0.1, 0.3)) for k in range(1, 9)]
    found = fit(audits)
    assert all(found.crossed(audit) is None for audit in audits)
    assert found.crossed(Scores((1.0,) * 50, far=(1.0, 2.0), near=(0.1, 0.3))) is not None


def test_the_fitted_limits_are_those_of_the_kept_result():
    body = json.loads((ROOT / "benches" / "results" / "inference.json").read_text())
    kept = {
        name: Limits(value["peak"], *(Line(**value[part]) for part in ("margin", "far", "near", "logprob")))
        for name, value in body["limits"].items()
    }
    assert Path(inference_fitted.__file__).read_text() == module_of(kept)
    assert {*LIMITS} == {*SLACK} == {"fp32", "bf16"}
    for name, found in LIMITS.items():
        for part, value in asdict(found).items():
            assert value == pytest.approx(body["limits"][name][part], rel=1e-3)
