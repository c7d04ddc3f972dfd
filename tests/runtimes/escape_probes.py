"""Ways out of a sandbox, each tried by one function; run as a program it tries them all and prints what happened.

Standard library only: it runs inside a sandbox as well as outside. The context (paths, ports, ids and system-call
numbers of this machine) is one JSON argument. A probe that returns has *reached* what it must not; a refusal is an
OSError or `Refused`. Any other exception is a defect of the probe.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import pty
import resource
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable
from typing import Any

CONTEXT: dict[str, Any] = {}
PROBES: dict[str, Callable[[], object]] = {}
HARMFUL: set[str] = set()
"""Probes that are not tried outside: they would change the machine, or need what not every machine has."""

_libc = ctypes.CDLL(None, use_errno=True)
_TAKEN = (errno.EINVAL, errno.EFAULT, errno.EBADF, errno.ENOENT, errno.ESRCH)
NEWUSER, NEWNS, NEWNET, NEWPID = 0x10000000, 0x00020000, 0x40000000, 0x20000000


class Refused(Exception):
    """What was looked for is not there."""


def probe(function: Callable[[], object]) -> Callable[[], object]:
    """Register a probe that is harmless everywhere."""
    PROBES[function.__name__] = function
    return function


def harmful(function: Callable[[], object]) -> Callable[[], object]:
    """Register a probe that is tried inside only."""
    HARMFUL.add(function.__name__)
    return probe(function)


def need(found: object, what: str = "not there") -> None:
    """Refused unless `found`."""
    if not found:
        raise Refused(what)


def call(name: str, *args: object) -> int:
    """A raw system call. An error that says that the kernel looked at the arguments means that it was reached."""
    number = CONTEXT["calls"].get(name)
    need(number is not None, "no such call on this machine")
    result = int(_libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in args)))
    if result < 0 and ctypes.get_errno() not in _TAKEN:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def in_child(work: Callable[[], object]) -> None:
    """Do `work` in a child, so that what it changes ends with it; raises what it met."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            work()
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(abs(code), os.strerror(abs(code)))


def open_for_writing(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY))


def open_for_reading(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def create_in(folder: str) -> None:
    path = f"{folder}/.minga-probe-{os.getpid()}"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    os.unlink(path)


def connect(family: int, address: Any) -> None:
    with socket.socket(family) as wire:
        wire.settimeout(3)
        wire.connect(address)


# ---------------------------------------------------------------------------------------------------------- files


@probe
def read_the_owners_secret() -> None:
    open_for_reading(CONTEXT["secret"])


@probe
def read_what_any_user_here_may_read() -> None:
    open_for_reading(CONTEXT["public"])


@probe
def read_shadow() -> None:
    open_for_reading("/etc/shadow")


@probe
def read_the_machines_users() -> None:
    with open("/etc/passwd") as file:
        need(len(file.read().splitlines()) > 2)


@probe
def list_roots_home() -> None:
    need([name for name in os.listdir("/root") if name not in CONTEXT["shown_in_root"]])


@probe
def list_var() -> None:
    os.listdir("/var/lib")


@probe
def list_run() -> None:
    need(os.listdir("/run"))


@probe
def list_the_host_root_by_dots() -> None:
    folder = os.open("/", os.O_RDONLY)
    for _ in range(10):
        folder = os.open("..", os.O_RDONLY, dir_fd=folder)
    need("var" in os.listdir(folder))


@probe
def read_the_agents_state() -> None:
    os.listdir(CONTEXT["state"])


@probe
def read_the_secret_through_another_root() -> None:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) != os.getpid() and os.path.exists(f"/proc/{pid}/root{CONTEXT['secret']}"):
            return
    raise Refused("no process shows it")


@probe
def read_the_secret_through_a_link() -> None:
    link = f"{CONTEXT['own']}/link"
    os.symlink(CONTEXT["secret"], link)
    try:
        open_for_reading(link)
    finally:
        os.unlink(link)


