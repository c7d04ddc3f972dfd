"""How anvil is found, fetched and checked."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import pytest

from minga.chain import anvil
from minga.core.errors import MissingPrerequisite, NetworkError

PROGRAM = b"#!/bin/sh\necho 'anvil Version: 1.7.1'\n"


def package(program: bytes = PROGRAM) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/bin/anvil")
        member.size = len(program)
        archive.addfile(member, io.BytesIO(program))
    return raw.getvalue()


def sha512(data: bytes) -> str:
    return base64.b64encode(hashlib.sha512(data).digest()).decode()


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An empty PATH, an empty cache, and a platform whose package is ours."""
    monkeypatch.setattr(anvil, "platform_name", lambda: "linux-amd64")
    monkeypatch.setitem(anvil.PACKAGES, "linux-amd64", sha512(package()))
    (tmp_path / "bin").mkdir()
    for tool in ("sh", "cp"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    return {"PATH": str(tmp_path / "bin"), "MINGA_CACHE": str(tmp_path / "cache")}


def npm(environ: dict[str, str], script: str) -> None:
    """Put an npm on PATH that runs `script`; `$4` is the folder for the package."""
    path = Path(environ["PATH"]) / "npm"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def serving(environ: dict[str, str], tmp_path: Path, data: bytes) -> None:
    """An npm that brings `data` and writes down what it was asked."""
    (tmp_path / "package").write_bytes(data)
    npm(environ, f'echo "$@" >> {tmp_path}/asked; cp {tmp_path}/package "$4/anvil.tgz"')


def test_it_is_fetched_once_checked_and_kept(environ: dict[str, str], tmp_path: Path) -> None:
    serving(environ, tmp_path, package())
    found = anvil.find_anvil(environ)
    assert found.read_bytes() == PROGRAM
    assert found.parent == tmp_path / "cache"
    assert anvil.find_anvil(environ) == found
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == 1
    assert asked[0].startswith("pack @foundry-rs/anvil-linux-amd64@1.7.1 ")
    assert "registry" not in asked[0]
    assert [path.name for path in found.parent.iterdir()] == [found.name]


def test_what_has_another_hash_is_not_unpacked(environ: dict[str, str], tmp_path: Path) -> None:
    serving(environ, tmp_path, package(b"#!/bin/sh\necho another\n"))
    with pytest.raises(NetworkError, match="not used"):
        anvil.find_anvil(environ)
    assert not (tmp_path / "cache").exists()


def test_the_pinned_version_on_path_comes_first(environ: dict[str, str], tmp_path: Path) -> None:
    mine = Path(environ["PATH"]) / "anvil"
    mine.write_bytes(PROGRAM)
    mine.chmod(0o755)
    assert anvil.find_anvil(environ) == mine
    mine.write_text("#!/bin/sh\necho 'anvil Version: 0.3.0'\n")
    serving(environ, tmp_path, package())
    assert anvil.find_anvil(environ).parent == tmp_path / "cache"


def test_without_npm_one_line_says_what_to_do(environ: dict[str, str]) -> None:
    with pytest.raises(MissingPrerequisite, match="npm is not installed") as caught:
        anvil.find_anvil(environ)
    assert "install npm" in caught.value.remedy
    assert "PATH" in caught.value.remedy
    with pytest.raises(MissingPrerequisite, match="not installed"):
        anvil.find_anvil(environ, fetch=False)


@pytest.mark.parametrize("script", ["echo 'npm error no network' >&2; exit 1", "exit 0"])
def test_an_npm_that_fails_is_told_in_its_own_words(environ: dict[str, str], script: str) -> None:
    npm(environ, script)
    with pytest.raises(MissingPrerequisite) as caught:
        anvil.find_anvil(environ)
    assert ("no network" in caught.value.fact) == ("no network" in script)


def test_a_platform_without_a_package(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anvil, "platform_name", lambda: "plan9-mips")
    with pytest.raises(MissingPrerequisite, match="plan9-mips"):
        anvil.find_anvil(environ)


@pytest.mark.parametrize(
    ("system", "machine", "name"),
    [
        ("Linux", "x86_64", "linux-amd64"),
        ("Linux", "aarch64", "linux-arm64"),
        ("Darwin", "arm64", "darwin-arm64"),
        ("Windows", "AMD64", "win32-amd64"),
    ],
)
def test_platforms_have_the_packages_names(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, name: str
) -> None:
    monkeypatch.setattr(anvil.platform, "system", lambda: system)
    monkeypatch.setattr(anvil.platform, "machine", lambda: machine)
    assert anvil.platform_name() == name
    assert len(base64.b64decode(anvil.PACKAGES[name])) == 64


def test_the_cache_is_the_users(tmp_path: Path) -> None:
    assert anvil.cache_folder({"MINGA_CACHE": str(tmp_path)}) == tmp_path
    assert anvil.cache_folder({}) == Path.home() / ".cache" / "minga"
