"""Makes `fixtures` importable by every test, and its fixtures available to all."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from buckets import bucket_server
from fixtures import anyio_backend, clock, dice, local_network

__all__ = ["anyio_backend", "bucket_server", "clock", "dice", "local_network"]

# A shell that starts the tests in the background has SIGINT ignored, and the commands under test would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
