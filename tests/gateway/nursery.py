"""Loads a model once, then forks an engine that serves it for each line that it reads: `nursery.py MODEL`.

Each engine is a process of its own that listens and computes by itself; only loading is shared.
"""

from __future__ import annotations

import os
import signal
import sys

import torch
from engine.http import Server
from engine.model import Engine


def main(model: str) -> None:
    """Answer each line with a new engine's process id and port, until the input ends."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    engine = Engine(model, "tiny", "cpu")
    for _ in sys.stdin:
        server = Server(0, engine)
        pid = os.fork()
        if pid == 0:
            server.serve_forever()
        print(pid, server.server_address[1], flush=True)
        server.socket.close()


if __name__ == "__main__":
    main(sys.argv[1])
