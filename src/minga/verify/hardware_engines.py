"""Devices that do the work of hardware challenges: plain Python, numpy, torch (CUDA, ROCm or CPU).

Shipped into the sandbox beside `hardware_math` and loaded there without Minga. It knows no time limits and no
protocol. Rule: an engine imports its library when it is made, computes exactly what `hardware_math` defines, and takes
the seeds as they are.

Exactness: entries are integers of at most 6, sums at most 36 n < 2²⁴ for n ≤ 2¹⁸, so float32 with any order of
summation is exact, and so is TF32, whose products are of 11-bit integers. The quotient by 13 is rounded to the nearest
integer; it is at least 1/26 away from a tie, and the rounding error is below 36 n / 13 · 2⁻²² < 1/26 for n ≤ 58,000.
"""

from __future__ import annotations

import mmap
import threading
import time
from array import array
from collections.abc import Callable
from typing import Any

try:
    from minga.verify import hardware_math as hm
except ImportError:  # in the sandbox
    import hardware_math as hm  # type: ignore[import-not-found, no-redef]

FIELD_BYTES = 2
FIELD_ROWS = 455
"""12 · 12 · 455 < 2¹⁶: so many products may be summed in a field of a packed row."""


class Plain:
    """No library at all: rows are integers with 16-bit fields, so that one multiplication does a whole row."""

    name = "python"
    threads = 1

    def devices(self) -> list[str]:
        """What does the work."""
        return ["python"]

    def gemm(self, seed: bytes, n: int, m: int, links: int) -> tuple[bytes, float]:
        """The chain's answer (residues, row by row) and the CPU seconds it took."""
        began = time.thread_time()
        a, x = hm.base_matrix(seed, n), hm.first_matrix(seed, n, m)
        for link in range(links):
            d = hm.signs(seed, link, n)
            rows = [pack_fields(x[j * m : (j + 1) * m]) for j in range(n)]
            flipped = [(hm.P - 1) * d[j] or 1 for j in range(n)]
            rows = [pack_fields(fields_mod(row * factor, m)) for row, factor in zip(rows, flipped, strict=True)]
            x = b"".join(combine(a[i * n : (i + 1) * n], rows, m) for i in range(n))
        return x, time.thread_time() - began

    def fill(self, seed: bytes, chunks: int) -> tuple[Any, float]:
        """Filled memory, and the CPU seconds that it took."""
        began, view = time.thread_time(), allocate(chunks)
        for chunk in range(chunks):
            view[chunk * hm.CHUNK_BYTES : (chunk + 1) * hm.CHUNK_BYTES] = hm.chunk_bytes(seed, chunk)
        return view, time.thread_time() - began

    def walk(self, memory: Any, seed: bytes, steps: int) -> bytes:
        """The walk's answer."""
        return hm.walk(memory, seed, steps)

    def piece(self, memory: Any, chunk: int) -> memoryview:
        """A chunk of filled memory, to write on a disk."""
        piece: memoryview = memory[chunk * hm.CHUNK_BYTES : (chunk + 1) * hm.CHUNK_BYTES]
        return piece


