"""Accelerators that do the work of hardware challenges: CUDA, ROCm under the same name, or torch's CPU device.

Shipped into the sandbox beside `hardware_math` and loaded there without Minga. Rule: whatever is large is made on the
device, never sent to it, so that a round measures the device and not its host: matrices, signs, first blocks, packing.

Exactness: TF32 takes 11-bit integers as they are, and its sums are of 24 bits and more (Fasi, Higham, Mikaitis, Pranesh
2021, "Numerical behavior of NVIDIA tensor cores"); entries are −6 … 6 times −12 … 12, so that sums stay below
72 n < 2²⁴ for n ≤ 2¹⁷. Nothing is taken on trust: each device multiplies the worst of such matrices when the engine is
made, and where TF32 does not give the integers, float32 is used.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

try:
    from minga.verify import hardware_engines as he
    from minga.verify import hardware_math as hm
except ImportError:  # in the sandbox
    import hardware_engines as he  # type: ignore[import-not-found, no-redef]
    import hardware_math as hm  # type: ignore[import-not-found, no-redef]

TRIED_SIDE = 8192


class Torch(he.Plain):
    """Every accelerator at once, or torch's CPU device."""

    name = "torch"

    def __init__(self, kind: str = "cuda", threads: int = 1) -> None:
        """Use all devices of `kind` that are visible; `threads` are for the CPU device.

        Raises RuntimeError: there is none, or one does not compute exactly.
        """
        import torch  # type: ignore[import-not-found, unused-ignore]

        self.torch: Any = torch
        count = torch.cuda.device_count() if kind == "cuda" else 1
        if not count:
            raise RuntimeError("torch sees no accelerator")
        self.kinds = [f"{kind}:{index}" for index in range(count)] if kind == "cuda" else [kind]
        self.threads = count if kind == "cuda" else threads
        if kind == "cpu":
            torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = True
        if not all(self.is_exact(device) for device in self.kinds):
            torch.backends.cuda.matmul.allow_tf32 = False
            if not all(self.is_exact(device) for device in self.kinds):
                raise RuntimeError("torch multiplies inexactly here")

    def devices(self) -> list[str]:
        """What does the work."""
        return [self.torch.cuda.get_device_name(kind) if kind != "cpu" else "cpu" for kind in self.kinds]

    def is_exact(self, kind: str) -> bool:
        """Whether a device gives the integers of a product whose sums are as large and as odd as any can be."""
        torch = self.torch
        rows = self.entries(kind, bytes(32), "exact", 32 * TRIED_SIDE).reshape(32, TRIED_SIDE)
        columns = self.entries(kind, bytes(32), "check", 32 * TRIED_SIDE).reshape(TRIED_SIDE, 32).abs() + 6
        left = torch.cat([rows, rows.abs(), torch.full_like(rows, 6)])
        found = (left @ columns).cpu().double()
        return bool((found == left.cpu().double() @ columns.cpu().double()).all())

    # ---------------------------------------------------------------------------------------------------------- compute

    def gemm(self, seed: bytes, n: int, m: int, links: int) -> tuple[bytes, float]:
        """See `Plain.gemm`; the columns are shared out to the devices."""
        parts, spent = self._chains(seed, n, m, links)
        return _bytes(self.torch.cat([part.cpu() for part in parts], dim=1)), spent

    def opening(self, seed: bytes, n: int, m: int, links: int) -> tuple[bytes, float]:
        """See `Plain.opening`: packed on the devices, since half of the bytes travel in half of the time."""
        parts, spent = self._chains(seed, n, m, links)
        if any(part.shape[1] % 2 for part in parts):
            return hm.pack(_bytes(self.torch.cat([part.cpu() for part in parts], dim=1))), spent
        packed = [(part[:, 0::2] << 4 | part[:, 1::2]).cpu() for part in parts]
        return _bytes(self.torch.cat(packed, dim=1)), spent

    def _chains(self, seed: bytes, n: int, m: int, links: int) -> tuple[list[Any], float]:
        """The answer's residues as bytes on the devices, each with its share of the columns."""
        torch, began = self.torch, time.process_time()
        edges = [2 * (m // 2 * index // len(self.kinds)) for index in range(len(self.kinds))] + [m]
        parts: list[Any] = [None] * len(self.kinds)

        def chain(index: int) -> None:
            kind = self.kinds[index]
            a = self.entries(kind, seed, "A", n * n).reshape(n, n)
            x = self.entries(kind, seed, "X", n * m).reshape(n, m)[:, edges[index] : edges[index + 1]].contiguous()
            d = (1 - 2 * (self.noise(kind, seed, "d", links * n) & 1).to(torch.float32)).reshape(links, n, 1)
            product = torch.empty_like(x)
            for link in range(links):
                torch.matmul(a, x.mul_(d[link]), out=product)
                # 0 … 12 in one pass instead of −6 … 6 in four: the same residues.
                x, product = product.remainder_(hm.P), x
            parts[index] = x.remainder_(hm.P).to(torch.uint8)
            self._wait(kind)

        he.together(chain, len(self.kinds))
        return parts, time.process_time() - began if self.kinds == ["cpu"] else 0.0

    def noise(self, kind: str, seed: bytes, label: str, count: int) -> Any:
        """`hm.noise` as a tensor of bytes, made on the device. Words are signed there, so each shift is masked."""
        torch, key = self.torch, hm.noise_key(seed, label)
        z = torch.arange(1, -(-count // 8) + 1, dtype=torch.int64, device=kind)
        z.mul_(_signed(hm.NOISE_STEP)).add_(_signed(key))
        for shift, factor in hm.NOISE_ROUNDS:
            z.bitwise_xor_((z >> shift) & (1 << 64 - shift) - 1).mul_(_signed(factor))
        z.bitwise_xor_((z >> hm.NOISE_LAST) & (1 << 64 - hm.NOISE_LAST) - 1)
        return z.view(torch.uint8)[:count]

    def entries(self, kind: str, seed: bytes, label: str, count: int) -> Any:
        """`hm.residues` as balanced entries −6 … 6, float32."""
        return (self.noise(kind, seed, label, count) % hm.P).to(self.torch.float32).sub_(hm.P // 2)

    def _wait(self, kind: str) -> None:
        """Until the device has done what was asked of it: kernels are only queued by the calls above."""
        if kind != "cpu":
            self.torch.cuda.synchronize(kind)

    # ----------------------------------------------------------------------------------------------------------- memory

    def fill(self, seed: bytes, chunks: int) -> tuple[Any, float]:
        """Filled memory of all devices: chunk i lies on device i modulo their number, blocks of all chunks in step."""
        torch, began = self.torch, time.process_time()
        memory: list[Any] = [None] * min(len(self.kinds), chunks)

        def share(index: int) -> None:
            mine, kind = range(index, chunks, len(memory)), self.kinds[index]
            held = torch.empty((len(mine), hm.BLOCKS, hm.WORDS), dtype=torch.int64, device=kind)
            for row, chunk in enumerate(mine):
                held[row, 0] = self.noise(kind, seed, f"c{chunk}", hm.BLOCK_BYTES).view(torch.int64)
            places = torch.arange(hm.WORDS, device=kind)
            for block in range(1, hm.BLOCKS):
                last = held[:, block - 1]
                first, second = _turns(torch, last[:, :1])
                turned = last.gather(1, (places + second) % hm.WORDS).bitwise_not_().bitwise_and_(last)
                held[:, block] = last.gather(1, (places + first) % hm.WORDS).bitwise_xor_(turned)
            memory[index] = held.view(len(mine), -1)
            self._wait(kind)

        he.together(share, len(memory))
        return memory, time.process_time() - began if self.kinds == ["cpu"] else 0.0

    def walk(self, memory: Any, seed: bytes, steps: int) -> bytes:
        """See `Plain.walk`: each step is a read from the device that holds the word."""
        per_chunk = hm.CHUNK_BYTES // 8
        words = sum(part.numel() for part in memory)
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
        return memoryview(_bytes(memory[chunk % len(memory)][chunk // len(memory)].cpu()))


def _turns(torch: Any, heads: Any) -> tuple[Any, Any]:
    """`hm.turns` of many first words at once, without a word leaving the device. They are unsigned there: 2⁶⁴ is added
    to negative ones by its remainder.
    """
    wrap = torch.where(heads < 0, 2**64 % (hm.WORDS - 1), 0)
    first = 1 + (heads % (hm.WORDS - 1) + wrap) % (hm.WORDS - 1)
    second = 1 + ((heads >> 24) & (1 << 40) - 1) % (hm.WORDS - 1)
    return first, torch.where(second != first, second, first % (hm.WORDS - 1) + 1)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


def _bytes(tensor: Any) -> bytes:
    """What a tensor on the CPU holds, row by row; torch's own way asks for numpy, which need not be there."""
    whole = tensor.contiguous()
    return ctypes.string_at(whole.data_ptr(), whole.numel() * whole.element_size())