@probe
def link_the_secret() -> None:
    os.link(CONTEXT["secret"], CONTEXT["secret"] + ".link")
    os.unlink(CONTEXT["secret"] + ".link")


@probe
def write_to_usr() -> None:
    create_in("/usr")


@probe
def write_to_etc() -> None:
    create_in("/etc")


@probe
def write_to_the_root() -> None:
    create_in("/")


@probe
def write_to_dev() -> None:
    create_in("/dev")


@probe
def write_to_the_environment() -> None:
    create_in(sys.prefix)


@probe
def write_to_the_interpreter() -> None:
    create_in(sys.base_prefix)


@probe
def open_by_handle() -> None:
    call("open_by_handle_at", -100, 0, 0)


@probe
def name_to_handle() -> None:
    call("name_to_handle_at", -100, b"/\0", 0, 0, 0)


@probe
def inherit_an_open_file() -> None:
    need(CONTEXT["open_at_start"])


@probe
def read_the_agents_variables() -> None:
    need(os.environ.get("MINGA_TEST_SECRET"))


# -------------------------------------------------------------------------------------------------------- devices


@harmful
def open_the_disk() -> None:
    for name in ("vda", "sda", "nvme0n1", "xvda"):
        if os.path.exists(f"/dev/{name}"):
            return open_for_reading(f"/dev/{name}")
    raise Refused("no disk")


@harmful
def make_a_disk_node() -> None:
    path = f"{CONTEXT['own']}/disk"
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(*CONTEXT["disk"]))
    try:
        open_for_reading(path)
    finally:
        os.unlink(path)


@probe
def make_a_null_node() -> None:
    path = f"{CONTEXT['own']}/null"
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.unlink(path)


@harmful
def open_memory() -> None:
    open_for_reading("/dev/mem")


@probe
def open_kernel_messages() -> None:
    open_for_reading("/dev/kmsg")


@harmful
def open_loop_control() -> None:
    open_for_reading("/dev/loop-control")


@harmful
def open_fuse() -> None:
    open_for_reading("/dev/fuse")


@harmful
def open_kvm() -> None:
    open_for_reading("/dev/kvm")


@harmful
def open_tun() -> None:
    open_for_reading("/dev/net/tun")


@harmful
def open_a_console() -> None:
    open_for_reading("/dev/tty0")


# ------------------------------------------------------------------------------------------------- /proc and /sys


@probe
def write_core_pattern() -> None:
    open_for_writing("/proc/sys/kernel/core_pattern")


@probe
def write_overcommit() -> None:
    open_for_writing("/proc/sys/vm/overcommit_memory")


@probe
def write_hostname_setting() -> None:
    open_for_writing("/proc/sys/kernel/hostname")


@probe
def write_forwarding() -> None:
    open_for_writing("/proc/sys/net/ipv4/ip_forward")


@harmful
def write_user_namespaces_max() -> None:
    open_for_writing("/proc/sys/user/max_user_namespaces")


@harmful
def press_sysrq() -> None:
    open_for_writing("/proc/sysrq-trigger")


@harmful
def read_kernel_memory() -> None:
    need(os.stat("/proc/kcore").st_size)
    open_for_reading("/proc/kcore")


@probe
def read_keys() -> None:
    with open("/proc/keys") as file:
        need(file.read())


@harmful  # some machines hide them from root, too
def read_kernel_addresses() -> None:
    with open("/proc/kallsyms") as file:
        need(int(file.readline().split()[0], 16))


@probe
def see_a_process_of_the_machine() -> None:
    with open(f"/proc/{CONTEXT['bystander']}/cmdline", "rb") as file:
        need(CONTEXT["marker"].encode() in file.read())


@probe
def write_ones_user_map() -> None:
    # The map is written once, by whoever made the namespace; outside it is open to root.
    open_for_writing("/proc/self/setgroups")


@probe
def list_control_groups() -> None:
    need(os.listdir("/sys/fs/cgroup"))


