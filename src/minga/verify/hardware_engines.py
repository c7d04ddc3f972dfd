"""Devices that do the work of hardware challenges: plain Python, numpy; accelerators are in `hardware_torch`.

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

NOISE_WORDS = 1 << 14
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
        signs = hm.signs(seed, links, n)
        for link in range(links):
            d = signs[link * n : (link + 1) * n]
            rows = [pack_fields(x[j * m : (j + 1) * m]) for j in range(n)]
            flipped = [(hm.P - 1) * d[j] or 1 for j in range(n)]
            rows = [pack_fields(fields_mod(row * factor, m)) for row, factor in zip(rows, flipped, strict=True)]
            x = b"".join(combine(a[i * n : (i + 1) * n], rows, m) for i in range(n))
        return x, time.thread_time() - began

    def opening(self, seed: bytes, n: int, m: int, links: int) -> tuple[bytes, float]:
        """What the prover commits to: the chain's answer, packed; and the CPU seconds."""
        found, spent = self.gemm(seed, n, m, links)
        return hm.pack(found), spent

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
        found, spent = self._chain(seed, n, m, links)
        return found.tobytes(), spent

    def opening(self, seed: bytes, n: int, m: int, links: int) -> tuple[bytes, float]:
        """See `Plain.opening`."""
        found, spent = self._chain(seed, n, m, links)
        began = time.thread_time()
        return numpy_pack(self.np, found), spent + time.thread_time() - began

    def _chain(self, seed: bytes, n: int, m: int, links: int) -> tuple[Any, float]:
        """The answer's residues, n · m of them, and the CPU seconds."""
        np = self.np
        began = time.thread_time()
        a = numpy_entries(np, seed, "A", n * n).reshape(n, n).astype(np.float32)
        x = numpy_entries(np, seed, "X", n * m).reshape(n, m).astype(np.float32)
        d = numpy_signs(np, seed, links, n)
        spent = [time.thread_time() - began]
        parts: list[Any] = np.array_split(x, min(self.threads, m), axis=1)

        def chain(index: int) -> None:
            start = time.thread_time()
            part = np.ascontiguousarray(parts[index])
            product, quotient = np.empty_like(part), np.empty_like(part)
            for sign in d:
                part *= sign[:, None]
                np.matmul(a, part, out=product)
                numpy_reduce(np, product, quotient)
                part, product = product, part
            parts[index] = part
            spent.append(time.thread_time() - start)

        together(chain, len(parts))
        began = time.thread_time()
        values = np.concatenate(parts, axis=1).astype(np.int8).reshape(-1)
        values[values < 0] += hm.P
        return values.view(np.uint8), sum(spent) + time.thread_time() - began

    def fill(self, seed: bytes, chunks: int) -> tuple[Any, float]:
        """See `Plain.fill`."""
        np = self.np
        spent: list[float] = []
        view = allocate(chunks)
        words = np.frombuffer(view, np.uint64).reshape(chunks, hm.BLOCKS, hm.WORDS)

        def share(index: int) -> None:
            began = time.thread_time()
            for chunk in range(index, chunks, self.threads):
                numpy_chunk(np, words[chunk], seed, chunk)
            spent.append(time.thread_time() - began)

        together(share, min(self.threads, chunks))
        return view, sum(spent)


def numpy_noise(np: Any, seed: bytes, label: str, count: int) -> Any:
    """`hm.noise` as an array of bytes, some GB/s: in blocks that stay in a core's own cache."""
    words = -(-count // 8)
    out = np.empty(words, np.uint64)
    ramp = np.arange(1, min(words, NOISE_WORDS) + 1, dtype=np.uint64) * np.uint64(hm.NOISE_STEP)
    spare = np.empty_like(ramp)
    key = hm.noise_key(seed, label)
    for start in range(0, words, NOISE_WORDS):
        z, other = out[start : start + NOISE_WORDS], spare[: words - start]
        np.add(ramp[: len(z)], np.uint64((key + start * hm.NOISE_STEP) % 2**64), out=z)
        for shift, factor in hm.NOISE_ROUNDS:
            np.right_shift(z, np.uint64(shift), out=other)
            np.bitwise_xor(z, other, out=z)
            np.multiply(z, np.uint64(factor), out=z)
        np.right_shift(z, np.uint64(hm.NOISE_LAST), out=other)
        np.bitwise_xor(z, other, out=z)
    return out.view(np.uint8)[:count]


def numpy_chunk(np: Any, words: Any, seed: bytes, chunk: int) -> None:
    """The first blocks of a chunk into the rows of `words` (blocks × 8192, uint64)."""
    other = np.empty(hm.WORDS, np.uint64)
    words[0] = numpy_first(np, seed, chunk)
    for block in range(1, len(words)):
        _next_block(np, words[block - 1], words[block], other)


def numpy_block(np: Any, seed: bytes, chunk: int, block: int) -> Any:
    """One block of a chunk, 8192 words; those before it are made in two rows that stay in a core's own cache."""
    rows, other = np.empty((2, hm.WORDS), np.uint64), np.empty(hm.WORDS, np.uint64)
    rows[0] = numpy_first(np, seed, chunk)
    for number in range(block):
        _next_block(np, rows[number % 2], rows[(number + 1) % 2], other)
    return rows[block % 2]


def numpy_first(np: Any, seed: bytes, chunk: int) -> Any:
    """Block 0 of a chunk."""
    return numpy_noise(np, seed, f"c{chunk}", hm.BLOCK_BYTES).view(np.uint64)


def _next_block(np: Any, last: Any, out: Any, other: Any) -> None:
    """`hm.next_block` from `last` into `out`. A turned row is its two parts the other way round: nothing is copied."""
    first, second = hm.turns(int(last[0]))
    np.invert(last[second:], out=other[:-second])
    np.invert(last[:second], out=other[-second:])
    np.bitwise_and(last, other, out=other)
    np.bitwise_xor(last[first:], other[:-first], out=out[:-first])
    np.bitwise_xor(last[:first], other[-first:], out=out[-first:])


def numpy_entries(np: Any, seed: bytes, label: str, count: int) -> Any:
    """`hm.residues` as balanced entries −6 … 6, int8."""
    values = numpy_noise(np, seed, label, count)
    values -= values // np.uint8(hm.P) * np.uint8(hm.P)
    values -= np.uint8(hm.P // 2)
    return values.view(np.int8)


def numpy_signs(np: Any, seed: bytes, links: int, n: int) -> Any:
    """`hm.signs` as +1 and −1, float32, a row for each link."""
    bits = numpy_noise(np, seed, "d", links * n) & np.uint8(1)
    return (1 - 2 * bits.astype(np.float32)).reshape(links, n)


def numpy_reduce(np: Any, values: Any, spare: Any) -> None:
    """`values` modulo 13 to −6 … 6, in place; `spare` is of the same shape."""
    np.multiply(values, np.float32(1 / hm.P), out=spare)
    np.rint(spare, out=spare)
    spare *= hm.P
    values -= spare


def numpy_pack(np: Any, values: Any) -> bytes:
    """`hm.pack` of an array of residues."""
    if len(values) % 2:
        values = np.append(values, np.uint8(0))
    packed: bytes = (values[0::2] << 4 | values[1::2]).tobytes()
    return packed


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
