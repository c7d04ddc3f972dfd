"""What a home alone tells of its jobs: from any terminal, without a chain, and without changing anything."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from homes import BROKE, DONE, FIRST, NOW, SECOND, UNDER_WAY, TenantHome, leave

from minga.cli.main import main
from minga.protocol import job_events as ev

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202egnp.evil"


class Terminal:
    """Runs command lines in this process, on one home."""

    def __init__(self, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.made = TenantHome(home)
        self.capfd = capfd

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        self.capfd.readouterr()
        code = main(["--home", str(self.made.home.path), *words])
        out, err = self.capfd.readouterr()
        return code, out, err

    def refused(self, *words: str) -> dict[str, str]:
        """The one error of a command that fails, as programs read it."""
        code, out, err = self(*words, "--json")
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        found: dict[str, str] = json.loads(line)["error"]
        assert found["fact"]
        assert found["remedy"]
        return found


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Terminal:
    """A terminal of eighty columns."""
    for name in ("MINGA_HOME", "MINGA_NETWORK", "MINGA_DEBUG", "MINGA_FAULTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal(tmp_path / "home", capfd)


# ---------------------------------------------------------------------------------------------------------- the list


def test_jobs_are_listed_newest_first_within_eighty_columns(terminal: Terminal) -> None:
    terminal.made.job(FIRST, DONE, name="older")
    terminal.made.job(SECOND, UNDER_WAY, name="a-name-of-many-words-" * 5, at=NOW + 10)
    code, out, _ = terminal("jobs")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    rows = [line for line in out.splitlines() if "0xa" in line]
    assert rows[0].startswith("0xa2a2a2a2… ")
    assert rows[1].startswith("0xa1a1a1a1… ")
    assert "running" in rows[0]
    assert "done" in rows[1]
    assert "$0.04" in rows[1], "forty seconds at a tenth of a cent"


def test_jobs_as_json_have_every_field_of_a_status(terminal: Terminal) -> None:
    terminal.made.job(FIRST, BROKE)
    code, out, err = terminal("jobs", "--json")
    assert (code, err) == (0, "")
    (found,) = json.loads(out)
    assert found["job"] == FIRST
    assert (found["phase"], found["exit_code"], found["terminal"], found["settled"]) == ("failed", 7, True, True)
    assert (found["budget"], found["spent"], found["working_s"], found["attempts"]) == (1_000_000, 40_000, 40, 1)
    assert (found["available"], found["locked"], found["deposited"]) == (960_000, 0, 250_000)
    assert (found["submitted_at"], found["ended_at"]) == (NOW, NOW + 53)
    assert found["price_per_hour"] == 3_600_000


def test_a_home_without_jobs_says_how_to_get_one(terminal: Terminal) -> None:
    code, out, err = terminal("jobs")
    assert (code, out) == (0, "")
    assert "minga run" in err
    assert json.loads(terminal("jobs", "--json")[1]) == []


def test_jobs_of_another_network_are_not_listed(terminal: Terminal) -> None:
    terminal.made.job(FIRST, DONE)
    terminal.made.job(SECOND, DONE, network="elsewhere")
    assert [item["job"] for item in json.loads(terminal("jobs", "--json")[1])] == [FIRST]


def test_progress_is_shown_once_the_job_says_how_much_there_is(terminal: Terminal) -> None:
    folder = terminal.made.job(FIRST, UNDER_WAY)
    folder.tell(NOW + 20, "progress", {"attempt": 0, "step": 7, "total": None, "text": ""})
    assert "%" not in terminal("jobs")[1]
    folder.tell(NOW + 21, "progress", {"attempt": 0, "step": 7, "total": 21, "text": ""})
    assert "33 %" in terminal("jobs")[1]


def test_the_name_of_a_job_cannot_command_the_terminal(terminal: Terminal) -> None:
    terminal.made.job(FIRST, DONE, name=HOSTILE)
    out = terminal("jobs")[1]
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "gnp.evil" in out


# ------------------------------------------------------------------------------------------------------- naming a job


@pytest.mark.parametrize("word", [FIRST, FIRST[:12], FIRST[2:8], FIRST[:10].upper().replace("0X", "0x"), "train"])
def test_a_job_is_named_by_its_id_the_beginning_of_it_or_its_name(terminal: Terminal, word: str) -> None:
    folder = terminal.made.job(FIRST, DONE)
    terminal.made.job(SECOND, DONE, name="other")
    folder.log_append(0, b"hello\n")
    code, out, _ = terminal("logs", word)
    assert (code, out) == (0, "hello\n")


@pytest.mark.parametrize("word", ["0xa", "a1", "nobody", "0x" + "ee" * 32, "0x" + "zz" * 32])
def test_a_job_that_is_not_there_is_one_error(terminal: Terminal, word: str) -> None:
    terminal.made.job(FIRST, DONE)
    before = terminal.made.records(FIRST)
    for command in ("attach", "stop", "bill"):
        assert terminal.refused(command, word)["code"] in ("not-found", "invalid-input")
    assert terminal.refused("pull", word, "there")["code"] in ("not-found", "invalid-input")
    assert terminal.made.records(FIRST) == before


def test_a_name_that_two_jobs_have_names_none(terminal: Terminal) -> None:
    terminal.made.job(FIRST, DONE)
    terminal.made.job(SECOND, DONE)
    error = terminal.refused("stop", "train")
    assert error["code"] == "not-found"
    assert "2 jobs" in error["fact"]
    assert "0xa1a1" not in error["fact"]


# ------------------------------------------------------------------------------------------------------ log and files


def test_logs_are_the_bytes_of_all_attempts_and_the_reason_goes_beside(terminal: Terminal) -> None:
    events = [*UNDER_WAY, (NOW + 60, ev.Lost(0, "provider-unreachable", f"silent {HOSTILE}"))]
    folder = terminal.made.job(FIRST, events)
    folder.log_append(0, b"one\n\xff\x00")
    folder.log_append(2, b"three\n")
    code, out, err = terminal("logs", FIRST)
    assert code == 0
    assert out == b"one\n\xff\x00three\n".decode(errors="replace")
    assert "\x1b" not in err
    assert "silent" in err
    assert "attempt 1" in err


def test_what_a_job_left_is_copied_with_its_rights(terminal: Terminal, tmp_path: Path) -> None:
    folder = terminal.made.job(FIRST, DONE)
    leave(folder, {"model/weights.bin": b"w" * 3000, "run.sh": b"#!/bin/sh\n"}, executable=["run.sh"])
    code, out, _ = terminal("pull", FIRST, str(tmp_path / "there"), "--json")
    listed = {item["path"]: item for item in json.loads(out)}
    assert code == 0
    assert set(listed) == {"model/weights.bin", "run.sh"}
    assert listed["model/weights.bin"]["bytes"] == 3000
    assert (tmp_path / "there/model/weights.bin").read_bytes() == b"w" * 3000
    assert stat.S_IMODE((tmp_path / "there/run.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "there/model/weights.bin").stat().st_mode) == 0o644
    shown = terminal("pull", FIRST, str(tmp_path / "again"))[1]
    assert listed["run.sh"]["blake3"][:16] in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_pull_into_something_else_is_one_error_and_overwrites_nothing(terminal: Terminal, tmp_path: Path) -> None:
    leave(terminal.made.job(FIRST, DONE), {"a/b": b"x"})
    there = tmp_path / "there"
    there.mkdir()
    (there / "a").write_text("mine")
    assert terminal.refused("pull", FIRST, str(there))["code"] == "unsafe-path"
    assert (there / "a").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    assert terminal.refused("pull", FIRST, str(tmp_path / "file"))["fact"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_job_that_left_nothing_makes_no_folder(terminal: Terminal, tmp_path: Path) -> None:
    terminal.made.job(FIRST, DONE)
    code, out, err = terminal("pull", FIRST, str(tmp_path / "there"))
    assert (code, out) == (0, "")
    assert "no files" in err
    assert not (tmp_path / "there").exists()


# ------------------------------------------------------------------------------------------------------------ stopping


def test_a_job_that_is_over_stays_as_it_ended(terminal: Terminal) -> None:
    folder = terminal.made.job(FIRST, BROKE)
    before = terminal.made.records(FIRST)
    code, out, _ = terminal("stop", FIRST, "--reason", "never mind")
    assert (code, out) == (0, "0xa1a1a1a1… failed\n")
    assert folder.stop_asked() is None
    assert terminal.made.records(FIRST) == before
    assert json.loads(terminal("stop", FIRST, "--json")[1])["exit_code"] == 7


def test_a_wish_to_stop_is_left_for_whoever_runs_the_job(terminal: Terminal) -> None:
    folder = terminal.made.job(FIRST, UNDER_WAY)
    before = terminal.made.records(FIRST)
    code, out, _ = terminal("stop", FIRST, "--no-wait", "--reason", "x" * 500)
    assert (code, out) == (0, "0xa1a1a1a1… running\n")
    assert folder.stop_asked() == "x" * 200
    assert terminal.made.records(FIRST) == before, "the runner journals it, nobody else"
