"""Started processes: found again by pid and start time, repaired, stopped, never confused with others."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from minga.cli.processes import Processes, announce_ready
from minga.core.errors import Conflict, InternalError, InvalidInput, MingaError

READY = (
    "import sys, time, json, os, pathlib;"
    "pathlib.Path(sys.argv[1]).write_text(json.dumps({'pid': os.getpid(), 'url': 'http://x'}));"
    "time.sleep(60)"
)
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + READY


def argv(program: str = READY, *more: str) -> list[str]:
    return [sys.executable, "-c", program, "{ready}", *more]


@pytest.fixture
def processes(tmp_path: Path) -> object:
    made = Processes(tmp_path / "net")
    yield made
    for record in made.records():
        made.stop(record.name, wait_s=1)


def test_a_process_is_started_once_and_found_again(processes: Processes) -> None:
    record, fresh = processes.ensure("one", argv(), {}, 10)
    assert fresh
    assert record.ready["url"] == "http://x"
    again, fresh = Processes(processes.folder).ensure("one", argv(), {}, 10)
    assert not fresh
    assert again.pid == record.pid
    assert processes.stop("one") == "stopped"
    assert processes.stop("one") == "was not running"
    assert not psutil.pid_exists(record.pid) or psutil.Process(record.pid).status() == psutil.STATUS_ZOMBIE


def test_other_arguments_and_death_start_it_anew(processes: Processes) -> None:
    first, _ = processes.ensure("one", argv(), {}, 10)
    second, fresh = processes.ensure("one", argv(READY, "more"), {}, 10)
    assert fresh
    assert first.find() is None
    os.kill(second.pid, signal.SIGKILL)
    psutil.Process(second.pid).wait(5)
    third, fresh = processes.ensure("one", argv(READY, "more"), {}, 10)
    assert fresh
    assert third.find() is not None


def test_one_that_ignores_sigterm_is_killed(processes: Processes) -> None:
    record, _ = processes.ensure("stubborn", argv(STUBBORN), {}, 10)
    assert processes.stop("stubborn", wait_s=0.2) == "killed"
    assert record.find() is None


def test_a_recycled_pid_is_never_signalled(processes: Processes) -> None:
    record, _ = processes.ensure("one", argv(), {}, 10)
    other = replace(record, pid=os.getpid())
    assert other.find() is None
    processes._save([other])
    assert processes.stop("one") == "was not running"
    processes._save([record])


def test_an_early_death_tells_its_own_error(processes: Processes) -> None:
    program = (
        "import sys, json; print('noise');"
        "print(json.dumps({'error': {'code': 'port-in-use', 'fact': 'port 1 is in use', 'remedy': 'use 2'}}),"
        "file=sys.stderr); sys.exit(5)"
    )
    with pytest.raises(MingaError) as told:
        processes.ensure("one", argv(program), {}, 10)
    assert (told.value.code, told.value.exit_code, told.value.remedy) == ("port-in-use", 5, "use 2")
    assert told.value.fact == "one: port 1 is in use"


def test_an_early_death_without_a_word_shows_the_end_of_its_log(processes: Processes) -> None:
    with pytest.raises(InternalError, match="code 7: the last words"):
        processes.ensure("one", argv("import sys; print('the last words', flush=True); sys.exit(7)"), {}, 10)


def test_one_that_never_gets_ready_is_stopped(processes: Processes) -> None:
    with pytest.raises(InternalError, match="not ready"):
        processes.ensure("one", argv("import time; time.sleep(60)"), {}, 0.3)
    record = processes.get("one")
    assert record is not None
    psutil.wait_procs([psutil.Process(record.pid)] if psutil.pid_exists(record.pid) else [], timeout=5)
    assert record.find() is None


def test_a_damaged_record_file_is_an_error_and_kept(processes: Processes) -> None:
    for content in ("{", "[1]", '[{"name": "x"}]', "null"):
        (processes.folder / "processes.json").write_text(content)
        with pytest.raises(InvalidInput, match="damaged"):
            processes.records()
        assert (processes.folder / "processes.json").read_text() == content
    (processes.folder / "processes.json").unlink()


def test_one_command_at_a_time(processes: Processes) -> None:
    with processes.exclusive(), pytest.raises(Conflict), processes.exclusive():
        raise AssertionError("held twice")
    with processes.exclusive():
        pass


def test_ready_without_a_file_says_nothing(tmp_path: Path) -> None:
    announce_ready(None, {})
    announce_ready(tmp_path / "deep" / "ready.json", {"url": "u"})
    assert '"url": "u"' in (tmp_path / "deep" / "ready.json").read_text()
