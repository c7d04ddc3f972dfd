"""The fast engines against plain Python, bit for bit: numpy, and torch on its CPU device for accelerators."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch

from minga.verify import hardware_engines as he
from minga.verify import hardware_math as hm
from minga.verify.hardware_torch import Torch

SEED = bytes(range(5, 37))
SHAPES = [(1, 1, 1), (9, 5, 0), (16, 16, 3), (33, 17, 3), (48, 48, 3), (130, 64, 2)]


def two_devices() -> Torch:
    """torch's CPU device twice over: work is shared out as it is to two accelerators."""
    engine = Torch("cpu")
    engine.kinds = ["cpu", "cpu"]
    return engine


MAKERS: list[Callable[[], Any]] = [lambda: he.Numpy(1), lambda: he.Numpy(3), lambda: Torch("cpu"), two_devices]


@pytest.fixture(params=MAKERS, ids=["numpy", "numpy on 3 threads", "torch", "torch on 2 devices"])
def engine(request: pytest.FixtureRequest) -> Any:
    """Each fast engine."""
    return request.param()


@pytest.mark.parametrize(("n", "m", "links"), SHAPES)
def test_chains_are_those_of_plain_python(engine: Any, n: int, m: int, links: int) -> None:
    plain = he.Plain()
    assert engine.gemm(SEED, n, m, links)[0] == plain.gemm(SEED, n, m, links)[0]
    assert engine.opening(SEED, n, m, links)[0] == plain.opening(SEED, n, m, links)[0]


@pytest.mark.parametrize("chunks", [1, 3])
def test_memory_is_that_of_plain_python(engine: Any, chunks: int) -> None:
    plain = he.Plain()
    wanted, _ = plain.fill(SEED, chunks)
    held, _ = engine.fill(SEED, chunks)
    assert b"".join(bytes(engine.piece(held, chunk)) for chunk in range(chunks)) == bytes(wanted)
    assert engine.walk(held, SEED[::-1], 200) == plain.walk(wanted, SEED[::-1], 200)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 4096, 131_073, 140_001])
def test_noise_is_the_same_everywhere(count: int) -> None:
    wanted = hm.noise(SEED, "A", count)
    assert he.numpy_noise(numpy, SEED, "A", count).tobytes() == wanted
    assert Torch("cpu").noise("cpu", SEED, "A", count).numpy().tobytes() == wanted


def test_entries_and_signs_are_the_same_everywhere() -> None:
    wanted = [value - hm.P if value > hm.P // 2 else value for value in hm.residues(SEED, "A", 999)]
    assert he.numpy_entries(numpy, SEED, "A", 999).tolist() == wanted
    assert Torch("cpu").entries("cpu", SEED, "A", 999).tolist() == wanted
    signs = [1 - 2 * bit for bit in hm.signs(SEED, 3, 7)]
    assert he.numpy_signs(numpy, SEED, 3, 7).reshape(-1).tolist() == signs


def test_torch_needs_no_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's environment may have torch alone; then `Tensor.numpy` raises."""
    engine = Torch("cpu")
    monkeypatch.setattr(torch.Tensor, "numpy", property(lambda self: pytest.fail("numpy was asked for")))
    held, _ = engine.fill(SEED, 1)
    assert len(engine.piece(held, 0)) == hm.CHUNK_BYTES
    assert engine.opening(SEED, 8, 8, 1)[0] == he.Plain().opening(SEED, 8, 8, 1)[0]


def test_a_device_that_rounds_is_told_from_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 sums stand in for a tensor core that drops low bits: then TF32 is switched off, and if that does not
    help there is no engine.
    """
    assert Torch("cpu").is_exact("cpu")
    exact = torch.Tensor.__matmul__

    def rounding(left: Any, right: Any) -> Any:
        found = exact(left, right)
        allowed = torch.backends.cuda.matmul.allow_tf32
        return found.to(torch.bfloat16).float() if found.dtype == torch.float32 and (allowed or always) else found

    always = False
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounding)
    assert Torch("cpu").devices() == ["cpu"]
    assert not torch.backends.cuda.matmul.allow_tf32
    always = True
    with pytest.raises(RuntimeError, match="inexactly"):
        Torch("cpu")


def test_where_there_is_no_accelerator_there_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(RuntimeError, match="no accelerator"):
        Torch("cuda")


def test_accelerators_are_named_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts of the CUDA path that torch's CPU device has no use for: names, and waiting for queued kernels."""
    engine, waited = two_devices(), list[str]()
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda kind: f"card of {kind}")
    monkeypatch.setattr(engine, "kinds", ["cuda:0", "cuda:1"])
    assert engine.devices() == ["card of cuda:0", "card of cuda:1"]
    engine._wait("cuda:1")
    engine._wait("cpu")
    assert waited == ["cuda:1"]


def test_cpu_time_is_told_where_the_cpu_did_the_work(engine: Any) -> None:
    assert engine.gemm(SEED, 64, 64, 4)[1] > 0 or engine.kinds == ["cpu", "cpu"]


def test_rows_and_columns_of_the_largest_side_stay_exact() -> None:
    """72 n < 2²⁴ at the largest side that a probe may ask for (`provider.probing.SIDE_MAX`)."""
    from minga.provider.probing import SIDE_MAX

    assert 72 * SIDE_MAX < 2**24
    assert 36 * SIDE_MAX / 13 * 2**-22 < 1 / 26, "the quotient by 13 is rounded to the right integer"


def test_no_library_is_imported_before_an_engine_is_made() -> None:
    import subprocess

    code = "import sys, minga.verify.hardware_torch, minga.verify.hardware_engines; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_a_digest_by_many_threads_is_the_same() -> None:
    data = hm.noise(SEED, "A", (3 << 20) + 5)
    assert hm.digest(data, threads=4) == hm.digest(data)
    assert hm.digest(data) != hm.digest(data[:-1])
    assert hm.digest(b"") != hm.digest(b"\0")
