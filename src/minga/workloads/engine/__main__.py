"""Load the model, say so, serve until SIGTERM."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading

from .http import Server
from .model import Engine


def main(arguments: list[str]) -> int:
    """Load, serve until SIGTERM; the exit code."""
    parser = argparse.ArgumentParser(description="Serve a Hugging Face checkpoint by OpenAI's HTTP API, on loopback.")
    parser.add_argument("--model", required=True, help="folder of the checkpoint")
    parser.add_argument("--name", default="model", help="what requests call it")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--device", default="", help="cpu, cuda, …; by default the first accelerator, else cpu")
    given = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    server = Server(given.port, Engine(given.model, given.name, device))
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"engine: {given.name} on {device} at 127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
