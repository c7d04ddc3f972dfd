"""A checkpoint of 512 MB from a provider to its tenant's disk, against a raw copy over a loopback socket, in turns.

Run: `python benches/bench_checkpoint.py`. Both sides are two processes, one file's bytes going from disk to disk. Ours
is the whole way: HTTP with the lease's token, chunk by chunk, BLAKE3 of each checked, written, made durable, the
manifest last. The raw copy is `sendfile` on one side, `recv` and `write` on the other, and an fsync at the end, since
ours is durable too; its rate without the fsync is recorded as well. The incremental case changes one chunk in twenty.
Before each turn a gibibyte of memory is touched and freed: in a virtual machine the first touch of a page costs more
than all of the copy, and would be paid by whoever comes first. Aim: at least half of the raw rate.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio

from harness import save, spread
from minga.client.checkpoints import Keeper, Source
from minga.client.provider_api import ProviderApi
from minga.core.checkpoint import CHUNK_BYTES, Checkpoint, CheckpointManifest, ChunkedFile
from minga.store.blobs import BlobStore
from minga.store.chunks import DiskChunks
from minga.transport.http import connect, serve

CHUNKS = 128
CHANGED = CHUNKS // 20
ROUNDS = 7
CHANNEL = "0x" + "ab" * 32
TOKEN = "bench"


def make(folder: Path, changed: int, before: list[str]) -> Checkpoint:
    """A checkpoint of one file in a provider's blobs; the first `changed` chunks are new, the rest as `before`."""
    blobs = BlobStore(folder / "leases" / CHANNEL[2:] / "blobs")
    fresh = [blobs.add_bytes(os.urandom(CHUNK_BYTES)) for _ in range(changed)]
    names = fresh + before[changed:]
    file = ChunkedFile(path="model.bin", bytes=CHUNK_BYTES * CHUNKS, chunks=names)
    data = CheckpointManifest(files=[file]).canonical()
    return Checkpoint(
        number=2 if before else 1, manifest=blobs.add_bytes(data), manifest_bytes=len(data), bytes=file.bytes, files=1
    )


def lease_at(folder: Path, kept: list[dict[str, Any]]) -> Any:
    """The provider's own lease, of which only its files matter here."""
    from dataclasses import fields, replace

    from minga.cli.world import RealClock
    from minga.provider.agent import begin
    from minga.provider.events import Opened
    from minga.provider.lease import LeaseRun, World

    facts = {item.name: 0 if item.type == "int" else "0" for item in fields(Opened)} | {"channel": CHANNEL}
    world = World(**({item.name: None for item in fields(World)} | {"clock": RealClock(), "home": folder}))
    return LeaseRun(world, replace(begin(Opened(**facts)), checkpoints=tuple(kept)), [], None)


async def provide(folder: Path, kept: list[dict[str, Any]]) -> None:
    """Serve the provider's API until stdin ends."""
    from minga.provider.serving import build_app

    class Desk:
        def authorised(self, channel: str, token: str) -> Any:
            assert (channel, token) == (CHANNEL, TOKEN)
            return lease

    lease = lease_at(folder, kept)
    async with serve(build_app(Desk()), "127.0.0.1", 0) as server:
        print(server.url, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


async def fetch(url: str, target: Path, checkpoint: Checkpoint) -> float:
    """Seconds from the announcement to the moment at which the checkpoint counts."""

    async def ask(what: Callable[[], Any]) -> Any:
        return await what()

    keeper = Keeper(DiskChunks(target), target / "scratch", 1 << 40)
    api = ProviderApi(connect(url, timeout_s=30), CHANNEL)
    api.token = TOKEN
    begin = perf_counter()
    kept = await keeper.keep(Source(api, ask), 0, checkpoint)
    taken = perf_counter() - begin
    assert kept is not None
    await api.aclose()
    return taken


def raw(source: list[Path], target: Path) -> tuple[float, float]:
    """Seconds of a plain copy: until everything is written, and until it is durable."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        script = (
            "import socket, sys\n"
            "with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as out:\n"
            "    sys.stdin.read(1)\n"
            "    for name in sys.argv[2:]:\n"
            "        with open(name, 'rb') as file: out.sendfile(file)\n"
        )
        words = [sys.executable, "-c", script, str(listener.getsockname()[1]), *map(str, source)]
        with subprocess.Popen(words, stdin=subprocess.PIPE) as sender:
            connection, _ = listener.accept()
            buffer = memoryview(bytearray(1 << 20))
            assert sender.stdin is not None
            begin = perf_counter()
            sender.stdin.close()
            with target.open("wb", buffering=0) as file, connection:
                while count := connection.recv_into(buffer):
                    file.write(buffer[:count])
                written = perf_counter() - begin
                os.fsync(file.fileno())
                durable = perf_counter() - begin
    assert target.stat().st_size == CHUNKS * CHUNK_BYTES
    target.unlink()
    return written, durable


def warm() -> None:
    """Leave memory that the host has backed to whoever allocates next."""
    os.sync()
    size = 1 << 30
    with mmap.mmap(-1, size) as memory:
        for at in range(0, size, mmap.PAGESIZE):
            memory[at] = 1


def measure(folder: Path) -> dict[str, list[float]]:
    """All sides in turns."""
    times: dict[str, list[float]] = {"whole": [], "changed": [], "raw_written": [], "raw_durable": []}
    first = make(folder, CHUNKS, [])
    blobs = BlobStore(folder / "leases" / CHANNEL[2:] / "blobs")
    names = CheckpointManifest.read(b"".join(blobs.read(first.manifest))).files[0].chunks
    second = make(folder, CHANGED, names)
    kept = repr([first.plain(), second.plain()])
    words = [sys.executable, __file__, "provide", str(folder), kept]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as provider:
        assert provider.stdout is not None
        assert provider.stdin is not None
        url = provider.stdout.readline().strip()
        for _ in range(ROUNDS):
            target = folder / "tenant"
            warm()
            times["whole"].append(asyncio.run(fetch(url, target, first)))
            times["changed"].append(asyncio.run(fetch(url, target, second)))
            shutil.rmtree(target)
            warm()
            written, durable = raw([blobs.path(name) for name in names], folder / "raw")
            times["raw_written"].append(written)
            times["raw_durable"].append(durable)
        provider.stdin.close()
    return times


def main() -> None:
    """Measure and save rates and ratios."""
    with tempfile.TemporaryDirectory() as text:
        times = measure(Path(text))
    seconds = {name: spread(values) for name, values in times.items()}
    total, part = CHUNKS * CHUNK_BYTES / 1e6, CHANGED * CHUNK_BYTES / 1e6
    median = {name: found["median"] for name, found in seconds.items()}
    rates = {name: total / median[name] for name in ("whole", "raw_written", "raw_durable")}
    ratios = {
        "whole_to_raw_durable": median["raw_durable"] / median["whole"],
        "whole_to_raw_written": median["raw_written"] / median["whole"],
        "changed_to_whole_seconds": median["changed"] / median["whole"],
    }
    sizes = {"megabytes": total, "changed_megabytes": part}
    save("checkpoint", {**sizes, "seconds": seconds, "megabytes_per_second": rates, "ratio": ratios})


if __name__ == "__main__":
    if sys.argv[1:2] == ["provide"]:
        import ast

        asyncio.run(provide(Path(sys.argv[2]), ast.literal_eval(sys.argv[3])))
    else:
        main()
