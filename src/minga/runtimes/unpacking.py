"""Unpacks what a stranger sent: one plain tar into one empty folder that nobody else may write.

Knows: regular files, folders and symbolic links that stay inside. Does not know: who sent it, or what it is for.
Rule: nothing in the archive decides where a byte goes but a checked relative path; links are made last, so that no
path can go through one; count, bytes and header sizes are bounded before they are believed. Blocking.
"""

from __future__ import annotations

import errno
import os
import posixpath
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minga.core.errors import Conflict, DiskFull, InvalidInput, TooLarge, UnsafePath
from minga.core.spec import FILES_MAX, safe_relative

HEADER_BYTES_MAX = 1 << 16
_CHUNK = 1 << 20
_PLAIN = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE})
_HEADERS = frozenset({tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK})


class _BoundedInfo(tarfile.TarInfo):
    """A member whose kind and header size are judged before `tarfile` reads on."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _BoundedInfo:
        info = super().frombuf(buf, encoding, errors)
        if info.type not in _PLAIN | _HEADERS:
            raise UnsafePath("the archive holds a device, hard link or sparse file", "send plain files only")
        if info.type in _HEADERS and not 0 <= info.size <= HEADER_BYTES_MAX:
            raise TooLarge(f"a header of the archive has {info.size} bytes", f"stay below {HEADER_BYTES_MAX}")
        return info


def unpack(archive: Path, folder: Path, bytes_max: int, count_max: int = FILES_MAX) -> None:
    """Unpack `archive` into `folder`, which is made; on any error the folder is removed again.

    Files get mode 644, or 755 when their owner could execute them; owners and times are not taken over.

    Args:
        archive: an uncompressed tar.
        folder: must not exist.
        bytes_max: of all files together.
        count_max: of members.

    Raises:
        UnsafePath: a member or link leaves the folder, or is not a plain file, folder or link.
        TooLarge: over `bytes_max` or `count_max`, or an oversized header.
        InvalidInput: not a tar, or two members at one path.
        DiskFull: no room.
        Conflict: the folder exists.
    """
    try:
        folder.mkdir(mode=0o755, parents=True)
    except FileExistsError:
        raise Conflict(f"{folder.name} is unpacked already", "remove it first") from None
    try:
        with _translated(), tarfile.open(archive, "r:", tarinfo=_BoundedInfo) as tar:
            _extract(tar, folder, bytes_max, count_max)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _extract(tar: tarfile.TarFile, folder: Path, bytes_max: int, count_max: int) -> None:
    links: list[tuple[str, str]] = []
    left = bytes_max
    for count, member in enumerate(tar, 1):
        if count > count_max:
            raise TooLarge(f"the archive has more than {count_max} members", "leave files out with an ignore file")
        if member.sparse is not None:
            raise UnsafePath("the archive holds a sparse file", "send plain files only")
        name = member.name.rstrip("/")
        if member.isdir() and posixpath.normpath(name or ".") == ".":
            continue
        name = safe_relative(name)
        if member.issym():
            links.append((name, _inside(name, member.linkname)))
        elif member.isdir():
            (folder / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        else:
            left -= member.size
            if left < 0:
                raise TooLarge(f"the archive holds more than {bytes_max} bytes", "order more disk, or send less")
            _write(tar, member, folder / name)
    for name, target in links:
        place = folder / name
        place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.symlink(target, place)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    reader = tar.extractfile(member)
    assert reader is not None
    mode = 0o755 if member.mode & 0o100 else 0o644
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)
    with os.fdopen(descriptor, "wb") as writer:
        while chunk := reader.read(_CHUNK):
            writer.write(chunk)


def _inside(name: str, target: str) -> str:
    landing = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    outside = not target or target.startswith("/") or landing == ".." or landing.startswith("../")
    if outside or len(target) > 1024 or "\0" in target:
        raise UnsafePath(f"the link {name[:80]!r} leaves the archive", "link only to files that are sent too")
    return target


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, RecursionError, UnicodeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"not a tar archive: {error}"[:200], "send an uncompressed tar") from None
    except FileExistsError as error:
        raise InvalidInput(
            f"two members at one path: {Path(str(error.filename)).name[:80]!r}", "send each once"
        ) from None
    except (NotADirectoryError, IsADirectoryError):
        raise InvalidInput("a path of the archive is a file and a folder", "send each path once") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull("no room to unpack the inputs", "the provider must free some disk") from error
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP):
            raise InvalidInput(f"a path of the archive cannot be made: {error.strerror}", "use shorter names") from None
        raise
