"""What a sandbox costs: a command that says one word, bare and in the sandbox, taken in turns in one run.

Run as root: `python benches/bench_sandbox.py`. Aim: the sandbox's first output at most 100 ms after a bare process's.
Each side is measured from the call that starts it to its first output, and to its end.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import anyio

from harness import save, spread
from minga.runtimes.bubblewrap import BubblewrapRuntime
from minga.runtimes.runtime import Environment, Limits, Task

ROUNDS = 41
COMMAND = ("sh", "-c", "echo ready")
LIMITS = Limits(cpus_milli=2000, memory_bytes=1 << 30, disk_bytes=1 << 30, pids=256, wall_seconds=60)


async def bare():
    """Seconds to the first output, and to the end, of a bare process."""
    start = time.perf_counter()
    async with await anyio.open_process(COMMAND) as process:
        assert await process.stdout.receive() == b"ready\n"
        first = time.perf_counter() - start
        await process.wait()
        return first, time.perf_counter() - start


async def sandboxed(runtime, number):
    """The same in a sandbox with every limit set, and the seconds that its removal took."""
    start = time.perf_counter()
    handle = await runtime.start(Task(f"bench-{number}", COMMAND, Environment("system"), LIMITS))
    async for chunk in handle.follow_log():
        assert chunk.data == b"ready\n"
        break
    first = time.perf_counter() - start
    end = await handle.wait()
    assert end.code == 0
    ended = time.perf_counter() - start
    await handle.remove()
    return first, ended, time.perf_counter() - start - ended


async def main():
    """Measure both sides in turns and save them."""
    times = {name: [] for name in ("bare_first", "bare_end", "first", "end", "remove")}
    with tempfile.TemporaryDirectory() as folder:
        runtime = BubblewrapRuntime(Path(folder))
        await sandboxed(runtime, "warm")
        for number in range(ROUNDS):
            for name, value in zip(("bare_first", "bare_end"), await bare(), strict=True):
                times[name].append(value)
            for name, value in zip(("first", "end", "remove"), await sandboxed(runtime, number), strict=True):
                times[name].append(value)
    found = {name: spread(values) for name, values in times.items()}
    first, end = (found[name]["median"] - found[f"bare_{name}"]["median"] for name in ("first", "end"))
    save(
        "sandbox", {"over_a_bare_process_ms": {"first": first * 1e3, "end": end * 1e3}, "aim_ms": 100, "seconds": found}
    )
    print(f"over a bare process: first output {first * 1e3:.1f} ms, end {end * 1e3:.1f} ms")


if __name__ == "__main__":
    anyio.run(main)
