"""The worker as the sandbox runs it: a program of four files without Minga, over a socket; and its fast engines."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from minga.runtimes.environments import ai_environment, is_complete
from minga.verify import hardware_engines as he
from minga.verify import hardware_math as hm
from minga.verify import hardware_worker as hwk

SEED = "0x" + "5a" * 32
RAW = bytes.fromhex(SEED[2:])
SOURCES = ("hardware_math.py", "hardware_engines.py", "hardware_torch.py", "hardware_worker.py")


def asked(what: str, size: int = 0, columns: int = 0, links: int = 0, seed: str = SEED) -> bytes:
    """A line as the agent sends it."""
    return json.dumps({"what": what, "seed": seed, "size": size, "columns": columns, "links": links}).encode() + b"\n"


@pytest.fixture
def worker(tmp_path: Path) -> hwk.Worker:
    """A worker on plain Python."""
    return hwk.Worker(he.Plain(), tmp_path)


def opened(worker: hwk.Worker, digest: str) -> bytes:
    """The opening of a commitment."""
    import base64

    answer = hwk.reply(worker, asked("open", seed="0x" + digest))
    data = base64.b64decode(answer["data"])
    assert len(data) == answer["bytes"]
    return data


def test_compute_is_committed_to_and_then_opened(worker: hwk.Worker) -> None:
    answer = hwk.reply(worker, asked("gemm", 8, 8, 2))
    assert answer["facts"]["cpu_us"] >= 0
    opening = opened(worker, answer["digest"])
    assert hm.digest(opening) == answer["digest"]
    assert hm.unpack(opening, 64) == he.Plain().gemm(RAW, 8, 8, 2)[0]


def test_memory_is_filled_and_walked(worker: hwk.Worker) -> None:
    assert "cpu_us" in hwk.reply(worker, asked("fill", 1))["facts"]
    answer = hwk.reply(worker, asked("walk", 20))
    assert opened(worker, answer["digest"]) == hm.walk(memoryview(hm.chunk_bytes(RAW, 0)), RAW, 20)


def test_a_walk_needs_filled_memory(worker: hwk.Worker) -> None:
    assert "nothing is filled" in hwk.reply(worker, asked("walk", 20))["error"]


@pytest.mark.parametrize("is_filled", [True, False])
def test_disk_pieces_are_written_and_read_back(worker: hwk.Worker, tmp_path: Path, is_filled: bool) -> None:
    if is_filled:
        hwk.reply(worker, asked("fill", 2))
    answer = hwk.reply(worker, asked("disk", 2, 0, 7))
    wanted = b"".join(hm.piece_hashes(RAW, 7, hm.chunk_bytes(RAW, chunk)) for chunk in range(2))
    assert opened(worker, answer["digest"]) == wanted
    assert list(tmp_path.iterdir()) == [], "the file is removed"


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"not json", b"[1]", asked("fly"), asked("open"), asked("gemm", seed="0xzz"), b'{"what": "gemm"}'],
)
def test_what_it_does_not_understand_is_an_error_and_no_end(worker: hwk.Worker, line: bytes) -> None:
    assert "error" in hwk.reply(worker, line)
    assert "facts" in hwk.reply(worker, asked("ready"))


def test_only_the_last_openings_are_kept(worker: hwk.Worker) -> None:
    digests = [
        hwk.reply(worker, asked("gemm", 2, 2, 1, seed="0x" + f"{number:02x}" * 32))["digest"]
        for number in range(hwk.OPENINGS + 4)
    ]
    assert "error" in hwk.reply(worker, asked("open", seed="0x" + digests[0]))
    assert opened(worker, digests[-1])


def test_it_serves_one_connection_after_the_other_until_end(worker: hwk.Worker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=hwk.serve, args=(worker, listener))
        thread.start()
        for _ in range(2):
            assert "facts" in talk(port, asked("ready"))
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(asked("end"))
            thread.join(10)
        assert not thread.is_alive()


def test_it_ends_when_nobody_comes(worker: hwk.Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hwk, "SILENT_SECONDS", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hwk.serve(worker, listener)


def talk(port: int, line: bytes) -> dict[str, Any]:
    """One question over a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection, connection.makefile("rwb") as stream:
        stream.write(line)
        stream.flush()
        answer: dict[str, Any] = json.loads(stream.readline())
        return answer