class Numpy(Plain):
    """float32 by numpy's BLAS: the columns are shared out to as many threads as the unit has CPUs."""

    name = "numpy"

    def __init__(self, threads: int) -> None:
        """Use `threads` threads; the BLAS itself must have been told to use one (OPENBLAS_NUM_THREADS)."""
        import numpy

        self.np = numpy
        self.threads = threads

    def devices(self) -> list[str]:
        """What does the work."""
        return [f"numpy {self.np.__version__}, {self.threads} threads"]

    def gemm(self, seed: bytes, n: int, m: int, links: int) -> tuple[bytes, float]:
        """See `Plain.gemm`; CPU seconds are those of all threads."""
        np = self.np
        began = time.thread_time()
        a = self._balanced(hm.base_matrix(seed, n)).reshape(n, n)
        x = self._balanced(hm.first_matrix(seed, n, m)).reshape(n, m)
        d = [1 - 2 * np.frombuffer(hm.signs(seed, link, n), np.uint8).astype(np.float32) for link in range(links)]
        spent = [time.thread_time() - began]
        parts: list[Any] = np.array_split(x, min(self.threads, m), axis=1)

        def chain(index: int) -> None:
            start = time.thread_time()
            part = np.ascontiguousarray(parts[index])
            product, quotient = np.empty_like(part), np.empty_like(part)
            for sign in d:
                part *= sign[:, None]
                np.matmul(a, part, out=product)
                np.multiply(product, np.float32(1 / hm.P), out=quotient)
                np.rint(quotient, out=quotient)
                quotient *= hm.P
                np.subtract(product, quotient, out=part)
            parts[index] = part
            spent.append(time.thread_time() - start)

        together(chain, len(parts))
        began = time.thread_time()
        answer = (np.concatenate(parts, axis=1).astype(np.int8) % hm.P).astype(np.uint8).tobytes()
        return answer, sum(spent) + time.thread_time() - began

    def fill(self, seed: bytes, chunks: int) -> tuple[Any, float]:
        """See `Plain.fill`."""
        np = self.np
        spent: list[float] = []
        view = allocate(chunks)
        words = np.frombuffer(view, np.uint64).reshape(chunks, hm.BLOCKS, hm.WORDS)

        def share(index: int) -> None:
            began = time.thread_time()
            twice, other = np.empty(2 * hm.WORDS, np.uint64), np.empty(hm.WORDS, np.uint64)
            for chunk in range(index, chunks, self.threads):
                words[chunk, 0] = np.frombuffer(hm.first_block(seed, chunk), np.uint64)
                for block in range(1, hm.BLOCKS):
                    last, out = words[chunk, block - 1], words[chunk, block]
                    twice[: hm.WORDS] = last
                    twice[hm.WORDS :] = last
                    first, second = hm.turns(int(last[0]))
                    np.invert(twice[second : second + hm.WORDS], out=other)
                    np.bitwise_and(last, other, out=other)
                    np.bitwise_xor(twice[first : first + hm.WORDS], other, out=out)
            spent.append(time.thread_time() - began)

        together(share, min(self.threads, chunks))
        return view, sum(spent)

    def _balanced(self, values: bytes) -> Any:
        entries = self.np.frombuffer(values, self.np.uint8).astype(self.np.float32)
        entries[entries > hm.P // 2] -= hm.P
        return entries


class Torch(Plain):
    """Every accelerator at once by torch (CUDA, and ROCm under the same name), or its CPU device."""

    name = "torch"

    def __init__(self, kind: str = "cuda") -> None:
        """Use all devices of `kind` that are visible. Raises RuntimeError: there is none."""
        import torch  # type: ignore[import-not-found, unused-ignore]

        self.torch: Any = torch
        count = torch.cuda.device_count() if kind == "cuda" else 1
        if not count:
            raise RuntimeError("torch sees no accelerator")
        self.kinds = [f"{kind}:{index}" for index in range(count)] if kind == "cuda" else [kind]
        self.threads = len(self.kinds)
        torch.backends.cuda.matmul.allow_tf32 = True

    def devices(self) -> list[str]:
        """What does the work."""
        return [self.torch.cuda.get_device_name(kind) if kind != "cpu" else "cpu" for kind in self.kinds]

    def gemm(self, seed: bytes, n: int, m: int, links: int) -> tuple[bytes, float]:
        """See `Plain.gemm`; the columns are shared out to the devices."""
        torch = self.torch
        a = self._balanced(hm.base_matrix(seed, n)).reshape(n, n)
        x = self._balanced(hm.first_matrix(seed, n, m)).reshape(n, m)
        d = torch.tensor([list(hm.signs(seed, link, n)) for link in range(links)], dtype=torch.float32)
        parts = list(torch.tensor_split(x, len(self.kinds), dim=1))

        def chain(index: int) -> None:
            kind = self.kinds[index]
            matrix, part, sign = a.to(kind), parts[index].to(kind), (1 - 2 * d).to(kind)
            for link in range(links):
                product = matrix @ (part * sign[link][:, None])
                part = product - hm.P * torch.round(product * (1 / hm.P))
            parts[index] = part.cpu()

        together(chain, len(parts))
        answer = torch.cat(parts, dim=1).to(torch.int8).remainder(hm.P)
        return bytes(answer.to(torch.uint8).contiguous().flatten().numpy().tobytes()), 0.0

    def fill(self, seed: bytes, chunks: int) -> tuple[Any, float]:
        """Filled memory of all devices: chunk i lies on device i modulo their number, blocks of all chunks in step."""
        torch = self.torch
        memory: list[Any] = [None] * len(self.kinds)

        def share(index: int) -> None:
            mine = range(index, chunks, len(self.kinds))
            heads = bytearray(b"".join(hm.first_block(seed, chunk) for chunk in mine))
            kind = self.kinds[index]
            held = torch.empty((len(mine), hm.BLOCKS, hm.WORDS), dtype=torch.int64, device=kind)
            held[:, 0] = torch.frombuffer(heads, dtype=torch.int64).reshape(len(mine), hm.WORDS).to(kind)
            places = torch.arange(hm.WORDS, device=kind)
            for block in range(1, hm.BLOCKS):
                last = held[:, block - 1]
                turned = [hm.turns(word % 2**64) for word in last[:, 0].tolist()]
                shift = torch.tensor(turned, device=kind)
                first = last.gather(1, (places + shift[:, :1]) % hm.WORDS)
                second = last.gather(1, (places + shift[:, 1:]) % hm.WORDS)
                held[:, block] = first ^ (last & ~second)
            memory[index] = held.view(len(mine), -1)
            if kind != "cpu":
                torch.cuda.synchronize(kind)

        together(share, min(len(self.kinds), chunks))
        return memory, 0.0

    def walk(self, memory: Any, seed: bytes, steps: int) -> bytes:
        """See `Plain.walk`: each step is a read from the device that holds the word."""
        per_chunk = hm.CHUNK_BYTES // 8
        words = sum(part.numel() for part in memory if part is not None)
        key, out = hm.walk_key(seed), bytearray()
        index = hm.walk_next(0, -1, key, words)
        for step in range(steps):
            chunk, place = divmod(index, per_chunk)
            word = int(memory[chunk % len(memory)][chunk // len(memory), place]) & 0xFFFFFFFF
            out += word.to_bytes(hm.WALK_BYTES, "little")
            index = hm.walk_next(word, step, key, words)
        return bytes(out)

    def piece(self, memory: Any, chunk: int) -> memoryview:
        """See `Plain.piece`."""
        return memoryview(memory[chunk % len(memory)][chunk // len(memory)].cpu().numpy()).cast("B")

    def _balanced(self, values: bytes) -> Any:
        entries = self.torch.frombuffer(bytearray(values), dtype=self.torch.uint8).to(self.torch.float32)
        return self.torch.where(entries > hm.P // 2, entries - hm.P, entries)


def pack_fields(values: bytes) -> int:
    """A row of residues as one integer with a 16-bit field for each."""
    fields = bytearray(FIELD_BYTES * len(values))
    fields[::FIELD_BYTES] = values
    return int.from_bytes(fields, "little")


def fields_mod(packed: int, count: int) -> bytes:
    """The fields of a packed row, each modulo 13."""
    fields = array("H", packed.to_bytes(FIELD_BYTES * count, "little"))
    return bytes([value % hm.P for value in fields])


def combine(weights: bytes, rows: list[int], count: int) -> bytes:
    """Σ weights[j] · rows[j] modulo 13, with `count` fields."""
    total = bytes(count)
    for start in range(0, len(rows), FIELD_ROWS):
        part = zip(weights[start : start + FIELD_ROWS], rows[start : start + FIELD_ROWS], strict=True)
        found = fields_mod(sum(weight * row for weight, row in part), count)
        total = bytes([(x + y) % hm.P for x, y in zip(total, found, strict=True)]) if start else found
    return total


def together(work: Callable[[int], None], count: int) -> None:
    """Run work(0) … work(count − 1) at the same moment; raises what the first of them raised."""
    failed: list[BaseException] = []

    def guarded(index: int) -> None:
        try:
            work(index)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(index,)) for index in range(1, count)]
    for thread in threads:
        thread.start()
    guarded(0)
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def allocate(chunks: int) -> memoryview:
    """Fresh memory for so many chunks."""
    return memoryview(mmap.mmap(-1, chunks * hm.CHUNK_BYTES))