@probe
def write_a_group_limit() -> None:
    open_for_writing(CONTEXT["group_limit"])


@probe
def list_kernel_settings_in_sys() -> None:
    need(os.listdir("/sys/kernel"))


@probe
def list_modules_in_sys() -> None:
    need(os.listdir("/sys/module"))


@probe
def list_disks_in_sys() -> None:
    need(os.listdir("/sys/block"))


@harmful
def switch_a_cpu_off() -> None:
    open_for_writing("/sys/devices/system/cpu/cpu1/online")


# ----------------------------------------------------------------------------------- namespaces, mounts, processes


@probe
def new_user_namespace() -> None:
    in_child(lambda: call("unshare", NEWUSER))


@probe
def new_mount_namespace() -> None:
    in_child(lambda: call("unshare", NEWNS))


@probe
def new_network_namespace() -> None:
    in_child(lambda: call("unshare", NEWNET))


def _cloned(flags: int) -> None:
    pid = call("clone", flags | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)


@probe
def clone_into_a_user_namespace() -> None:
    _cloned(NEWUSER)


@probe
def clone_into_a_pid_namespace() -> None:
    _cloned(NEWPID)


@probe
def clone_the_new_way() -> None:
    arguments = ctypes.create_string_buffer(struct.pack("=11Q", NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0))
    pid = call("clone3", arguments, 88)
    if pid == 0:
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)


@probe
def enter_a_namespace() -> None:
    def enter() -> None:
        file = os.open("/proc/self/ns/uts", os.O_RDONLY)
        call("setns", file, 0)

    in_child(enter)


@harmful
def mount_a_tmpfs() -> None:
    call("mount", b"none\0", b"/job\0", b"tmpfs\0", 0, 0)


@harmful
def mount_proc_again() -> None:
    call("mount", b"proc\0", b"/job\0", b"proc\0", 0, 0)


@harmful
def remount_the_root_for_writing() -> None:
    call("mount", b"none\0", b"/\0", 0, 32, 0)


@harmful
def unmount_what_hides_proc_sys() -> None:
    call("umount2", b"/proc/sys\0", 2)


@harmful
def pivot_the_root() -> None:
    call("pivot_root", b"/job\0", b"/job\0")


@probe
def change_the_root() -> None:
    in_child(lambda: os.chroot("/usr"))


@probe
def open_a_file_system() -> None:
    os.close(call("fsopen", b"tmpfs\0", 0))


@probe
def open_a_mount_tree() -> None:
    os.close(call("open_tree", -100, b"/usr\0", 0))


@harmful
def change_a_mounts_flags() -> None:
    call("mount_setattr", -100, b"/\0", 0, 0, 0)


@probe
def trace_a_process_of_the_machine() -> None:
    seize, detach = 0x4206, 17
    result = call("ptrace", seize, CONTEXT["bystander"], 0, 0)
    need(result == 0, "no such process")
    call("ptrace", detach, CONTEXT["bystander"], 0, 0)


@probe
def be_traced() -> None:
    in_child(lambda: call("ptrace", 0, 0, 0, 0))


@probe
def read_memory_of_a_process() -> None:
    call("process_vm_readv", os.getpid(), 0, 0, 0, 0, 0)


@probe
def write_memory_of_a_process() -> None:
    call("process_vm_writev", os.getpid(), 0, 0, 0, 0, 0)


@probe
def take_a_file_of_a_process() -> None:
    file = os.pidfd_open(os.getpid())
    os.close(call("pidfd_getfd", file, 0, 0))


@probe
def find_a_process_without_the_filter() -> None:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/status") as file:
                modes = [line.split()[1] for line in file if line.startswith("Seccomp:")]
        except OSError:
            continue
        if modes == ["0"]:
            return
    raise Refused("all are filtered")


@probe
def compare_processes() -> None:
    call("kcmp", os.getpid(), os.getpid(), 2, 0, 0)


