"""An owner takes the machine back: each lease's way to its end as lines, and no word of a tenant that is not text."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "provider"))

from leases import H, Lease, ready, started, voucher

from minga.cli import reclaim as module
from minga.cli.announce import Announcer
from minga.cli.main import main
from minga.cli.reclaim import _follow, _watch
from minga.core.errors import Conflict
from minga.provider import events as ev
from minga.provider import owner
from minga.store.journal import Journal

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202egnp"
ONE, TWO = "0x" + "a1" * 32, "0x" + "b2" * 32


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A provider's journal."""
    made = Journal(tmp_path / "journal.sqlite")
    yield made
    made.close()


def write(journal: Journal, stream: str, lease: Lease, after: int = 0) -> int:
    """Journal what happened to a lease after its first `after` events; returns how many there are now."""
    for event, at in lease.journal[after:]:
        kind, body = ev.encode(event)
        journal.append(stream, kind, body, at)
    return len(lease.journal)


def end(lease: Lease) -> Lease:
    """The job is gone, collected and closed."""
    lease.do(ev.Exited(143, "exited", "", 4))
    lease.do(ev.Collected([], []))
    lease.do(ev.Closed(H, ""))
    return lease


def reclaimed(reason: str = "a guest") -> Lease:
    """A running lease that was given notice."""
    lease = started()
    lease.do(voucher(4))
    lease.do(ev.Reclaimed(reason, 60))
    return lease


def test_following_reads_only_what_is_new_and_folds_the_same(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    lease, asked, read = ready(), [], journal.read
    monkeypatch.setattr(
        journal, "read", lambda stream, after=0: (asked.append((stream, after)), read(stream, after))[1]
    )
    count = write(journal, ONE, lease)
    journal.append("owner", "TakenBack", {"reason": "x", "revoke": False}, 1)
    looks = _follow(journal)
    assert {name: state.phase for name, state in next(looks).items()} == {ONE: "ready"}
    lease.do(ev.StartAsked([]))
    lease.do(ev.Started())
    write(journal, ONE, lease, count)
    write(journal, TWO, Lease())
    found = next(looks)
    assert {name: state.phase for name, state in found.items()} == {ONE: "running", TWO: "opened"}
    assert found[ONE] == lease.state
    assert next(looks) == found
    assert asked == [(ONE, 0), (ONE, count), (TWO, 0), (ONE, count + 2), (TWO, 1)]


def test_a_machine_without_jobs_is_had_at_once(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    write(journal, ONE, end(reclaimed()))
    assert _watch(journal, quiet=False) == {}
    assert capsys.readouterr().out == "", "a lease that was over before is not told"


def test_each_step_of_each_lease_is_told_once(
    journal: Journal, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = reclaimed("a guest")
    count = write(journal, ONE, lease)
    steps = iter(
        [lambda: None, lambda: lease.do(ev.Exited(143, "exited", "", 4)), lambda: lease.do(ev.Collected([], []))]
    )

    def meanwhile(seconds: float) -> None:
        nonlocal count
        next(steps)()
        count = write(journal, ONE, lease, count)

    monkeypatch.setattr(module.time, "sleep", meanwhile)
    with journal.exclusive(owner.WORKING):
        found = _watch(journal, quiet=False)
    lines = capsys.readouterr().out.splitlines()
    phases = [line.split()[2] for line in lines]
    assert phases == list(dict.fromkeys(phases)), "no phase twice"
    assert phases[0] == "stopping"
    assert "(reclaimed: a guest)" in lines[0]
    assert found[ONE].paid == lease.state.paid > 0
    assert next(steps, None) is None


def test_a_provider_that_dies_meanwhile_is_one_error_with_what_to_do(journal: Journal) -> None:
    write(journal, ONE, reclaimed())
    with pytest.raises(Conflict, match="died meanwhile") as caught:
        _watch(journal, quiet=True)
    assert "start it again" in caught.value.remedy


def test_a_tenants_reason_cannot_command_the_owners_terminal(
    journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    lease = started()
    lease.do(ev.StopAsked("tenant", HOSTILE, 30))
    write(journal, ONE, lease)
    with pytest.raises(Conflict):
        _watch(journal, quiet=False)
    shown = capsys.readouterr().out
    assert shown == "lease 0xa1a1a1a1… stopping (0;ownedgnp)\n"


def test_what_a_provider_announces_is_text_and_json_stays_whole(capsys: pytest.CaptureFixture[str]) -> None:
    config: Any = SimpleNamespace(spec=SimpleNamespace(deployment=SimpleNamespace(decimals=6)))
    told = [
        ("lease", {"lease": ONE, "phase": "stopping", "reason": HOSTILE, "paid": "0"}),
        ("warning", {"code": "c", "fact": HOSTILE, "remedy": HOSTILE}),
    ]
    for kind, facts in told:
        Announcer(config, None, False)(kind, facts)
        Announcer(config, None, True)(kind, facts)
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [{"event": kind, **facts} for kind, facts in told]
    assert err.splitlines() == [
        "lease 0xa1a1a1a1… stopping (0;ownedgnp), paid $0.00",
        "warning c: 0;ownedgnp → 0;ownedgnp",
    ]
    assert not set(out + err) & set(HOSTILE[:1] + "\x07\u202e")


# ---------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose local network has the provider p1, which is not working."""
    for name in ("MINGA_HOME", "MINGA_NETWORK", "MINGA_DEBUG", "MINGA_FAULTS"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home/local/p1/provider/local"
    folder.mkdir(parents=True)
    Journal(folder / "journal.sqlite").close()
    return tmp_path / "home"


def wish(home: Path) -> owner.Wish:
    made = Journal(home / "local/p1/provider/local/journal.sqlite")
    try:
        return owner.read_wish(made)
    finally:
        made.close()


def refused(home: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    assert main(["--home", str(home), "reclaim", "--json", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    found: dict[str, str] = json.loads(err)["error"]
    assert found["remedy"]
    return found


def test_nothing_is_taken_back_where_nobody_works(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(home, capsys, "--provider", "p1")["code"] == "conflict"
    assert wish(home) == owner.Wish()


@pytest.mark.parametrize("name", ["p2", "p", "px", "../p1", "p1/..", ""])
def test_a_provider_that_is_not_there_is_named_with_those_that_are(
    home: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(home, capsys, "--provider", name)
    assert error["code"] == "not-found"
    assert "it has: p1" in error["remedy"]


def test_a_provider_that_never_worked_is_one_error(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "local/p1/provider/local/journal.sqlite").unlink()
    assert refused(home, capsys, "--provider", "p1")["code"] == "not-found"
    assert not (home / "local/p1/provider/local/journal.sqlite").exists(), "looking makes nothing"


def test_the_machine_is_offered_again_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--home", str(home), "reclaim", "--provider", "p1", "--end"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"reclaimed": False, "changed": False}
    made = Journal(home / "local/p1/provider/local/journal.sqlite")
    owner.take_back(made, "a guest", False, 5)
    made.close()
    assert wish(home).taken_back
    assert main(words) == 0
    assert capsys.readouterr().out == "offering again\n"
    assert not wish(home).taken_back
    assert main(words) == 0
    assert capsys.readouterr().out == "nothing to end\n"
