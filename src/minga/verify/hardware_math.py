"""What a hardware challenge means, to the byte: matrices, chains, memory chunks, walks, disk pieces.

Prover and verifier share this file; it is also shipped into the sandbox, so it imports the standard library alone. It
knows neither devices nor time. Rule: everything follows from a seed, so that nothing has a structure that would allow
a shortcut; what comes in megabytes follows by `noise`, which every device makes for itself faster than it reads it.

| challenge | definition                                                                                            |
|-----------|-------------------------------------------------------------------------------------------------------|
| gemm      | A is n × n, X₀ is n × m, m ≤ n, entries −6 … 6; Xₖ₊₁ = (A · diag(dₖ) · Xₖ) reduced mod 13 to −6 … 6,    |
|           | dₖ a vector of signs; the answer is X after K links, |A·X| ≤ 36 n < 2²⁴                                |
| fill      | chunks of 4 MiB: block 0 is noise, each later block from all of the one before it (below)             |
| walk      | a word is read; the next index follows from it, from the step and from the seed: one after the other  |
| disk      | the chunks written, synced, read back; the answer is a keyed hash of each of their blocks             |

Why m ≤ n: the chain is linear over F₁₃, so for m > n one would first multiply the matrices of the chain together.
Why signs: without them K links would be the power Aᴷ, which squaring finds in 2·log₂ K products.

Noise is counted, not cryptographic: word i of a stream is SplitMix64's finaliser (Steele, Lea, Flood 2014; constants of
Stafford's variant 13) of key + (i + 1)·φ, the key being 8 bytes of SHAKE128 of label and seed. The seed is the
verifier's and is told to the prover, so nothing here needs to be unforeseeable once it is known; it must only have no
structure over F₁₃, and the multiplications modulo 2⁶⁴ with the shifts between them leave none. An entry is a byte of it
modulo 13, less 6: −6 … 2 come 20 times in 256 and 3 … 6 come 19 times, which makes no product cheaper.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

P = 13
CHUNK_BYTES = 4 << 20
BLOCK_BYTES = 1 << 16
BLOCKS = CHUNK_BYTES // BLOCK_BYTES
WORDS = BLOCK_BYTES // 8
WALK_BYTES = 4
PIECE_HASH_BYTES = 16
DISK_ANSWER_BYTES = BLOCKS * PIECE_HASH_BYTES
"""For each chunk that was written and read back."""
_BITS = BLOCK_BYTES * 8
_MASK = (1 << _BITS) - 1
_RESIDUE = bytes((byte % P - P // 2) % P for byte in range(256))
_SIGN = bytes(byte & 1 for byte in range(256))
_MIX = 0x9E3779B97F4A7C15
NOISE_STEP = _MIX
NOISE_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
"""Shift right and xor, multiply; twice. Then once more shift and xor, by `NOISE_LAST`."""
NOISE_LAST = 31
_LANE = 128
_LANES = 8192
_PIECE = 1 << 20


def stream(seed: bytes, label: str, count: int) -> bytes:
    """`count` bytes of SHAKE128 over `label` and `seed`: each label is a stream of its own."""
    return hashlib.shake_128(label.encode() + b"\0" + seed).digest(count)


def noise_key(seed: bytes, label: str) -> int:
    """Where a stream of noise begins: 64 bits."""
    return int.from_bytes(stream(seed, label, 8), "little")


def noise(seed: bytes, label: str, count: int) -> bytes:
    """`count` bytes of noise (see the module's docstring), in plain Python: words in lanes of 128 bits of one integer,
    so that one operation does thousands. About 100 MB/s.
    """
    key, found = noise_key(seed, label), []
    for start in range(0, -(-count // 8), _LANES):
        lanes = min(_LANES, -(-count // 8) - start)
        ones, ramp, mask = _ramps(lanes)
        z = ramp + ones * ((key + start * NOISE_STEP) & (2**64 - 1)) & mask
        for shift, factor in NOISE_ROUNDS:
            z = (z ^ z >> shift & mask) * factor & mask
        z ^= z >> NOISE_LAST & mask
        found.append(array("Q", z.to_bytes(_LANE // 8 * lanes, "little"))[::2].tobytes())
    return b"".join(found)[:count]


@lru_cache(maxsize=8)
def _ramps(lanes: int) -> tuple[int, int, int]:
    """For so many lanes: 1 in each, (i + 1)·φ mod 2⁶⁴ in lane i, and 64 ones in each."""

    def packed(values: list[int]) -> int:
        wide = array("Q", bytes(16 * lanes))
        wide[::2] = array("Q", values)
        return int.from_bytes(wide.tobytes(), "little")

    steps = [(lane + 1) * NOISE_STEP & (2**64 - 1) for lane in range(lanes)]
    return packed([1] * lanes), packed(steps), packed([2**64 - 1] * lanes)


def residues(seed: bytes, label: str, count: int) -> bytes:
    """`count` entries as residues 0 … 12 (r > 6 stands for r − 13)."""
    return noise(seed, label, count).translate(_RESIDUE)


def base_matrix(seed: bytes, n: int) -> bytes:
    """A, n × n, row by row, as residues."""
    return residues(seed, "A", n * n)


def first_matrix(seed: bytes, n: int, m: int) -> bytes:
    """X₀, n × m, row by row, as residues."""
    return residues(seed, "X", n * m)


def signs(seed: bytes, links: int, n: int) -> bytes:
    """d₀ … of all links, n bytes each: 0 for +1, 1 for −1."""
    return noise(seed, "d", links * n).translate(_SIGN)


def pack(values: bytes) -> bytes:
    """Residues two to a byte, high half first; an odd last one gets 0 beside it."""
    padded = values + b"\0" * (len(values) % 2)
    high, low = int.from_bytes(padded[0::2], "little"), int.from_bytes(padded[1::2], "little")
    return (high << 4 | low).to_bytes(len(padded) // 2 + 1, "little")[: len(padded) // 2]


def unpack(data: bytes, count: int) -> bytes:
    """The residues of `pack`. Raises ValueError: another length, or a value over 12."""
    if len(data) != (count + 1) // 2:
        raise ValueError(f"{len(data)} bytes do not hold {count} residues")
    values = bytearray(2 * len(data))
    values[0::2] = data.translate(bytes(byte >> 4 for byte in range(256)))
    values[1::2] = data.translate(bytes(byte & 15 for byte in range(256)))
    if values and max(values) >= P:
        raise ValueError("a residue is over 12")
    return bytes(values[:count])


def digest(data: bytes, threads: int = 1) -> str:
    """What commits to an opening before it is sent: BLAKE2b over the BLAKE2b of each MiB of it, 32 bytes, hex.

    `threads` work at once: an accelerator's answer is of some ten MB, and its clock is running.
    """
    pieces = [memoryview(data)[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
    if threads > 1 and len(pieces) > 1:
        with ThreadPoolExecutor(min(threads, len(pieces))) as pool:
            found = list(pool.map(_hash, pieces))
    else:
        found = [_hash(piece) for piece in pieces]
    return _hash(b"".join(found)).hex()


def _hash(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


# ------------------------------------------------------------------------------------------------------------- memory


def first_block(seed: bytes, chunk: int) -> bytes:
    """Block 0 of a chunk."""
    return noise(seed, f"c{chunk}", BLOCK_BYTES)


def turns(first_word: int) -> tuple[int, int]:
    """By how many words the next block turns the last one, from that one's own first word: 1 … 8191, and not equal."""
    first = 1 + first_word % (WORDS - 1)
    second = 1 + (first_word >> 24) % (WORDS - 1)
    return first, second if second != first else first % (WORDS - 1) + 1


def next_block(block: int) -> int:
    """The block after `block`, both as little-endian integers: turn₁(B) xor (B and not turn₂(B)).

    A word depends on three of the block before, so on all 8192 of nine blocks before: a missing word costs its chunk
    up to there.
    """
    first, second = turns(block & (2**64 - 1))
    return _turned(block, first) ^ (block & (_MASK ^ _turned(block, second)))


def _turned(block: int, words: int) -> int:
    bits = words * 64
    return block >> bits | (block << (_BITS - bits)) & _MASK


def chunk_blocks(seed: bytes, chunk: int, count: int = BLOCKS) -> list[int]:
    """The first `count` blocks of a chunk as integers, in plain Python."""
    blocks = [int.from_bytes(first_block(seed, chunk), "little")]
    while len(blocks) < count:
        blocks.append(next_block(blocks[-1]))
    return blocks


def chunk_bytes(seed: bytes, chunk: int) -> bytes:
    """A whole chunk, in plain Python."""
    return b"".join(block.to_bytes(BLOCK_BYTES, "little") for block in chunk_blocks(seed, chunk))


def place_of(index: int) -> tuple[int, int, int]:
    """Where the 64-bit word `index` of filled memory lies: chunk, block, and word of that block."""
    block, word = divmod(index, WORDS)
    return *divmod(block, BLOCKS), word


def word_at(seed: bytes, index: int) -> int:
    """The 64-bit word `index` of filled memory, from the seed alone; computes its chunk up to its block."""
    chunk, block, word = place_of(index)
    return chunk_blocks(seed, chunk, block + 1)[-1] >> (word * 64) & (2**64 - 1)


def walk_key(seed: bytes) -> int:
    """What makes every step of a walk another than in any earlier walk."""
    return int.from_bytes(stream(seed, "w", 8), "little")


def walk_next(word: int, step: int, key: int, words: int) -> int:
    """The index after `step`, where the low half of a word was `word`; the walk begins after step −1 with word 0."""
    mixed = (word ^ step & 0xFFFFFFFF ^ key) * _MIX & (2**64 - 1)
    return (mixed ^ mixed >> 29) % words


def walk(memory: memoryview, seed: bytes, steps: int) -> bytes:
    """The low 4 bytes of each word that the walk meets; `memory` is filled and in bytes."""
    words, key, out = len(memory) // 8, walk_key(seed), bytearray()
    index = walk_next(0, -1, key, words)
    read = struct.Struct("<Q").unpack_from
    for step in range(steps):
        word = read(memory, index * 8)[0]
        out += (word & 0xFFFFFFFF).to_bytes(WALK_BYTES, "little")
        index = walk_next(word & 0xFFFFFFFF, step, key, words)
    return bytes(out)


# --------------------------------------------------------------------------------------------------------------- disk


def piece_hashes(seed: bytes, nonce: int, data: bytes | memoryview) -> bytes:
    """The answer for a chunk, or a block of one, that was read back: 16 bytes for each block, keyed by seed and nonce
    so that none can be kept.
    """
    key, view = stream(seed, f"p{nonce}", 32), memoryview(data)
    pieces = [view[start : start + BLOCK_BYTES] for start in range(0, len(view), BLOCK_BYTES)]
    return b"".join(hashlib.blake2b(piece, digest_size=PIECE_HASH_BYTES, key=key).digest() for piece in pieces)
