"""The program that answers hardware challenges inside a lease's sandbox, with the lease's limits.

`python hardware_worker.py PORT THREADS GPUS NAME` listens on its own loopback and answers one JSON object a line, until
a connection says `end` or none comes for `SILENT_SECONDS`. It knows `hardware_math`, `hardware_engines` and
`hardware_torch`, which lie beside it, and nothing of Minga. Rule: it answers a commitment at once and keeps the opening
until it is asked for, so that the verifier's clock stops before the bytes travel.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    from minga.verify import hardware_engines as he
    from minga.verify import hardware_math as hm
    from minga.verify import hardware_torch as ht
except ImportError:  # in the sandbox
    sys.path.insert(0, str(Path(__file__).parent))
    import hardware_engines as he  # type: ignore[import-not-found, no-redef]
    import hardware_math as hm  # type: ignore[import-not-found, no-redef]
    import hardware_torch as ht  # type: ignore[import-not-found, no-redef]

SILENT_SECONDS = 20
OPENINGS = 32
LINE_BYTES = 4096
TAKEN = 75
PIECE_BYTES = 3 << 20


def engine(threads: int, gpus: int) -> he.Plain:
    """The best engine there is: torch for accelerators, numpy, torch's CPU device, plain Python."""
    makers: list[Callable[[], he.Plain]] = [lambda: he.Numpy(threads), lambda: ht.Torch("cpu", threads), he.Plain]
    if gpus:
        makers.insert(0, lambda: ht.Torch("cuda"))
    for make in makers:
        with contextlib.suppress(ImportError, RuntimeError, OSError):
            return make()
    raise AssertionError("plain Python needs nothing")


class Worker:
    """Answers the challenges of one session; holds the filled memory and the last openings."""

    def __init__(self, device: he.Plain, folder: Path, name: str = "") -> None:
        """Work on `device`; disk pieces are written into `folder`; `name` is told to whoever asks `ready`."""
        self._name = name
        self._device = device
        self._folder = folder
        self._memory: Any = None
        self._filled: tuple[bytes, int] = (b"", 0)
        self._openings: dict[str, bytes] = {}

    def answer(self, what: str, seed: bytes, size: int, columns: int, links: int) -> dict[str, Any]:
        """The answer to one challenge. Raises ValueError: it cannot be done (the message says why)."""
        if what == "ready":
            device = self._device
            return {
                "facts": {"engine": device.name, "threads": device.threads, "devices": device.devices()},
                "name": self._name,
            }
        if what == "gemm":
            opening, cpu = self._device.opening(seed, size, columns, links)
            return self._commit(opening, {"cpu_us": int(cpu * 1e6)})
        if what == "fill":
            self._memory = None
            self._memory, cpu = self._device.fill(seed, size)
            self._filled = (seed, size)
            return {"facts": {"cpu_us": int(cpu * 1e6)}}
        if what == "walk":
            if self._memory is None:
                raise ValueError("nothing is filled")
            return self._commit(self._device.walk(self._memory, seed, size), {})
        if what == "disk":
            return self._commit(self._disk(seed, size, links), {})
        if what == "open":
            opening = self._openings[seed.hex()]
            return {"data": base64.b64encode(opening[size : size + PIECE_BYTES]).decode(), "bytes": len(opening)}
        raise ValueError(f"unknown challenge {what}")

    def _commit(self, opening: bytes, facts: dict[str, Any]) -> dict[str, Any]:
        while len(self._openings) >= OPENINGS:
            self._openings.pop(next(iter(self._openings)))
        name = hm.digest(opening, os.cpu_count() or 1 if self._device.name == "torch" else 1)
        self._openings[name] = opening
        return {"digest": name, "facts": facts}

    def _disk(self, seed: bytes, chunks: int, nonce: int) -> bytes:
        path = self._folder / "probe.bin"
        try:
            with path.open("wb", buffering=0) as handle:
                for chunk in range(chunks):
                    handle.write(self._piece(seed, chunk))
                os.fsync(handle.fileno())
                os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with path.open("rb", buffering=0) as handle:
                return b"".join(hm.piece_hashes(seed, nonce, handle.read(hm.CHUNK_BYTES)) for _ in range(chunks))
        finally:
            path.unlink(missing_ok=True)

    def _piece(self, seed: bytes, chunk: int) -> bytes | memoryview:
        if self._filled[0] == seed and chunk < self._filled[1]:
            return self._device.piece(self._memory, chunk)
        return hm.chunk_bytes(seed, chunk)


def reply(worker: Worker, line: bytes) -> dict[str, Any]:
    """The answer to a line, or `{"error": why}`."""
    try:
        asked = json.loads(line)
        seed = bytes.fromhex(asked["seed"].removeprefix("0x"))
        return worker.answer(asked["what"], seed, asked["size"], asked["columns"], asked["links"])
    except (ValueError, KeyError, TypeError, AttributeError, MemoryError, OSError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {error}"[:200]}


def serve(worker: Worker, listener: socket.socket) -> None:
    """Answer until somebody says `end`, or nobody anything for `SILENT_SECONDS`."""
    listener.settimeout(SILENT_SECONDS)
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            return
        connection.settimeout(SILENT_SECONDS)
        with connection, connection.makefile("rwb") as stream, contextlib.suppress(OSError):
            while line := stream.readline(LINE_BYTES):
                if b'"end"' in line:
                    return
                stream.write(json.dumps(reply(worker, line)).encode() + b"\n")
                stream.flush()


def main(words: list[str]) -> None:
    """Serve on port words[0] with words[1] threads and words[2] accelerators, as words[3]; 75: the port is taken."""
    port, threads, gpus = (int(word) for word in words[:3])
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError:
        raise SystemExit(TAKEN) from None
    with listener:
        serve(Worker(engine(threads, gpus), Path.cwd(), words[3]), listener)


if __name__ == "__main__":
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    main(sys.argv[1:])
