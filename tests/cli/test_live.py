"""The screen of one job: a fold over events; hostile text stays text; exact amounts; fits 80 columns."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from minga.cli.live import LINE_CHARS, JobView, clean, describe_offer, line_of, sparkline

OFFER = {
    "attempt": 0, "provider": "0x" + "ab" * 20, "machine": "0x" + "cd" * 32, "url": "http://127.0.0.1:1",
    "price_per_hour": 360_000, "units": 1, "quantum": 5, "gpus": ["NVIDIA GeForce RTX 4090"], "cpus_milli": 2000,
    "memory_bytes": 4 << 30, "region": "",
}  # fmt: skip
EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("phase", {"phase": "opening", "attempt": 0, "reason": ""}),
    ("offer", OFFER),
    (
        "lease",
        {"attempt": 0, "lease": "0x" + "11" * 32, "channel": "0x", "deposit": 12_500, "transaction": "0x", "gas": 1},
    ),
    ("phase", {"phase": "running", "attempt": 0, "reason": ""}),
    ("meter", {"attempt": 0, "working_s": 65, "signed": 6500, "spent": 6500, "available": 1}),
    ("progress", {"attempt": 0, "step": 312, "total": 500, "text": ""}),
    ("checkpoint", {"attempt": 0, "number": 1, "step": 300, "bytes": 3_000_000}),
    ("warning", {"code": "clock-skew", "fact": "the clock is wrong", "remedy": "set it"}),
]


def view() -> JobView:
    return JobView("0x" + "77" * 32, "pretrain", 50_000, 6)


def drawn(job: JobView, width: int = 80) -> str:
    out = StringIO()
    Console(file=out, width=width, force_terminal=False).print(job.render())
    return out.getvalue()


def test_the_screen_shows_state_money_progress_and_log() -> None:
    job = view()
    for kind, data in EVENTS:
        job.apply(kind, data)
    job.log(b"step 310/500 loss 4.5123\nstep 320/500 lo")
    job.log(b"ss 4.4001\nlast line")
    text = drawn(job)
    for part in ("running", "attempt 1", "312/500", "62 %", "RTX 4090", "$0.36/h", "1m 5s", "$0.0065", "$0.0435",
                 "$0.05", "4.400", "step 320/500 loss 4.4001", "clock-skew"):  # fmt: skip
        assert part in text, part
    assert max(map(len, text.splitlines())) <= 80
    assert job.losses[-1] == 4.4001


def test_an_empty_job_can_be_drawn() -> None:
    assert "submitted" in drawn(view())


def test_every_event_has_a_plain_line_or_none() -> None:
    lines = [line_of(kind, data, 6) for kind, data in EVENTS]
    assert lines[1] is not None
    assert "attempt 1" in lines[1]
    assert lines[2] == "lease 0x11111111… open, deposit $0.0125"
    assert lines[4] is lines[5] is None
    closed = {"attempt": 0, "paid": 990, "fee": 10, "refunded": 0, "locked": 0, "transaction": "0x", "gas": 1}
    assert line_of("closed", closed, 6) == "lease closed: paid $0.00099, fee $0.00001, refunded $0.00"
    assert line_of("end", {"phase": "failed", "exit_code": 3, "reason": "exit 3"}, 6) == "ended: failed (exit 3)"
    assert line_of("unknown", {}, 6) is None


@given(st.text(max_size=300))
def test_text_of_strangers_cannot_command_the_terminal(text: str) -> None:
    shown = clean(text)
    assert len(shown) <= LINE_CHARS
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in shown)


def test_escapes_and_markup_are_taken_out() -> None:
    job = view()
    job.log(b"\x1b[2J\x1b]0;title\x07[red]hello[/red]\rnext\n")
    job.apply("phase", {"phase": "failed", "reason": "\x1b[31m[bold]no[/bold]", "attempt": 0})
    text = drawn(job)
    assert "\x1b" not in text
    assert "[red]hello[/red]" in text
    assert "[bold]no[/bold]" in text


def test_a_flood_without_line_ends_is_bounded() -> None:
    job = view()
    for _ in range(100):
        job.log(b"x" * 100_000)
    assert len(job._partial) <= LINE_CHARS


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(2, 60))
def test_a_sparkline_fits_and_keeps_its_end(values: list[float], width: int) -> None:
    drawn_line = sparkline(values, width)
    assert 1 <= len(drawn_line) <= width
    if len(values) <= width and values[-1] == max(values) > min(values):
        assert drawn_line[-1] == "█"


def test_a_machine_in_one_line() -> None:
    assert describe_offer({}, 6) == "–"
    assert describe_offer(OFFER, 6) == "0xabababab… · NVIDIA GeForce RTX 4090 · 2 cores · 4 GiB · $0.36/h · quantum 5s"


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    job = view()
    job.name = "a-very-long-name" * 8
    job.log("ä漢字🙂 ".encode() * 40 + b"\n")
    for kind, data in EVENTS:
        job.apply(kind, data)
    from rich.cells import cell_len

    assert max(cell_len(line) for line in drawn(job, width).splitlines()) <= width
