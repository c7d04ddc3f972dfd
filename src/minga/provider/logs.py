"""The job's output as its tenant reads it: one plain file per lease, that outlives the sandbox.

The runtime keeps what fits under its cap and says how much it dropped; here the gap becomes one line of text, so that
offsets in this file are simply bytes, and a reader that counts what it got can always go on. A side file remembers
where the file and the runtime's stream last parted, so that copying goes on after a restart. Blocking.
"""

from __future__ import annotations

import json
from pathlib import Path

from minga.runtimes.runtime import LogChunk
from minga.store.blobs import write_atomic

READ_BYTES = 256 << 10


class LogFile:
    """A growing log at `path`."""

    def __init__(self, path: Path) -> None:
        """Use `path`; it need not exist yet."""
        self.path = path
        self._side = path.with_name(path.name + ".at")

    def size(self) -> int:
        """Bytes that can be read."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def stream_offset(self) -> int:
        """Where in the runtime's stream to go on copying."""
        try:
            parted = json.loads(self._side.read_bytes())
        except FileNotFoundError:
            parted = {"file": 0, "stream": 0}
        return int(parted["stream"]) + max(0, self.size() - int(parted["file"]))

    def append(self, chunk: LogChunk) -> None:
        """Add a chunk of the runtime's stream; what was dropped before it becomes a line."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.path.open("ab") as handle:
            if chunk.dropped_bytes:
                handle.write(f"\n[minga: {chunk.dropped_bytes} bytes of output were dropped here]\n".encode())
            handle.write(chunk.data)
        if chunk.dropped_bytes:
            write_atomic(self._side, json.dumps({"file": self.size(), "stream": chunk.next_offset}).encode())

    def read(self, offset: int, limit: int = READ_BYTES) -> bytes:
        """Up to `limit` bytes from `offset`; empty at the end."""
        try:
            with self.path.open("rb") as handle:
                handle.seek(offset)
                return handle.read(limit)
        except FileNotFoundError:
            return b""
