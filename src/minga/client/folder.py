"""One job's folder: what a tenant finds there, and what any process of this machine may read of a running job.

```
jobs/<id>/  spec.json  wallet.key  secrets.json   (0600; the two secrets are removed once everything is settled)
            events.jsonl     what happened, for screens; one JSON object a line, numbered
            log.0 log.1 …    output of each attempt
            artifacts.json artifacts/   checkpoints/ (see `minga.store.chunks`)
            stop.json        a wish to stop, from any process
```

The journal decides about money; these files are for people and for resuming downloads. Every path that a provider
names is checked (`safe_relative`) and made beneath its folder without following links. Rule: a file has its final name
only when it is whole and its hash was verified.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minga.core.crypto import PrivateKey
from minga.core.errors import BadAnswer, DiskFull, NotFound, UnsafePath
from minga.core.spec import FileEntry, safe_relative
from minga.store.blobs import sync_folder, write_atomic

LOG_BYTES_MAX = 256 << 20


class NoRoomHere(DiskFull):
    """The tenant's own disk is full, not a provider's. It has no code of its own: no answer of a peer becomes it."""

    blame = "tenant"
    exit_code = 2
    http_status = 400


@dataclass(frozen=True)
class Artifact:
    """A file that the job left: its path within the job's outputs, size, hash, and where it is now."""

    path: str
    bytes: int
    blake3: str
    file: Path
    executable: bool = False


@dataclass(frozen=True)
class JobEvent:
    """Something that happened, for screens and programs: `number` from 1, Unix seconds, kind and data."""

    number: int
    at: int
    kind: str
    data: dict[str, Any]


