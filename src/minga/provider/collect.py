"""Takes results out of a hostile folder: artifacts and progress lines (checkpoints: `minga.provider.checkpoints`).

Knows: the job's layout (`out`, `work`, `progress.jsonl`) and its handle, which opens files without
following links. Does not know: leases or money. Rule: a file is hashed while it is copied, never before or after, and
everything is bounded; what cannot be taken is named, and the rest is taken.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import anyio

from minga.core.codec import SAFE_INTEGER
from minga.core.errors import MingaError, NotFound, TenantError, TooLarge
from minga.core.spec import FILES_MAX, safe_relative
from minga.runtimes.runtime import Handle, OutputFile
from minga.store.blobs import BlobStore

PROGRESS = "progress.jsonl"
OUT, WORKDIR = "out", "work"
WARNINGS_MAX = 20
_PROGRESS_READ = 1 << 16
_PROGRESS_FIELDS = 16


@dataclass
class Collection:
    """Files taken (`spec.FileEntry` values, sorted by path) and what could not be."""

    files: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def warn(self, fact: str) -> None:
        """Note something that was left behind; at most `WARNINGS_MAX` are kept."""
        if len(self.warnings) < WARNINGS_MAX:
            self.warnings.append(fact[:300])


def wanted_path(path: str, outputs: Iterable[str]) -> str | None:
    """The name under which a file of the job's folder is an artifact; None when it is none.

    Files of `out` keep their path below it, files of `work` that a glob names keep theirs.

    Args:
        path: relative to the job's folder.
        outputs: globs relative to `work`; `**` crosses folders, and a glob that names a folder takes all in it.
    """
    top, _, rest = path.partition("/")
    if top == OUT and rest:
        return rest
    if top == WORKDIR and rest and any(_glob(pattern).fullmatch(rest) for pattern in outputs):
        return rest
    return None


def _glob(pattern: str) -> re.Pattern[str]:
    text = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        text += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
    return re.compile(text + "(?:/.*)?", re.DOTALL)


async def collect_artifacts(handle: Handle, blobs: BlobStore, outputs: Iterable[str], bytes_max: int) -> Collection:
    """Copy every artifact into the store.

    Args:
        handle: the job, ended.
        blobs: where to.
        outputs: the manifest's globs.
        bytes_max: of all artifacts together; what is over it is left behind, with a warning.
    """
    found = Collection()
    patterns = list(outputs)
    names: dict[str, OutputFile] = {}
    for file in await listing(handle, found):
        name = wanted_path(file.path, patterns)
        if name is not None and (name not in names or file.path.startswith(OUT + "/")):
            names[name] = file
    if len(names) > FILES_MAX:
        found.warn(f"{len(names)} artifacts, only the first {FILES_MAX} are kept")
    left = bytes_max
    for name in sorted(names)[:FILES_MAX]:
        entry = await _take(handle, blobs, names[name], name, left, found)
        if entry is not None:
            left -= entry["bytes"]
            found.files.append(entry)
    return found


async def listing(handle: Handle, found: Collection) -> list[OutputFile]:
    """The files of the job's folder; none, and a warning, when there are too many or no folder."""
    try:
        return await handle.list_outputs()
    except (TooLarge, NotFound) as error:
        found.warn(error.fact)
        return []


async def _take(
    handle: Handle, blobs: BlobStore, file: OutputFile, name: str, left: int, found: Collection
) -> dict[str, Any] | None:
    try:
        safe_relative(name)
        reader = await handle.open_output(file.path)
    except TenantError as error:
        found.warn(f"{file.path[:100]!r}: {error.fact}")
        return None
    with reader:
        executable = bool(stat_of(reader)[3] & 0o100)
        try:
            digest, size = await anyio.to_thread.run_sync(blobs.add_stream, reader, left)
        except MingaError as error:
            found.warn(f"{file.path[:100]!r}: {error.fact}")
            return None
    return {"path": name, "bytes": size, "blake3": digest, "executable": executable}


def stat_of(reader: BinaryIO) -> tuple[int, int, int, int]:
    """Inode, size, time of change in ns, mode; of a file that is only in memory, its size."""
    try:
        info = os.fstat(reader.fileno())
    except OSError:
        return 0, reader.seek(0, os.SEEK_END) + reader.seek(0), 0, 0
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_mode


# ----------------------------------------------------------------------------------------------------------- progress


class ProgressTail:
    """Reads the lines that a job appends to its progress file, newest last; bounded however much it writes."""

    def __init__(self, handle: Handle) -> None:
        """Tail the progress file of `handle` from its beginning."""
        self._handle = handle
        self._offset = 0

    async def latest(self) -> dict[str, Any] | None:
        """The newest complete line since the last call, made safe to store; None when there is none."""
        try:
            reader = await self._handle.open_output(PROGRESS)
        except TenantError:
            return None
        with reader:
            data = await anyio.to_thread.run_sync(self._read, reader)
        for line in reversed(data.split(b"\n")):
            if (found := parse_progress(line)) is not None:
                return found
        return None

    def _read(self, reader: BinaryIO) -> bytes:
        size = stat_of(reader)[1]
        start = max(min(self._offset, size), size - _PROGRESS_READ)
        reader.seek(start)
        data = reader.read(_PROGRESS_READ)
        end = data.rfind(b"\n") + 1
        self._offset = start + end
        return data[:end]


def parse_progress(line: bytes) -> dict[str, Any] | None:
    """A progress line as JSON values fit for a journal: numbers that are not whole become text; None if it is none."""
    if not line.strip() or len(line) > 4096:
        return None
    try:
        value = json.loads(line, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    kept: dict[str, Any] = {}
    for key, item in list(value.items())[:_PROGRESS_FIELDS]:
        if not key.isidentifier() or len(key) > 32:
            continue
        if isinstance(item, bool) or (isinstance(item, int) and abs(item) <= SAFE_INTEGER):
            kept[key] = item
        elif isinstance(item, str):
            kept[key] = item[:200].encode(errors="replace").decode()
    return kept or None
