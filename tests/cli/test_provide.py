"""`minga provide` before anything is started: prices, floors, sizes, what is refused, and what its owner is told."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import Minga, one_error

from minga.cli.announce import Announcer
from minga.cli.provide import Floors, _price, cpu_milli
from minga.core.errors import InvalidInput


@pytest.mark.parametrize(
    ("floors", "units", "usd_micro"),
    [
        (Floors(None, None, None), 1, 0),
        (Floors("0.05", None, None), 1, 50_000),
        (Floors(None, 350, "0.30"), 1, 105_000),
        (Floors(None, 350, "0.30"), 4, 26_250),
        (Floors("0.05", 350, "0.30"), 4, 50_000),
        (Floors("0.01", 1, "0.000001"), 1, 10_000),
        (Floors(None, 1, "0.000001"), 3, 1),
    ],
)
def test_the_floor_is_the_larger_of_what_is_asked_and_what_is_burnt(floors: Floors, units: int, usd_micro: int):
    assert floors.usd_micro(units) == usd_micro


@pytest.mark.parametrize("floors", [Floors(None, 350, None), Floors(None, None, "0.3"), Floors("x", None, None)])
def test_half_of_an_energy_is_none(floors: Floors):
    with pytest.raises(InvalidInput):
        floors.usd_micro(1)


def test_a_price_is_a_number_or_auto_and_a_floor_is_for_auto():
    assert _price("0.35", Floors(None, None, None), 1, 6) == {"price_per_hour": 350_000}
    found = _price("auto", Floors("0.05", None, None), 1, 6)
    assert found["auto"].floor_usd_micro == 50_000
    assert len(found["auto"].quotes) > 100
    with pytest.raises(InvalidInput, match="a price that moves"):
        _price("0.35", Floors("0.05", None, None), 1, 6)
    with pytest.raises(InvalidInput):
        _price("cheap", Floors(None, None, None), 1, 6)


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "0.0001", "nan", "1e9"])
def test_cores_that_are_none(text: str):
    with pytest.raises(InvalidInput):
        cpu_milli(text)


def announcer(path: Path | None = None, as_json: bool = False, **config: Any) -> Announcer:
    """For a provider with these settings."""
    spec = SimpleNamespace(deployment=SimpleNamespace(decimals=6))
    known = {"spec": spec, "units": 2, "quantum": 60, "notice_s": 120} | config
    return Announcer(SimpleNamespace(**known), path, as_json)  # type: ignore[arg-type]


READY = {"url": "http://127.0.0.1:1", "provider": "0xab", "price_per_hour": "360000"}
SPEED = {"at": 0, "gemm_mops": 10_126, "memory_mbps": 913, "disk_mbps": 253, "link_mbps": 0}


@pytest.mark.parametrize(
    ("kind", "facts", "said"),
    [
        ("ready", READY, "2 × $0.36/h, quantum 1m"),
        ("ready", READY, "jobs end with 2m of notice"),
        ("speed", SPEED, "10,126 million multiply-adds/s, 913 MB/s of memory, 253 MB/s of disk, score 430 (m"),
        ("speed", SPEED | {"memory_mbps": 0}, "253 MB/s of disk (measured 1970-01-01"),
        ("speed", {"at": 0, "gemm_mops": 0}, "promised no speed"),
        (
            "price",
            {"dollars": "0.35", "floor": "0.05", "ceiling": "3.9", "why": "10 % leased"},
            "floor $0.05, ceiling $3.9",
        ),
        ("price", {"dollars": "0.35", "floor": "0", "ceiling": None, "why": "w"}, "$0.35/h: w (floor $0)"),
        ("reclaimed", {"reason": "a guest", "since": 0}, "(a guest): nothing is offered; minga reclaim --end"),
        ("lease", {"lease": "0x" + "ab" * 32, "phase": "closed", "reason": "done", "paid": "1500000"}, "paid $1.50"),
        ("warning", {"code": "c", "fact": "f", "remedy": "r"}, "warning c: f → r"),
        ("registered", {"tx": "0x12"}, "0x12"),
        ("revoked", {"tx": "0x12"}, "every signed offer is dead"),
        ("offering", {"since": 0}, "offering again"),
        ("measuring", {"units": 1}, "measuring"),
        ("machine", {"machine": "0x" + "ab" * 32}, "machine 0xabab"),
    ],
)
def test_an_owner_is_told_in_words(kind: str, facts: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]):
    announcer()(kind, facts)
    assert said in capsys.readouterr().err


def test_interruptible_is_said_and_what_programs_care_about_is_not(capsys: pytest.CaptureFixture[str]):
    announcer(notice_s=0)("ready", READY)
    assert "jobs end at once" in capsys.readouterr().err
    announcer()("posted", {"board": "http://b"})
    assert capsys.readouterr().err == ""


def test_programs_get_json_lines_and_a_ready_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    say = announcer(tmp_path / "ready", as_json=True)
    say("speed", SPEED)
    say("ready", READY)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"event": "speed", **SPEED}, {"event": "ready", **READY}]
    assert json.loads((tmp_path / "ready").read_text())["url"] == READY["url"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("provide", "--price", "0.3", "--notice", "soon"), "invalid-input"),
        (("provide", "--price", "0.3", "--disk-share", "0"), "invalid-input"),
        (("provide", "--price", "0.3", "--cpus", "1"), "invalid-input"),
        (("provide", "--price", "0.3", "--environment", "x"), "invalid-input"),
        (("reclaim", "--provider", "p1"), "not-found"),
        (("reclaim", "--provider", "../p1"), "not-found"),
    ],
)
def test_bad_words_are_one_error(minga: Minga, words: tuple[str, ...], code: str):
    one_error(minga(*words), code, 2)
