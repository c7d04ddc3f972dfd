"""The disk of a task: bounded, private, and readable by the agent after the task is dead.

| kind   | what                                         | when                                              |
|--------|----------------------------------------------|---------------------------------------------------|
| image  | a file set aside whole, ext4, loop-mounted   | `disk_bytes` asked for                            |
| folder | a plain folder of the state folder           | no `disk_bytes`, or the process driver            |

Why an image and not a tmpfs: the pages of a tmpfs count as the task's memory and cannot be reclaimed, so 50 GB of
disk would need 50 GB of memory; and they are gone after a reboot. Why not quotas: they need the owner's file system
to be mounted with them. The image is set aside when the task starts, so it can neither fill this machine's disk nor
find it full. No journal: an image that a crash left dirty is thrown away with its attempt.

Rule: the size is the image's, a little more than what files can hold. A folder bounds nothing and says so.
"""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Literal

from minga.core.errors import DiskFull, LimitNotEnforceable, OutOfCapacity, SandboxFailed

Kind = Literal["image", "folder"]

MOUNT_NAME = "minga-scratch"
"""Last name of every mount point; a sandbox's mount namespace lets go of those of other tasks by it."""

IMAGE_BYTES_MIN = 1 << 20
_MOUNT_OPTIONS = "loop,nosuid,nodev,noatime,noinit_itable"
_MAKE = ("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode", "-E", "nodiscard,lazy_itable_init=1")


class Scratch:
    """The disk of one task under its state folder. Methods block; they want root for an image."""

    def __init__(self, state: Path, kind: Kind) -> None:
        self.kind = kind
        self.root = state / MOUNT_NAME
        self._image = state / "scratch.img"

    @property
    def work(self) -> Path:
        """What the task sees as /job."""
        return self.root / "work"

    def create(self, size: int | None, uid: int | None) -> None:
        """Make the disk, with `work` and `tmp` owned by `uid`.

        Raises:
            LimitNotEnforceable: `size` is under 1 MiB, or this machine cannot make or mount an image.
            OutOfCapacity: `size` bytes are not free.
        """
        self.root.mkdir(mode=0o700)
        if self.kind == "image":
            self._make_image(size or 0)
            self.attach()
        for name in ("work", "tmp"):
            folder = self.root / name
            folder.mkdir(mode=0o700)
            if uid is not None:
                os.chown(folder, uid, uid)

    def attach(self) -> None:
        """Mount the image if it is not (a machine that was restarted forgot it). Raises LimitNotEnforceable."""
        if self.kind == "image" and self._image.exists() and not os.path.ismount(self.root):
            _run(("mount", "-o", _MOUNT_OPTIONS, str(self._image), str(self.root)), "loop mounts do not work here")

    def used_bytes(self) -> int:
        """What the task's files hold now."""
        if self.kind == "image":
            if not os.path.ismount(self.root):
                return 0
            info = os.statvfs(self.root)
            return (info.f_blocks - info.f_bfree) * info.f_frsize
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                try:
                    total += os.lstat(os.path.join(folder, name)).st_blocks * 512
                except FileNotFoundError:
                    pass
        return total

    def remove(self) -> None:
        """Give the space back. Idempotent; files that are still open are freed when they are closed."""
        if os.path.ismount(self.root):
            done = subprocess.run(["umount", "--lazy", str(self.root)], capture_output=True, text=True)
            if done.returncode and os.path.ismount(self.root):
                raise SandboxFailed(f"cannot unmount {self.root}: {done.stderr.strip()}", "unmount it by hand")
        self._image.unlink(missing_ok=True)

    def _make_image(self, size: int) -> None:
        if size < IMAGE_BYTES_MIN:
            raise LimitNotEnforceable(f"disk_bytes is {size}", f"ask for {IMAGE_BYTES_MIN} or more")
        file = os.open(self._image, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise OutOfCapacity(f"{size} bytes of disk are not free here", "ask for less disk") from None
            raise DiskFull(f"cannot set {size} bytes aside: {error.strerror}", "check the disk") from None
        finally:
            os.close(file)
        _run((*_MAKE, str(self._image)), "ext4 images cannot be made here")


def _run(argv: tuple[str, ...], fact: str) -> None:
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    try:
        done = subprocess.run(argv, capture_output=True, text=True, env=env)
    except FileNotFoundError:
        raise LimitNotEnforceable(f"{fact}: {argv[0]} is missing", f"install {argv[0]}") from None
    if done.returncode:
        raise LimitNotEnforceable(f"{fact}: {done.stderr.strip()[-300:]}", "see `minga doctor`")