@probe
def signal_a_process_of_the_machine() -> None:
    os.kill(CONTEXT["bystander"], 0)


@probe
def stop_every_process_that_may_be_stopped() -> None:
    # Of the processes that signals reach, one must be a stranger's. Signal 0 harms none.
    found = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if pid == CONTEXT["bystander"]]
    need(found)
    os.kill(found[0], 0)


@probe
def type_into_the_terminal() -> None:
    _, terminal = pty.openpty()
    try:
        fcntl.ioctl(terminal, 0x5412, b"x")
    except OSError as error:
        if error.errno != errno.EIO:  # newer kernels answer so where it is switched off
            raise


# ------------------------------------------------------------------------------------------------- kernel surface


@probe
def use_io_uring() -> None:
    parameters = ctypes.create_string_buffer(120)
    os.close(call("io_uring_setup", 1, parameters))


@probe
def enter_io_uring() -> None:
    call("io_uring_enter", -1, 0, 0, 0, 0, 0)


@probe
def register_io_uring() -> None:
    call("io_uring_register", -1, 0, 0, 0)


@probe
def use_bpf() -> None:
    call("bpf", 0, 0, 0)


@probe
def use_perf_events() -> None:
    call("perf_event_open", 0, 0, -1, -1, 0)


@probe
def use_userfaultfd() -> None:
    os.close(call("userfaultfd", 0))


@probe
def use_fanotify() -> None:
    os.close(call("fanotify_init", 0, 0))


@harmful
def load_a_module() -> None:
    call("init_module", 0, 0, 0)


@harmful
def load_a_module_from_a_file() -> None:
    call("finit_module", -1, 0, 0)


@harmful
def unload_a_module() -> None:
    call("delete_module", b"none\0", 0)


@harmful
def load_a_kernel() -> None:
    call("kexec_load", 0, 0, 0, 0)


@harmful
def restart_the_machine() -> None:
    call("reboot", 0, 0, 0, 0)


@harmful
def use_a_swap_file() -> None:
    call("swapon", b"/none\0", 0)


@harmful
def set_the_clock() -> None:
    call("clock_settime", 0, 0)


@harmful
def set_the_time_of_day() -> None:
    call("settimeofday", 0, 0)


@harmful
def tune_the_clock() -> None:
    call("adjtimex", 0)


@harmful
def set_the_hostname() -> None:
    call("sethostname", b"x\0", 1)


@probe
def read_the_kernel_log() -> None:
    call("syslog", 10, 0, 0)


@harmful
def keep_process_accounts() -> None:
    call("acct", b"/none\0")


@harmful
def set_quotas() -> None:
    call("quotactl", 0, 0, 0, 0)


@harmful
def use_io_ports() -> None:
    call("iopl", 3)


@probe
def switch_randomisation_off() -> None:
    in_child(lambda: call("personality", 0x0040000))


@probe
def use_a_local_descriptor_table() -> None:
    call("modify_ldt", 0, 0, 0)


@probe
def move_pages_of_a_process() -> None:
    call("move_pages", 0, 0, 0, 0, 0, 0)


@probe
def add_a_key() -> None:
    call("add_key", b"user\0", b"minga-probe\0", b"x\0", 1, -2)


@probe
def ask_for_a_key() -> None:
    try:
        call("request_key", b"user\0", b"minga-none\0", 0, 0)
    except OSError as error:
        if error.errno != errno.ENOKEY:
            raise


@probe
def join_a_keyring() -> None:
    call("keyctl", 0, -3, 1)


# -------------------------------------------------------------------------------------------------------- network


@probe
def reach_the_machine_on_loopback() -> None:
    connect(socket.AF_INET, ("127.0.0.1", CONTEXT["port"]))


@probe
def reach_the_machine_on_loopback_6() -> None:
    connect(socket.AF_INET6, ("::ffff:127.0.0.1", CONTEXT["port"]))


@probe
def reach_the_machine_by_its_address() -> None:
    connect(socket.AF_INET, (CONTEXT["address"], CONTEXT["port"]))


