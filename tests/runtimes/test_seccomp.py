"""The filter's program, run by an interpreter of these few instructions, for both architectures."""

from __future__ import annotations

import errno
import struct

import pytest

from minga.core.errors import LimitNotEnforceable
from minga.runtimes import seccomp

MACHINES = list(seccomp.ARCHITECTURES)
CLEAN_CALLS = {"x86_64": (0, 1, 9, 39, 59, 202, 231), "aarch64": (63, 64, 222, 172, 221, 98, 94)}
"""read, write, mmap, getpid, execve, futex, exit_group."""


def decide(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the kernel would answer to a call."""
    audit = seccomp.ARCHITECTURES[machine][0] if audit is None else audit
    data = struct.pack("=IIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    program = seccomp.instructions(machine)
    accumulator, position = 0, 0
    while True:
        code, if_true, if_false, value = program[position]
        position += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x06:
            return value
        else:
            truth = {0x15: accumulator == value, 0x25: accumulator > value, 0x45: bool(accumulator & value)}[code]
            position += if_true if truth else if_false


def refused(number: int) -> int:
    return seccomp.ERRNO | number


@pytest.mark.parametrize("machine", MACHINES)
def test_ordinary_calls_pass(machine: str) -> None:
    for number in CLEAN_CALLS[machine]:
        assert decide(machine, number) == seccomp.ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_denied_calls_are_refused(machine: str) -> None:
    column = seccomp.ARCHITECTURES[machine][1]
    numbers = [numbers[column] for numbers in seccomp.DENIED.values() if numbers[column] is not None]
    assert len(set(numbers)) == len(numbers) >= 50
    for number in numbers:
        assert decide(machine, number) == refused(errno.EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architectures_table_kills(machine: str) -> None:
    for audit in (0x40000003, 0x40000028, 0):
        assert decide(machine, 0, audit=audit) == seccomp.KILL_PROCESS


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_younger_than_the_table_do_not_exist(machine: str) -> None:
    for number in (seccomp.LAST_CALL + 1, 1000, 0x40000000 + 1, 0xFFFFFFFF):
        assert decide(machine, number) == refused(errno.ENOSYS)
    column = seccomp.ARCHITECTURES[machine][1]
    assert decide(machine, seccomp.CLONE3[column]) == refused(errno.ENOSYS)


@pytest.mark.parametrize("machine", MACHINES)
def test_processes_and_threads_are_made_and_namespaces_are_not(machine: str) -> None:
    clone = seccomp.CLONE[seccomp.ARCHITECTURES[machine][1]]
    thread = 0x3D0F00  # what glibc asks for
    assert decide(machine, clone, thread) == seccomp.ALLOW
    assert decide(machine, clone, 17) == seccomp.ALLOW
    for bit in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(machine, clone, thread | bit) == refused(errno.EPERM)
        assert decide(machine, clone, bit | 0xFFFFFFFF00000000) == refused(errno.EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_sockets_of_known_families_only(machine: str) -> None:
    socket = seccomp.SOCKET[seccomp.ARCHITECTURES[machine][1]]
    for family in range(64):
        expected = seccomp.ALLOW if family in seccomp.SOCKET_FAMILIES else refused(errno.EAFNOSUPPORT)
        assert decide(machine, socket, family) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_terminals_take_no_words(machine: str) -> None:
    ioctl = seccomp.IOCTL[seccomp.ARCHITECTURES[machine][1]]
    assert decide(machine, ioctl, 0, 0x5412) == refused(errno.EPERM)
    assert decide(machine, ioctl, 0, 0x5412 | 1 << 32) == refused(errno.EPERM), "the kernel reads 32 bits"
    assert decide(machine, ioctl, 0, 0x541C) == refused(errno.EPERM)
    assert decide(machine, ioctl, 0, 0x5401) == seccomp.ALLOW


def test_the_program_is_what_the_kernel_takes() -> None:
    data = seccomp.program("x86_64")
    assert len(data) == 8 * len(seccomp.instructions("x86_64"))
    assert len(data) // 8 <= 4096
    assert struct.unpack("=HBBI", data[:8]) == (0x20, 0, 0, 4)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(LimitNotEnforceable):
        seccomp.program("riscv64")
