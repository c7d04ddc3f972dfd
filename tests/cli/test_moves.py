"""A job that changes machines, on the screen and in lines: reclaims, losses, checks, strangers' words."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from minga.cli.live import LINE_CHARS, LOG_LINES, LOSSES_MAX, JobView, line_of

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m[red]text"
Told = tuple[str, dict[str, Any]]


def offer(attempt: int, gpu: str) -> Told:
    return "offer", {
        "attempt": attempt, "provider": f"0x{attempt + 1:040x}", "machine": f"0x{attempt + 1:064x}", "url": "http://x",
        "price_per_hour": 360_000 + attempt, "units": 1, "quantum": 60, "gpus": [gpu], "cpus_milli": 4000,
        "memory_bytes": 8 << 30, "region": "",
    }  # fmt: skip


def lease(attempt: int, deposit: int) -> Told:
    return "lease", {"attempt": attempt, "lease": f"0x{attempt + 1:064x}", "deposit": deposit}


MOVE: list[Told] = [
    offer(0, "NVIDIA L4"), lease(0, 12_500), ("phase", {"phase": "running", "attempt": 0, "reason": ""}),
    ("meter", {"attempt": 0, "working_s": 100, "signed": 1, "spent": 10_000, "available": 1}),
    ("checkpoint", {"attempt": 0, "number": 1, "step": 10, "bytes": 3_000_000}),
    ("warning", {"attempt": 0, "code": "notice", "fact": "a guest comes; the job gets 60 s to checkpoint"}),
    ("phase", {"phase": "recovering", "attempt": 0, "reason": "reclaimed: a guest comes"}),
    offer(1, "NVIDIA H100"), lease(1, 9_000), ("phase", {"phase": "running", "attempt": 1, "reason": ""}),
    ("meter", {"attempt": 1, "working_s": 130, "signed": 1, "spent": 13_000, "available": 1}),
]  # fmt: skip


def shown(job: JobView, width: int = 80) -> str:
    out = StringIO()
    Console(file=out, width=width).print(job.render())
    text = out.getvalue()
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text.replace("\n", ""))
    return text


def view(events: list[Told], budget: int = 50_000) -> JobView:
    job = JobView("0x" + "77" * 32, "train", budget, 6)
    for kind, data in events:
        job.apply(kind, data)
    return job


# ----------------------------------------------------------------------------------------------------------- the screen


def test_a_reclaim_is_told_while_the_job_looks_for_the_next_machine() -> None:
    text = shown(view(MOVE[:7]))
    for part in (
        "recovering",
        "attempt 1",
        "reclaimed: a guest comes",
        "notice: a guest comes",
        "NVIDIA L4",
        "$0.0125",
    ):
        assert part in text, part


def test_after_a_move_the_screen_is_about_the_new_machine_and_the_money_goes_on() -> None:
    text = shown(view(MOVE))
    for part in ("running", "attempt 2", "NVIDIA H100", "2m 10s", "spent $0.013", "left $0.037", "deposit $0.009"):
        assert part in text, part
    assert "NVIDIA L4" not in text
    assert "reclaimed" not in text, "the reason of what is over does not stand beside what goes on"


def test_a_word_from_a_machine_that_was_left_does_not_bring_its_number_back() -> None:
    job = view([*MOVE, ("warning", {"attempt": 0, "code": "late", "fact": "a word"})])
    assert job.attempt == 1
    assert "attempt 2" in shown(job)


def test_checkpoints_of_all_machines_are_counted_and_unknown_events_change_nothing() -> None:
    job = view([*MOVE, ("checkpoint", {"attempt": 1, "number": 1, "step": 20, "bytes": 1})])
    assert job.checkpoints == 2
    before = shown(job)
    job.apply("what-a-later-version-tells", {"phase": "failed", "spent": 1})
    assert shown(job) == before


def test_a_raised_deposit_is_shown_and_nothing_else_changes() -> None:
    job = view([*MOVE, ("topup", {"attempt": 1, "deposit": 20_000})])
    assert "deposit $0.02" in shown(job)
    assert job.spent == 13_000


def test_the_newest_warnings_are_kept() -> None:
    told = [("warning", {"attempt": 0, "code": f"c{number}", "fact": "fact"}) for number in range(9)]
    text = shown(view(told))
    assert "c8: fact" in text
    assert "c7: fact" in text
    assert "c6: fact" not in text


@given(st.integers(), st.integers())
@example(10**400, 1)
@example(1, 10**400)
@example(-5, 10)
@example(5, -10)
def test_no_numbers_of_a_strangers_progress_break_the_screen(step: int, total: int) -> None:
    job = view([*MOVE, ("progress", {"attempt": 1, "step": step, "total": total, "text": ""})])
    out = StringIO()
    Console(file=out, width=80).print(job.render())
    if total <= 0:
        assert "%" not in out.getvalue()
    elif len(str(step) + str(total)) < 20:
        share = 100 if step >= total else max(0, 100 * step // total)
        assert f"{share} %" in out.getvalue()
        assert 0 <= out.getvalue().count("━") <= 36


@given(st.lists(st.from_regex(r"loss[ =:]{0,3}[0-9]{1,400}\.[0-9]{1,400}", fullmatch=True), max_size=5))
@example(["loss 1" + "0" * 320 + ".0"])
def test_no_loss_in_a_log_breaks_the_screen(lines: list[str]) -> None:
    job = view(MOVE)
    job.log("".join(f"{line}\n" for line in lines).encode())
    shown(job)


def test_the_curve_is_of_the_newest_losses_and_ends_with_the_last() -> None:
    job = view(MOVE)
    job.log(b"".join(b"step %d loss=%d.50\n" % (number, number) for number in range(LOSSES_MAX + 50)))
    assert len(job.losses) == LOSSES_MAX
    assert job.losses[-1] == LOSSES_MAX + 49.5
    assert f"{LOSSES_MAX + 49}.500" in shown(job)
    assert len(job.tail) == LOG_LINES


def test_what_strangers_write_is_text_wherever_it_is_shown() -> None:
    job = view(
        [
            offer(0, HOSTILE), ("phase", {"phase": "recovering", "attempt": 0, "reason": HOSTILE}),
            ("warning", {"attempt": 0, "code": HOSTILE, "fact": HOSTILE}),
        ]
    )  # fmt: skip
    job.name = HOSTILE
    job.log(HOSTILE.encode() + b"\n")
    assert shown(job).count("[red]text") >= 4


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_a_log_is_the_same_however_it_is_cut(pieces: list[bytes]) -> None:
    ascii_pieces = [bytes(byte & 0x7F for byte in piece).replace(b"\r", b".") for piece in pieces]
    whole, cut = view(MOVE), view(MOVE)
    whole.log(b"".join(ascii_pieces))
    for piece in ascii_pieces:
        cut.log(piece)
    assert (whole.tail, whole.losses, whole._partial) == (cut.tail, cut.losses, cut._partial)


# ------------------------------------------------------------------------------------------------------------ the lines


@pytest.mark.parametrize(
    ("kind", "data", "line"),
    [
        ("topup", {"deposit": 20_000}, "deposit raised to $0.02"),
        ("checkpoint", {"number": 3, "bytes": 5 << 20}, "checkpoint 3 kept (5 MiB)"),
        ("artifacts", {"count": 2, "bytes": 1536}, "2 artifacts, 1.5 KiB, hashes verified"),
        ("check", {"accepted": True, "output": "loss 0.5"}, "checkpoint accepted: loss 0.5"),
        ("check", {"accepted": False, "output": ""}, "checkpoint not accepted: –"),
        ("probe", {"kind": "start", "ok": True, "fact": ""}, "machine measured: as sold"),
        ("probe", {"kind": "duty", "ok": False, "fact": "half"}, "machine measured: half"),
        ("probe", {"kind": "duty", "ok": True, "fact": "fine"}, None),
        ("phase", {"phase": "recovering", "reason": "recovering"}, "recovering"),
        ("phase", {"phase": "recovering", "reason": "gone"}, "recovering: gone"),
        ("end", {"phase": "stopped", "reason": "idle: 20m"}, "ended: stopped (idle: 20m)"),
        ("end", {"phase": "done", "reason": "done"}, "ended: done"),
        ("load", {"cpu_ms": 5}, None),
        ("transaction", {"what": "open"}, None),
    ],
)  # fmt: skip
def test_what_happens_is_one_line_or_none(kind: str, data: dict[str, Any], line: str | None) -> None:
    assert line_of(kind, data, 6) == line


@given(st.text(max_size=900))
@example(HOSTILE)
def test_lines_with_a_strangers_words_are_one_line_of_text(words: str) -> None:
    told: list[Told] = [
        ("phase", {"phase": "recovering", "reason": words}), ("warning", {"code": words, "fact": words}),
        ("check", {"accepted": False, "output": words}), ("probe", {"kind": "start", "ok": False, "fact": words}),
        ("end", {"phase": "failed", "reason": words}), ("offer", offer(0, words)[1]),
    ]  # fmt: skip
    for kind, data in told:
        line = line_of(kind, data, 6)
        assert line is not None
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 or char in "\u202e\u2028" for char in line)
        assert len(line) <= LINE_CHARS + 200
