"""Carries bytes between a task's own loopback and unix sockets of this machine, in both directions.

The task's network namespace has no way out; this process stands in it and on this machine's file system at once.
It knows no protocol and reads no byte. Rule: it enters the task's network first, then drops to the task's uid, then
takes connections: whatever the task can do to it, it could do itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import Any

from minga.runtimes import launch

EGRESS_PORT = 3128
EGRESS_SOCKET = "proxy"
CONNECTIONS_MAX = 256
_CHUNK_BYTES = 1 << 16
_IP_FREEBIND = 15


def run(plan: dict[str, Any], pid: int | None, uid: int | None, readiness: int) -> None:
    """Relay until killed: `plan["egress"]` is the proxy's folder or None, `plan["ports"]` maps port to socket path.

    Writes `ready` to `readiness` when everything listens. Raises OSError before that.
    """
    proxy = os.open(plan["egress"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if plan["egress"] else -1
    outside = {int(port): _listen_unix(path) for port, path in plan["ports"].items()}
    if pid is not None:
        launch.enter_network_of(pid)
    inside = _listen_inside() if plan["egress"] else None
    if uid is not None:
        launch.drop_to(uid, [])
    launch.die_with_parent(signal.SIGKILL)  # after the drop, which clears it
    asyncio.run(_serve(proxy, inside, outside, readiness))


async def _serve(proxy: int, inside: socket.socket | None, outside: dict[int, socket.socket], readiness: int) -> None:
    free = asyncio.Semaphore(CONNECTIONS_MAX)

    def carry(connect: Any) -> Any:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with free:
                await _carry(reader, writer, connect)

        return handle

    if inside is not None:
        # This uid cannot come to the agent's folder by its path; the file that root opened leads there. By name and
        # not as the socket itself, since an agent that is started again makes a new one.
        to_proxy = carry(lambda: asyncio.open_unix_connection(f"/proc/self/fd/{proxy}/{EGRESS_SOCKET}"))
        await asyncio.start_server(to_proxy, sock=inside)
    for port, listener in outside.items():
        to_task = carry(lambda port=port: asyncio.open_connection("127.0.0.1", port))
        await asyncio.start_unix_server(to_task, sock=listener)
    os.write(readiness, b"ready")
    os.close(readiness)
    await asyncio.Event().wait()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connect: Any) -> None:
    try:
        far_reader, far_writer = await connect()
    except OSError:
        writer.close()
        return
    try:
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
    except OSError:
        pass
    finally:
        writer.close()
        far_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _listen_unix(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Bound by its name in an open folder: a unix socket's address holds 107 bytes, a state folder may be longer.
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)
    listener.listen(CONNECTIONS_MAX)
    return listener


def _listen_inside() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # The namespace's loopback may not be up yet.
    listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    listener.bind(("127.0.0.1", EGRESS_PORT))
    listener.listen(CONNECTIONS_MAX)
    return listener
