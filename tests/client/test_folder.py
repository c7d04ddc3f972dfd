"""A job's folder: files from strangers land where they belong, and half-written ones are nobody's."""

from __future__ import annotations

from pathlib import Path

import pytest

from minga.client import folder as module
from minga.client.folder import JobFolder, NoRoomHere, beneath, distinct
from minga.client.home import Home, Network
from minga.core.errors import InvalidInput, MingaError, NotFound, UnsafePath
from minga.core.spec import FileEntry


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    made = JobFolder(tmp_path / "job")
    made.create()
    return made


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/../../x", "", ".", "a\\b", "a\0b", "x" * 2000])
def test_a_path_that_leaves_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafePath):
        beneath(tmp_path, name)


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to("/tmp")
    (tmp_path / "out" / "file").symlink_to("/etc/passwd")
    for name in ("a/b", "file"):
        with pytest.raises(UnsafePath):
            beneath(tmp_path / "out", name)
    assert beneath(tmp_path / "out", "c/d") == tmp_path / "out" / "c" / "d"


def entry(path: str) -> FileEntry:
    return FileEntry(path=path, bytes=0, blake3="ab" * 32)


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]])
def test_files_that_stand_in_each_others_way_are_refused(paths: list[str]) -> None:
    with pytest.raises(UnsafePath):
        list(distinct([entry(path) for path in paths]))


def test_events_survive_a_half_written_line(job: JobFolder) -> None:
    job.tell(1, "a", {"x": 1})
    job.tell(2, "b", {})
    with (job.path / "events.jsonl").open("a") as handle:
        handle.write('{"number": 3, "at"')
    events, offset = job.events()
    assert [event.number for event in events] == [1, 2]
    again = JobFolder(job.path)
    again.tell(3, "c", {})
    events, _ = job.events(offset)
    assert [(event.number, event.kind) for event in events] == [(3, "c")]


def test_logs_of_all_attempts_follow_each_other_and_have_a_limit(job: JobFolder, monkeypatch) -> None:
    monkeypatch.setattr(module, "LOG_BYTES_MAX", 10)
    assert job.log_append(0, b"first")
    assert not job.log_append(0, b"too long")
    assert job.log_append(2, b"third")
    data, place = job.log_chunks((0, 0))
    assert data == b"first"
    data, place = job.log_chunks(place)
    assert data == b"third"
    assert job.log_chunks(place) == (b"", (2, 5))


def test_artifacts_replace_each_other_whole(job: JobFolder, tmp_path: Path) -> None:
    for text in ("old", "new"):
        scratch = job.scratch(f"s-{text}")
        (scratch / "x").write_text(text)
        job.keep_artifacts(scratch, [entry("x")])
    (artifact,) = job.artifacts()
    assert artifact.file.read_text() == "new"
    (pulled,) = job.pull(tmp_path / "out")
    assert pulled.file.read_text() == "new"


def test_private_files(job: JobFolder) -> None:
    job.save_private("secrets.json", {"a": "b"})
    assert (job.path / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert job.load_private("secrets.json") == {"a": "b"}
    job.forget_secrets()
    job.forget_secrets()
    with pytest.raises(NotFound):
        job.load_private("secrets.json")
    assert job.stop_asked() is None
    job.ask_stop("enough")
    assert job.stop_asked() == "enough"


@pytest.mark.parametrize("name", ["../x", "", "a/b", "x" * 65, ".x"])
def test_a_networks_name_is_no_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        Network.load(Home(tmp_path), name)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"chain": {}, "boards": []}', '{"chain": 1, "boards": 2, "x": 3}'])
def test_a_damaged_network_file_is_a_clear_error(text: str, tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.networks.mkdir()
    (home.networks / "n.json").write_text(text)
    with pytest.raises(MingaError):
        Network.load(home, "n")
    with pytest.raises(NotFound):
        Network.load(home, "other")


def test_a_full_disk_drops_events_for_screens_and_keeps_the_file_readable(job: JobFolder, tmp_path: Path) -> None:
    path = job.path / "events.jsonl"
    job.tell(1, "first", {})
    path.rename(tmp_path / "aside")
    path.symlink_to("/dev/full")
    job.tell(2, "dropped", {"text": "x" * 100_000})
    path.unlink()
    (tmp_path / "aside").rename(path)
    with path.open("a") as handle:
        handle.write('{"number": 2, "at": 2, "ki')  # what such a write leaves
    job.tell(3, "second", {})
    events, _ = job.events()
    assert [(event.number, event.kind) for event in events] == [(1, "first"), (2, "second")]


def test_a_full_disk_for_the_log_is_our_own(job: JobFolder) -> None:
    job.log_path(0).symlink_to("/dev/full")
    with pytest.raises(NoRoomHere):
        job.log_append(0, b"x" * 100_000)


def test_a_folder_that_cannot_be_made_is_our_own_trouble(job: JobFolder) -> None:
    (job.path / "file").write_text("in the way")
    with pytest.raises(NoRoomHere):
        beneath(job.path / "file" / "out", "a")


@pytest.mark.parametrize("name", ["wallet.key", "secrets.json"])
def test_a_damaged_private_file_is_one_clear_error(name: str, job: JobFolder) -> None:
    (job.path / name).write_text("[]")
    with pytest.raises(MingaError, match="damaged"):
        job.load_private(name)


def test_a_pull_never_writes_through_what_stands_there(job: JobFolder, tmp_path: Path) -> None:
    scratch = job.scratch("s")
    (scratch / "x").write_text("result")
    job.keep_artifacts(scratch, [entry("x")])
    target = tmp_path / "out"
    target.mkdir()
    (tmp_path / "precious").write_text("mine")
    (target / "x").symlink_to(tmp_path / "precious")
    with pytest.raises(UnsafePath):
        job.pull(target)
    assert (tmp_path / "precious").read_text() == "mine"
