"""A job's files as blobs: each folder or file becomes one deterministic tar, named by its BLAKE3.

The same files make the same bytes on every machine: names sorted, times and owners zero, modes 644 or 755. What
`.mingaignore` lists is left out (without it `.skyignore`, without that `.gitignore`), and `.git` always.

| limit                   | what happens                                                                         |
|-------------------------|--------------------------------------------------------------------------------------|
| over `FILES_MAX` files  | TooLarge; names the count and the folder with most                                   |
| over `bytes_max` bytes  | TooLarge; names the size and the biggest folder                                      |
| a link out of its tree  | UnsafePath; a link that stays inside travels as a link                               |
| sockets, devices, pipes | UnsafePath                                                                           |

Does not know: providers. Rule: nothing outside the named tree is ever read.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any, NoReturn

from minga.core.errors import InvalidInput, NotFound, TooLarge, UnsafePath
from minga.core.spec import FILES_MAX
from minga.store.blobs import BlobStore

BYTES_MAX = 64 << 30
IGNORE_FILES = (".mingaignore", ".skyignore", ".gitignore")
ALWAYS_IGNORED = frozenset({".git", "__pycache__", ".DS_Store"})


@dataclass(frozen=True)
class Packed:
    """A tar in the blob store: its name, size, and how many files it holds."""

    blake3: str
    bytes: int
    files: int


def pack(source: Path, blobs: BlobStore, bytes_max: int = BYTES_MAX, ignore: bool = True) -> Packed:
    """Pack a folder's contents, or one file under its own name. Blocking.

    Args:
        source: a folder or a regular file.
        blobs: where the tar is kept.
        bytes_max: largest sum of file sizes.
        ignore: whether ignore files count (not for checkpoints).

    Raises:
        NotFound: `source` is not there.
        UnsafePath: a link leaves the tree, or a thing that is no file, folder or link.
        TooLarge: too many files or bytes.
        DiskFull: no room for the tar.
    """
    return _packed(list(_entries(source, bytes_max, ignore)), blobs)


def pack_files(files: Mapping[str, Path], blobs: BlobStore) -> Packed:
    """Pack single files under the names given; errors as `pack`."""
    entries = []
    for name, path in sorted(files.items()):
        try:
            info = path.stat()
        except OSError as error:
            raise NotFound(f"{path} cannot be read: {error.strerror}", "check the job's file_mounts") from None
        _check(name, info, path)
        entries.append(_Entry(name, path.resolve(), info))
    return _packed(entries, blobs)


def _packed(entries: list[_Entry], blobs: BlobStore) -> Packed:
    scratch = blobs.folder / "partial" / f"pack-{os.getpid()}-{id(entries)}"
    try:
        with scratch.open("w+b") as handle:
            files = _write(handle, entries)
        size = scratch.stat().st_size
        return Packed(blobs.add_file(scratch), size, files)
    finally:
        scratch.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Entry:
    name: str
    path: Path
    info: os.stat_result


def _entries(source: Path, bytes_max: int, ignore: bool) -> Iterator[_Entry]:
    try:
        info = source.stat()
    except OSError as error:
        raise NotFound(
            f"{source} cannot be read: {error.strerror}", "check the job's workdir and file_mounts"
        ) from None
    if stat.S_ISREG(info.st_mode):
        yield _Entry(source.name, source.resolve(), info)
        return
    if not stat.S_ISDIR(info.st_mode):
        raise UnsafePath(f"{source} is neither a file nor a folder", "name a file or a folder")
    rules = _rules(source) if ignore else ()
    count, total = 0, 0
    for entry in _walk(source, "", rules):
        if not stat.S_ISDIR(entry.info.st_mode):
            count, total = count + 1, total + entry.info.st_size
        if count > FILES_MAX:
            _too_many(source, rules)
        if total > bytes_max:
            raise TooLarge(
                f"{source} holds over {bytes_max} bytes", "leave big files out with a .mingaignore, or mount them apart"
            )
        yield entry


def _too_many(source: Path, rules: tuple[_Rule, ...]) -> NoReturn:
    """Count all, so that the message is right."""
    per_folder: Counter[str] = Counter()
    for entry in _walk(source, "", rules):
        per_folder[entry.name.split("/", 1)[0] if "/" in entry.name else "."] += not stat.S_ISDIR(entry.info.st_mode)
    biggest, most = per_folder.most_common(1)[0]
    raise TooLarge(
        f"{source} holds {sum(per_folder.values())} files, {most} of them in {biggest}; the limit is {FILES_MAX}",
        f"list what the job does not need in {source}/.mingaignore",
    )


def _walk(folder: Path, prefix: str, rules: tuple[_Rule, ...]) -> Iterator[_Entry]:
    try:
        children = sorted(os.scandir(folder), key=lambda child: child.name)
    except OSError as error:
        raise UnsafePath(f"{folder} cannot be read: {error.strerror}", "give yourself the right to read it") from None
    for child in children:
        name = f"{prefix}{child.name}"
        info = child.stat(follow_symlinks=False)
        is_folder = stat.S_ISDIR(info.st_mode)
        if child.name in ALWAYS_IGNORED or _ignored(name, is_folder, rules):
            continue
        _check(name, info, Path(child.path))
        yield _Entry(name, Path(child.path), info)
        if is_folder:
            yield from _walk(Path(child.path), name + "/", rules)


def _check(name: str, info: os.stat_result, path: Path) -> None:
    if (
        any(ord(char) < 32 or ord(char) == 127 for char in name)
        or "\\" in name
        or len(name.encode(errors="replace")) > 1024
    ):
        raise UnsafePath(f"{name[:80]!r} is not a plain name", "rename the file, or ignore it")
    if stat.S_ISLNK(info.st_mode):
        target = os.readlink(path)
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if os.path.isabs(target) or inside == ".." or inside.startswith("../"):
            raise UnsafePath(
                f"the link {name} leads out of its folder, to {target[:80]}", "copy the file in, or ignore it"
            )
    elif not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
        raise UnsafePath(f"{name} is a socket, pipe or device", "list it in .mingaignore")


def _write(handle: BufferedRandom, entries: list[_Entry]) -> int:
    files = 0
    with tarfile.open(fileobj=handle, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            member = tarfile.TarInfo(entry.name)
            member.mode = 0o755 if entry.info.st_mode & 0o100 else 0o644
            if stat.S_ISDIR(entry.info.st_mode):
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
            elif stat.S_ISLNK(entry.info.st_mode):
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, os.readlink(entry.path), 0o777
                tar.addfile(member)
            else:
                files += 1
                _add_file(tar, member, entry)
    return files


def _add_file(tar: tarfile.TarFile, member: tarfile.TarInfo, entry: _Entry) -> None:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(entry.path, flags)
    except OSError as error:
        raise InvalidInput(f"{entry.name} cannot be read: {error.strerror}", "check its rights, or ignore it") from None
    with os.fdopen(descriptor, "rb") as reader:
        member.size = os.fstat(reader.fileno()).st_size
        try:
            tar.addfile(member, _Exactly(reader, entry.name))
        except OSError as error:
            if "unexpected end of data" in str(error):
                raise InvalidInput(
                    f"{entry.name} shrank while it was read", "submit when nothing writes to it"
                ) from None
            raise


class _Exactly:
    """A reader that names the file when it ends early."""

    def __init__(self, reader: Any, name: str) -> None:
        self._reader, self._name = reader, name

    def read(self, size: int = -1) -> bytes:
        return bytes(self._reader.read(size))


# ------------------------------------------------------------------------------------------------------ ignore files


_PIECE = re.compile(r"\*+|\?|\[[!^]?\]?[^\]]*\]|\\.|.", re.DOTALL)


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    keep: bool
    folders_only: bool


def _rules(folder: Path) -> tuple[_Rule, ...]:
    for name in IGNORE_FILES:
        path = folder / name
        if path.is_file() and not path.is_symlink():
            return tuple(rule for line in path.read_text(errors="replace").splitlines() for rule in _rule(line))
    return ()


def _rule(line: str) -> Iterator[_Rule]:
    """gitignore's syntax: `#`, `!`, trailing `/`, leading `/`, `*`, `?`, `[]`, `**`."""
    text = line.strip()
    if not text or text.startswith("#"):
        return
    keep = text.startswith("!")
    text = text.removeprefix("!").removeprefix("\\")
    folders_only = text.endswith("/")
    text = text.removesuffix("/")
    anchored = "/" in text
    parts = [_translate(part) for part in text.removeprefix("/").split("/")]
    body = "/".join(parts).replace("\0/", "(?:.*/)?").replace("/\0", "/.*").replace("\0", ".*")
    yield _Rule(re.compile(("" if anchored else "(?:.*/)?") + body + r"\Z"), keep, folders_only)


def _translate(part: str) -> str:
    """A regular expression for one part of a path: nothing in it matches a `/`."""
    if part == "**":
        return "\0"
    return _PIECE.sub(_translate_piece, part)


def _translate_piece(found: re.Match[str]) -> str:
    piece = found[0]
    if piece[0] == "*":
        return "[^/]*"
    if piece == "?":
        return "[^/]"
    if len(piece) > 2 and piece[0] == "[":
        negated = piece[1] in "!^"
        inside = re.sub(r"[\\\[\]^&|~]", r"\\\g<0>", piece[2 if negated else 1 : -1])
        try:
            re.compile(text := f"(?!/)[{'^' if negated else ''}{inside}]")
        except re.error:
            return "(?!)"  # a range that is none matches nothing
        return text
    return re.escape(piece[1:] if len(piece) == 2 else piece)


def _ignored(name: str, is_folder: bool, rules: tuple[_Rule, ...]) -> bool:
    ignored = False
    for rule in rules:
        if (is_folder or not rule.folders_only) and rule.pattern.match(name):
            ignored = not rule.keep
    return ignored
