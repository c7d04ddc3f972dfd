"""The system-call filter of a sandbox, as a classic BPF program assembled here.

It knows numbers, no policy of a particular task. A deny list with a lid: calls younger than this table do not exist
inside, so a new kernel opens nothing. libseccomp is not used: a fixed program for two architectures is shorter than
its binding, and can be run in a test.

Rule: refusals are errors that programs expect (`EPERM`, or `ENOSYS` where there is an older way); only a call by
another architecture's table kills.
"""

from __future__ import annotations

import errno
import platform
import struct

from minga.core.errors import LimitNotEnforceable

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine name → (audit number, column of `DENIED`)."""

LAST_CALL = 456
"""futex_requeue (Linux 6.7): calls above it do not exist inside; x32's are above it, too."""

# name: (x86_64, aarch64); None where the architecture never had it. From the kernel's unistd.h.
DENIED: dict[str, tuple[int | None, int | None]] = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # mounts and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    # large parts of the kernel that an AI job has no need of
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "lookup_dcookie": (212, 18),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "_sysctl": (156, None),
    # the machine itself
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "create_module": (174, None),
    "get_kernel_syms": (177, None),
    "query_module": (178, None),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "nfsservctl": (180, 42),
    "iopl": (172, None),
    "ioperm": (173, None),
    "syslog": (103, 116),
    "vhangup": (153, 58),
}
CLONE, CLONE3, SOCKET, IOCTL = (56, 220), (435, 435), (41, 198), (16, 29)

CLONE_NAMESPACES = 0x7E020000
"""CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}."""

SOCKET_FAMILIES = (1, 2, 10, 16)
"""unix, inet, inet6, netlink (glibc lists interfaces with it). Not vsock, alg, packet …"""

TERMINAL_IOCTLS = (0x5412, 0x541C)
"""TIOCSTI, TIOCLINUX: put words into the mouth of a terminal."""

ALLOW, KILL_PROCESS, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16

Instruction = tuple[int, int, int, int]


def instructions(machine: str) -> list[Instruction]:
    """The filter for a machine name as `uname -m` gives it: (code, jump if true, jump if false, k).

    Raises:
        LimitNotEnforceable: no table for this architecture.
    """
    if machine not in ARCHITECTURES:
        raise LimitNotEnforceable(f"no system-call table for {machine}", f"use {' or '.join(ARCHITECTURES)}")
    audit, column = ARCHITECTURES[machine]
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
        *_when(_ABOVE, LAST_CALL, [_refuse(errno.ENOSYS)]),
        *_when(_EQUAL, CLONE3[column], [_refuse(errno.ENOSYS)]),
    ]
    for numbers in DENIED.values():
        if (number := numbers[column]) is not None:
            code += _when(_EQUAL, number, [_refuse(errno.EPERM)])
    no_namespaces = [_argument(0), *_when(_ANY_BIT, CLONE_NAMESPACES, [_refuse(errno.EPERM)]), _allow()]
    code += _when(_EQUAL, CLONE[column], no_namespaces)
    families = [line for family in SOCKET_FAMILIES for line in _when(_EQUAL, family, [_allow()])]
    code += _when(_EQUAL, SOCKET[column], [_argument(0), *families, _refuse(errno.EAFNOSUPPORT)])
    requests = [line for request in TERMINAL_IOCTLS for line in _when(_EQUAL, request, [_refuse(errno.EPERM)])]
    code += _when(_EQUAL, IOCTL[column], [_argument(1), *requests, _allow()])
    return [*code, _allow()]


def program(machine: str | None = None) -> bytes:
    """The filter as an array of `struct sock_filter`, for `bwrap --seccomp`; this machine's by default.

    Raises:
        LimitNotEnforceable: no table for this architecture.
    """
    return b"".join(struct.pack("=HBBI", *line) for line in instructions(machine or platform.machine()))


def _when(test: int, value: int, block: list[Instruction]) -> list[Instruction]:
    return [(test, 0, len(block), value), *block]


def _argument(index: int) -> Instruction:
    # The low word only: both architectures are little-endian, and the kernel reads these arguments as 32 bits.
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * index)


def _refuse(number: int) -> Instruction:
    return (_RETURN, 0, 0, ERRNO | number)


def _allow() -> Instruction:
    return (_RETURN, 0, 0, ALLOW)