# -------------------------------------------------------------------------------------------------- as a program, alone


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """The four files, and nothing else."""
    folder = tmp_path / "alone"
    folder.mkdir()
    for name in SOURCES:
        (folder / name).write_text(files("minga.verify").joinpath(name).read_text())
    return folder


@contextmanager
def running(sources: Path, python: str) -> Iterator[int]:
    """The program on a free port, without anything of this process's environment."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    process = subprocess.Popen(
        [python, "-I", str(sources / SOURCES[-1]), str(port), "2", "0", "alone"],
        cwd=sources,
        env={"PATH": "/usr/bin:/bin"},
    )
    try:
        while True:
            assert process.poll() is None, "the program ended"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                continue
        yield port
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(asked("end"))
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def test_it_runs_alone_with_a_bare_python(sources: Path) -> None:
    with running(sources, sys.executable) as port:
        assert talk(port, asked("gemm", 8, 8, 2))["digest"] == hm.digest(hm.pack(he.Plain().gemm(RAW, 8, 8, 2)[0]))


def test_it_imports_nothing_of_minga(sources: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(sources)!r}); import hardware_worker; print(sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, cwd="/")
    held = found.stdout
    assert "hardware_engines" in held
    # The editable install's finder may be there; the package's own code may not.
    assert "'minga.verify.hardware_math'" not in held or "site-packages" not in held


_EQUAL = """
import sys
sys.path.insert(0, sys.argv[1])
import os
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import hardware_math as hm, hardware_engines as he, hardware_torch as ht
seed = bytes.fromhex("5a" * 32)
engines = [he.Numpy(2), he.Numpy(1), he.Numpy(3), ht.Torch("cpu")]
for engine in engines:
    memory, _ = engine.fill(seed, 2)
    print(
        hm.digest(engine.gemm(seed, 48, 48, 3)[0]),
        hm.digest(engine.gemm(seed, 200, 64, 2)[0]),
        hm.digest(engine.walk(memory, seed, 200)),
        hm.digest(bytes(engine.piece(memory, 1))),
    )
import numpy
sys.stderr.write(str(len(engines)))
"""


def test_numpy_and_torch_compute_what_plain_python_does(sources: Path) -> None:
    """numpy with 1, 2, 3 threads and torch on its CPU device, which stands in for CUDA and ROCm: bit for bit."""
    environment = ai_environment()
    if not is_complete(environment):
        pytest.skip("the environment with numpy and torch is not built here")
    plain = he.Plain()
    memory, _ = plain.fill(RAW, 2)
    wanted = " ".join(
        (
            hm.digest(plain.gemm(RAW, 48, 48, 3)[0]),
            hm.digest(plain.gemm(RAW, 200, 64, 2)[0]),
            hm.digest(plain.walk(memory, RAW, 200)),
            hm.digest(bytes(plain.piece(memory, 1))),
        )
    )
    command = [str(environment / "bin" / "python"), "-I", "-c", _EQUAL, str(sources)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.split("\n")[:-1] == [wanted] * 4


def test_the_sums_are_exact_at_their_largest(sources: Path) -> None:
    """All entries ±6 at n = 4096: every partial sum is below 2²⁴ and float32 gives the integer."""
    environment = ai_environment()
    if not is_complete(environment):
        pytest.skip("the environment with numpy and torch is not built here")
    code = (
        "import numpy as np; n = 4096; a = np.full((8, n), 6, np.float32); x = np.full((n, 8), -6, np.float32);"
        "y = a @ x; q = np.rint(y * np.float32(1 / 13)); r = y - 13 * q;"
        "assert (y == -36 * n).all() and (np.abs(r) <= 6).all();"
        "assert ((r.astype(np.int64) - y.astype(np.int64)) % 13 == 0).all();"
        "v = np.arange(-36 * n, 36 * n + 1).astype(np.float32); r = v - 13 * np.rint(v * np.float32(1 / 13));"
        "assert (np.abs(r) <= 6).all()"
    )
    subprocess.run([str(environment / "bin" / "python"), "-I", "-c", code], check=True, timeout=120)


def test_an_engine_is_always_found() -> None:
    assert hwk.engine(1, 0).name in ("numpy", "torch", "python")


def test_together_raises_what_one_of_them_raised() -> None:
    def work(index: int) -> None:
        if index == 2:
            raise ValueError("two")

    with pytest.raises(ValueError, match="two"):
        he.together(work, 4)