class JobFolder:
    """The files of one job. Methods block for a moment; one process writes (the runner), others read."""

    def __init__(self, path: Path) -> None:
        """Use `path`; nothing is made yet."""
        self.path = path
        self._events_written = -1

    def create(self) -> None:
        """Make the folder (0700); idempotent."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)

    # ------------------------------------------------------------------------------------------------ keys, secrets

    def save_private(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file that only this user may read."""
        write_atomic(self.path / name, json.dumps(value).encode())

    def load_private(self, name: str) -> dict[str, Any]:
        """Read what `save_private` wrote.

        Raises:
            NotFound: it is not there (any more).
        """
        try:
            value = json.loads((self.path / name).read_bytes())
        except FileNotFoundError:
            raise NotFound(f"{name} of this job is not here", "it is removed once a job is settled") from None
        if not isinstance(value, dict):
            raise BadAnswer(f"{name} of this job is damaged", "restore it from a copy")
        return value

    def wallet(self) -> PrivateKey:
        """The job wallet's key; errors as `load_private`."""
        return PrivateKey(bytes.fromhex(self.load_private("wallet.key")["secret"]))

    def forget_secrets(self) -> None:
        """Remove the sealed-to-be secrets; idempotent."""
        (self.path / "secrets.json").unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------------- events

    def tell(self, at: int, kind: str, data: dict[str, Any]) -> None:
        """Append an event; on a full disk it is dropped."""
        path = self.path / "events.jsonl"
        try:
            if self._events_written < 0:
                self._events_written = self._repair(path)
            number = self._events_written + 1
            line = json.dumps({"number": number, "at": at, "kind": kind, "data": data}, separators=(",", ":"))
            with path.open("a") as handle:
                handle.write(line + "\n")
        except OSError:
            self._events_written = -1  # half of the line may be there
            return
        self._events_written = number

    def _repair(self, path: Path) -> int:
        """Cut off a half-written last line; returns the number of whole lines."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return 0
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) != len(data):
            os.truncate(path, len(whole))
        return whole.count(b"\n")

    def events(self, offset: int = 0) -> tuple[list[JobEvent], int]:
        """Events from byte `offset` on, and the offset after them."""
        try:
            with (self.path / "events.jsonl").open("rb") as handle:
                handle.seek(offset)
                data = handle.read()
        except FileNotFoundError:
            return [], offset
        whole = data[: data.rfind(b"\n") + 1]
        found = [json.loads(line) for line in whole.splitlines()]
        return [JobEvent(item["number"], item["at"], item["kind"], item["data"]) for item in found], offset + len(whole)

    # ---------------------------------------------------------------------------------------------------------- log

    def log_path(self, attempt: int) -> Path:
        """The log of one attempt."""
        return self.path / f"log.{attempt}"

    def log_offset(self, attempt: int) -> int:
        """Bytes of an attempt's log that are here."""
        path = self.log_path(attempt)
        return path.stat().st_size if path.exists() else 0

    def log_append(self, attempt: int, data: bytes) -> bool:
        """Append to a log; False, and nothing done, once it is over `LOG_BYTES_MAX`.

        Raises:
            NoRoomHere: what was written is kept, and `log_offset` says how much.
        """
        if self.log_offset(attempt) + len(data) > LOG_BYTES_MAX:
            return False
        try:
            with self.log_path(attempt).open("ab") as handle:
                handle.write(data)
        except OSError as error:
            raise NoRoomHere(f"the log cannot be written: {error.strerror}", "free some disk") from error
        return True

    def log_chunks(self, place: tuple[int, int]) -> tuple[bytes, tuple[int, int]]:
        """Up to a mebibyte of log from (attempt, offset), and the place after it; later attempts follow on."""
        attempt, offset = place
        while True:
            path = self.log_path(attempt)
            if path.exists():
                with path.open("rb") as handle:
                    handle.seek(offset)
                    data = handle.read(1 << 20)
                if data:
                    return data, (attempt, offset + len(data))
            if not any(self.log_path(later).exists() for later in range(attempt + 1, attempt + 33)):
                return b"", (attempt, offset)
            attempt, offset = attempt + 1, 0

    # ---------------------------------------------------------------------------------------------------- artifacts

    def scratch(self, name: str) -> Path:
        """An empty folder for files that are on their way; what an earlier run left is kept for resuming."""
        path = self.path / "partial" / name
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def keep_artifacts(self, scratch: Path, files: list[FileEntry]) -> None:
        """Replace the artifacts by a complete set."""
        target, old = self.path / "artifacts", self.path / "partial" / "old"
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
        scratch.rename(target)
        sync_folder(self.path)
        shutil.rmtree(old, ignore_errors=True)
        listed = {"files": [entry.plain() for entry in files]}
        write_atomic(self.path / "artifacts.json", json.dumps(listed).encode())

    def artifacts(self) -> list[Artifact]:
        """What the job left, as far as it is here."""
        try:
            listed = json.loads((self.path / "artifacts.json").read_bytes())["files"]
        except FileNotFoundError:
            return []
        entries = [FileEntry.parse(item) for item in listed]
        base = self.path / "artifacts"
        return [Artifact(e.path, e.bytes, e.blake3, base / e.path, e.executable) for e in entries]

    def pull(self, target: Path) -> list[Artifact]:
        """Copy the artifacts to another folder; returns them there."""
        pulled = []
        for artifact in self.artifacts():
            path = beneath(target, artifact.path)
            shutil.copyfile(artifact.file, path)
            path.chmod(0o755 if artifact.executable else 0o644)
            pulled.append(Artifact(artifact.path, artifact.bytes, artifact.blake3, path, artifact.executable))
        return pulled

    # --------------------------------------------------------------------------------------------------------- stop

    def ask_stop(self, reason: str) -> None:
        """Leave a wish to stop for whoever runs the job."""
        write_atomic(self.path / "stop.json", json.dumps({"reason": reason[:200]}).encode())

    def stop_asked(self) -> str | None:
        """The reason of a wish to stop, if there is one."""
        try:
            return str(json.loads((self.path / "stop.json").read_bytes())["reason"])
        except (FileNotFoundError, ValueError, KeyError):
            return None


def beneath(folder: Path, name: str) -> Path:
    """`folder/name` with its parents made, for a name that somebody else chose.

    Raises:
        UnsafePath: the name is not plain, or a part of it is a link.
        NoRoomHere: a folder cannot be made.
    """
    try:
        return _beneath(folder, name)
    except OSError as error:
        raise NoRoomHere(f"no folder for {name[:80]} can be made: {error.strerror}", "free some disk") from error


def _beneath(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder
    *parents, last = safe_relative(name).split("/")
    for part in parents:
        path = path / part
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise UnsafePath(f"{name[:80]} runs through {part[:40]}, which is not a folder", "choose an empty folder")
        path.mkdir(exist_ok=True)
    if (path / last).is_symlink() or (path / last).is_dir():
        raise UnsafePath(f"{name[:80]} exists and is not a file", "choose an empty folder")
    return path / last


def distinct(files: list[FileEntry]) -> Iterator[FileEntry]:
    """The entries, if no path stands twice or runs through another file.

    Raises:
        UnsafePath: two entries want the same place.
    """
    seen = {entry.path for entry in files}
    if len(seen) != len(files):
        raise UnsafePath("a list of files names one path twice", "the provider is at fault")
    for entry in files:
        parts = entry.path.split("/")
        if any("/".join(parts[:i]) in seen for i in range(1, len(parts))):
            raise UnsafePath(f"{entry.path[:80]} runs through another file", "the provider is at fault")
        yield entry