@harmful
def reach_metadata() -> None:
    connect(socket.AF_INET, ("169.254.169.254", 80))


@harmful
def reach_metadata_6() -> None:
    connect(socket.AF_INET6, ("fd00:ec2::254", 80))


@harmful
def reach_a_public_address() -> None:
    connect(socket.AF_INET, ("1.1.1.1", 443))


@harmful
def send_a_datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.sendto(b"x", ("192.0.2.1", 53))


@harmful
def resolve_a_name() -> None:
    socket.getaddrinfo("example.org", 443)


@probe
def reach_a_named_socket() -> None:
    connect(socket.AF_UNIX, CONTEXT["unix"])


@probe
def reach_an_abstract_socket() -> None:
    connect(socket.AF_UNIX, "\0" + CONTEXT["abstract"])


@harmful
def see_an_interface() -> None:
    need([name for _, name in socket.if_nameindex() if name != "lo"])


@probe
def send_raw_packets() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


@probe
def capture_packets() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()


@probe
def use_the_kernels_ciphers() -> None:
    try:
        socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET, 0).close()
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT or CONTEXT["inside"]:
            raise


@harmful
def reach_the_hypervisor() -> None:
    socket.socket(40, socket.SOCK_STREAM).close()


# ----------------------------------------------------------------------------------------------------- privileges


@probe
def become_root() -> None:
    os.setuid(0)


@probe
def join_roots_group() -> None:
    os.setgid(0)


@probe
def join_groups() -> None:
    in_child(lambda: os.setgroups([0]))


@probe
def gain_by_setuid_programs() -> None:
    need(_libc.prctl(39, 0, 0, 0, 0) == 0, "no_new_privs is set")


@probe
def hold_a_capability() -> None:
    with open("/proc/self/status") as file:
        need(any(int(line.split()[1], 16) for line in file if line.startswith(("CapEff", "CapPrm", "CapBnd"))))


@probe
def give_a_file_away() -> None:
    path = f"{CONTEXT['own']}/gift"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    try:
        os.chown(path, 0, 0)
        os.chown(path, 1, 1)
    finally:
        os.unlink(path)


@probe
def go_before_others() -> None:
    in_child(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))


@probe
def have_the_core_handler_run() -> None:
    need(resource.getrlimit(resource.RLIMIT_CORE)[1] != 1)


# ----------------------------------------------------------------------------------------------------- other jobs


@probe
def read_another_jobs_files() -> None:
    os.listdir(CONTEXT["other_work"])


@probe
def see_another_jobs_process() -> None:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if CONTEXT["other_marker"].encode() in words:
            return
    raise Refused("not seen")


@probe
def signal_another_job() -> None:
    os.kill(CONTEXT["other_pid"], 0)


@probe
def find_shared_memory_by_key() -> None:
    need(_libc.shmget(CONTEXT["shm_key"], 0, 0) >= 0)


@probe
def find_shared_memory_by_name() -> None:
    open_for_reading(f"/dev/shm/{CONTEXT['shm_name']}")


@probe
def share_a_temporary_folder() -> None:
    open_for_reading(f"/tmp/{CONTEXT['tmp_name']}")


@probe
def read_the_hostname() -> None:
    need(socket.gethostname() == CONTEXT["hostname"])


def main() -> None:
    """Try all (or, with `outside`, all that are harmless); one line of JSON: name → [outcome, detail]."""
    CONTEXT.update(json.loads(sys.argv[1]))
    CONTEXT["open_at_start"] = [file for file in range(3, 256) if os.path.exists(f"/proc/self/fd/{file}")]
    results = {}
    for name, function in PROBES.items():
        if name in HARMFUL and not CONTEXT["inside"]:
            continue
        try:
            function()
            results[name] = ["reached", ""]
        except (OSError, Refused) as error:
            results[name] = ["refused", str(error)]
        except Exception as error:
            results[name] = ["broken", repr(error)]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
