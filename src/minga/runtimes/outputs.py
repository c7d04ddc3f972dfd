"""Files of a task, as hostile as the task: read and written by root without ever leaving their folder.

A path is walked name by name from an open folder, and no step follows a symbolic link; what is not a regular file is
never opened for reading, so a FIFO cannot hang us and a device cannot answer. Rule: no function here takes a path
that was checked earlier, since the task may change its folders between the check and the use.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from minga.core.errors import DiskFull, InvalidInput, NotFound, TooLarge, UnsafePath
from minga.runtimes.runtime import OUTPUT_BYTES_MAX, OUTPUT_COUNT_MAX, OutputFile

DEPTH_MAX = 64
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_BYTES = 8 << 20


def list_files(root: Path, count_max: int = OUTPUT_COUNT_MAX, bytes_max: int = OUTPUT_BYTES_MAX) -> list[OutputFile]:
    """Regular files beneath `root`, by path. Links and special files are left out, as are folders over 64 deep.

    Names that are not UTF-8 are left out: no one could ask for them. Files with several names count each time.

    Raises:
        TooLarge: more than `count_max` entries of any kind, or `bytes_max` bytes in all.
        NotFound: `root` is not a folder.
    """
    found: list[OutputFile] = []
    seen = total = 0
    top = _open_root(root)
    try:
        for name, info in _walk(top, "", 0):
            seen += 1
            if stat.S_ISREG(info.st_mode) and _printable(name):
                total += info.st_size
                found.append(OutputFile(name, info.st_size))
            if seen > count_max or total > bytes_max:
                raise TooLarge(
                    f"the task left more than {count_max} files or {bytes_max} bytes", "leave fewer, or pack them"
                )
    finally:
        os.close(top)
    return sorted(found, key=lambda file: file.path)


def open_beneath(root: Path, path: str) -> BinaryIO:
    """Open the regular file `path` (relative, with `/`) beneath `root` for reading.

    Raises:
        UnsafePath: absolute, with `..`, or it meets a symbolic link or something that is not a regular file.
        NotFound: no such file.
    """
    with _parent_of(root, path, make=None) as (folder, name):
        try:
            # Not blocking: opening a FIFO without a writer would wait for ever.
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            raise _refusal(path, error) from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise UnsafePath(f"{path!r} is not a regular file", "name a regular file")
    return os.fdopen(file, "rb")


def create_beneath(root: Path, path: str, mode: int = 0o644, owner: int | None = None) -> BinaryIO:
    """Create the new file `path` beneath `root` for writing, with its folders, for the user and group `owner`.

    Raises:
        UnsafePath: absolute, with `..`, or it meets a symbolic link.
        InvalidInput: it is there already.
        DiskFull: the disk is full.
    """
    with _parent_of(root, path, make=owner if owner is not None else os.geteuid()) as (folder, name):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            file = os.open(name, flags, 0o600, dir_fd=folder)
        except OSError as error:
            raise _refusal(path, error) from None
    if owner is not None:
        os.fchown(file, owner, owner)
    os.fchmod(file, mode)
    return os.fdopen(file, "wb")


def copy_in(source: Path, root: Path, target: str, owner: int | None = None) -> None:
    """Copy a file or a folder to `target` beneath `root`; `.` is `root` itself. Modes are kept to rwx.

    A symbolic link in a folder is copied as a link, followed by nobody here; special files are left out.

    Raises:
        InvalidInput: `source` is neither a file nor a folder, or a target is there already.
        UnsafePath: `target` leaves `root` or goes through a link.
        DiskFull: it does not fit.
    """
    info = os.stat(source) if source.exists() else None
    try:
        if info is not None and stat.S_ISREG(info.st_mode):
            file = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _copy_file(file, root, target, info.st_mode, owner)
            finally:
                os.close(file)
        elif info is not None and stat.S_ISDIR(info.st_mode):
            _copy_folder(source, root, target, owner)
        else:
            raise InvalidInput(f"input {source} is neither a file nor a folder", "name one that is there")
    except OSError as error:
        raise _refusal(target, error) from None


def _copy_folder(source: Path, root: Path, target: str, owner: int | None) -> None:
    prefix = "" if target in ("", ".") else target.rstrip("/") + "/"
    uid = owner if owner is not None else os.geteuid()
    top = _open_root(source)
    try:
        if prefix:
            with _parent_of(root, prefix + "_", make=uid):
                pass  # an empty folder arrives, too
        for name, info in _walk(top, "", 0):
            if stat.S_ISREG(info.st_mode):
                with open_beneath(source, name) as file:
                    _copy_file(file.fileno(), root, prefix + name, info.st_mode, owner)
            elif stat.S_ISDIR(info.st_mode):
                with _parent_of(root, f"{prefix}{name}/_", make=uid):
                    pass
            elif stat.S_ISLNK(info.st_mode):
                with _parent_of(root, prefix + name, make=uid) as (folder, last):
                    os.symlink(os.readlink(source / name), last, dir_fd=folder)
                    os.chown(last, uid, uid, dir_fd=folder, follow_symlinks=False)
    finally:
        os.close(top)


def _copy_file(source: int, root: Path, target: str, mode: int, owner: int | None) -> None:
    with create_beneath(root, target, mode & 0o777, owner) as out:
        offset = 0
        while done := os.sendfile(out.fileno(), source, offset, _COPY_BYTES):
            offset += done


def _walk(folder: int, prefix: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        try:
            info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        yield prefix + name, info
        if not stat.S_ISDIR(info.st_mode) or depth >= DEPTH_MAX:
            continue
        try:
            inner = os.open(name, _FOLDER, dir_fd=folder)
        except OSError:
            continue  # changed into something else meanwhile
        try:
            yield from _walk(inner, f"{prefix}{name}/", depth + 1)
        finally:
            os.close(inner)


@contextmanager
def _parent_of(root: Path, path: str, make: int | None) -> Iterator[tuple[int, str]]:
    """The open folder that holds the last name of `path`, and that name; folders are made for uid `make`."""
    names = path.split("/")
    if any(name in ("", ".", "..") or "\0" in name for name in names) or len(names) > DEPTH_MAX:
        raise UnsafePath(f"{path[:200]!r} is not a path inside the folder", "write it relative, without . or ..")
    folder = _open_root(root)
    try:
        for name in names[:-1]:
            inner = _step(folder, name, path, make)
            os.close(folder)
            folder = inner
        yield folder, names[-1]
    finally:
        os.close(folder)


def _step(folder: int, name: str, path: str, make: int | None) -> int:
    try:
        if make is not None:
            try:
                os.mkdir(name, 0o755, dir_fd=folder)
                os.chown(name, make, make, dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                pass
        return os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        raise _refusal(path, error) from None


def _open_root(root: Path) -> int:
    try:
        return os.open(root, _FOLDER)
    except OSError:
        raise NotFound(f"{root} is not a folder", "name a folder that is there") from None


def _printable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refusal(path: str, error: OSError) -> Exception:
    if error.errno == errno.ENOENT:
        return NotFound(f"there is no file {path!r}", "list the outputs first")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{path!r} does not fit on the task's disk", "ask for more disk")
    if error.errno == errno.EEXIST:
        return InvalidInput(f"{path!r} is there already", "give every input its own target")
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENAMETOOLONG):
        return UnsafePath(f"{path!r} goes through a link or is not a regular file", "name a regular file")
    return InvalidInput(f"{path!r}: {error.strerror}", "use another name")
