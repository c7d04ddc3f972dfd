"""Whether the answers to hardware challenges are right, for much less than it took to find them.

Knows `hardware_math` and the verifier's secret dice; not who answered or how fast. Rule: what is checked at random is
drawn after the answer was committed to, and a wrong answer passes at most with the odds stated here.

| answer | check                                                                 | a wrong one passes with at most |
|--------|-----------------------------------------------------------------------|---------------------------------|
| gemm   | Freivalds: for secret rows u, u·Xₖ = (((u·A)·dₖ₋₁)·A …)·X₀ modulo 13  | 12.8⁻ᵗ for t vectors            |
| walk   | s steps drawn at random: the word there, from the seed                | (1 − f)ˢ if a share f is wrong  |
| disk   | s blocks drawn at random: their keyed hash                            | (1 − f)ˢ                        |

For one link Freivalds is O(n²); for the whole chain O(n²) a link, with only the last matrix sent: errors in between
cannot cancel unless the last matrix is right, and then nothing was gained by them. So no link is sampled, and none can
be skipped: commitments to each link would cost the prover n² bytes of hashing a link, and a cheat that skips one link
of K would be seen with s / K only (benches/LOG.md).

With numpy the check takes under 5 % of the prover's CPU time (docs/probe.md): matrices are drawn at some GB/s, rows go
through A one by one where A is larger than the caches (a BLAS copies A anew for each product of few rows), and A alone
is held whole.
"""

from __future__ import annotations

from typing import Any

from minga.core.effects import Dice
from minga.verify import hardware_engines as he
from minga.verify import hardware_math as hm

ROWS_ALONE_FROM = 512
"""From this side on A is larger than a core's own cache."""
BLOCK_ENTRIES = 1 << 18
"""Of a matrix that is used once, so many entries are made float32 at a time."""
WALK_SAMPLES = 24
DISK_SAMPLES = 4


def numpy_or_none() -> Any:
    """numpy, if this process has it: checks are then ten times as fast."""
    try:
        import numpy  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    return numpy


def vectors_for(n: int, numpy: Any) -> int:
    """How many Freivalds vectors are worth their time: a lie passes with 12.8⁻ᵗ."""
    return 4 if numpy is not None or n <= 1024 else 2


def gemm_is_right(seed: bytes, n: int, m: int, links: int, opening: bytes, dice: Dice, numpy: Any = None) -> bool:
    """Whether `opening` is the packed answer of the chain.

    Args:
        seed: of the challenge.
        n, m, links: its shape.
        opening: what the prover had committed to.
        dice: the verifier's own; the prover must not know what they gave before it committed.
        numpy: the module, to be fast.
    """
    secret = dice.bytes(32)
    if numpy is not None:
        return _by_numpy(seed, (n, m, links), opening, secret, numpy)
    return _by_rows(seed, (n, m, links), opening, hm.residues(secret, "u", vectors_for(n, None) * n))


def _by_rows(seed: bytes, shape: tuple[int, int, int], opening: bytes, secret: bytes) -> bool:
    n, m, links = shape
    try:
        answer = hm.unpack(opening, n * m)
    except ValueError:
        return False
    packed = _rows(hm.base_matrix(seed, n), n)
    first, last = _rows(hm.first_matrix(seed, n, m), m), _rows(answer, m)
    signs = hm.signs(seed, links, n)
    turns = [signs[link * n : (link + 1) * n] for link in range(links)]
    for start in range(0, len(secret), n):
        u = secret[start : start + n]
        wanted = he.combine(u, last, m)
        for d in reversed(turns):
            u = bytes([-x % hm.P if sign else x for x, sign in zip(he.combine(u, packed, n), d, strict=True)])
        if he.combine(u, first, m) != wanted:
            return False
    return True


def _rows(matrix: bytes, width: int) -> list[int]:
    return [he.pack_fields(matrix[start : start + width]) for start in range(0, len(matrix), width)]


def _by_numpy(seed: bytes, shape: tuple[int, int, int], opening: bytes, secret: bytes, np: Any) -> bool:
    n, m, links = shape
    if len(opening) != (n * m + 1) // 2:
        return False
    pairs = np.frombuffer(opening, np.uint8)
    answer = np.stack([pairs >> 4, pairs & 15], axis=1).reshape(-1)[: n * m]
    if answer.size and int(answer.max()) >= hm.P:
        return False
    u = he.numpy_entries(np, secret, "u", vectors_for(n, np) * n).reshape(-1, n).astype(np.float32)
    # |u| ≤ 6 and residues ≤ 12: sums stay below 72 n < 2²⁴.
    wanted = _through(np, u, answer.reshape(n, m))
    a = he.numpy_entries(np, seed, "A", n * n).reshape(n, n).astype(np.float32)
    spare = np.empty_like(u)
    for d in he.numpy_signs(np, seed, links, n)[::-1]:
        u = _times(np, u, a)
        he.numpy_reduce(np, u, spare)
        u *= d
    del a
    found = _through(np, u, he.numpy_entries(np, seed, "X", n * m).reshape(n, m))
    return bool(((found - wanted) % hm.P == 0).all())


def _through(np: Any, u: Any, matrix: Any) -> Any:
    """u times a matrix of bytes, some rows of it at a time."""
    rows = max(1, BLOCK_ENTRIES // matrix.shape[1])
    total = np.zeros((len(u), matrix.shape[1]), np.float32)
    for start in range(0, len(matrix), rows):
        part = matrix[start : start + rows].astype(np.float32)
        total += _times(np, np.ascontiguousarray(u[:, start : start + rows]), part)
    return total


def _times(np: Any, u: Any, matrix: Any) -> Any:
    """u times a matrix, row by row where the matrix is larger than a core's own cache."""
    if matrix.size < ROWS_ALONE_FROM**2:
        return u @ matrix
    return np.stack([row @ matrix for row in u])


def walk_is_right(
    seeds: tuple[bytes, bytes],
    chunks: int,
    steps: int,
    opening: bytes,
    dice: Dice,
    samples: int = WALK_SAMPLES,
    numpy: Any = None,
) -> bool:
    """Whether the walk through memory met the words that are there.

    Where a step must have read follows from the word that the answer claims for the step before it, so that only the
    sampled words are computed: a share f of wrong words is found however they hang together.

    Args:
        seeds: of the filling, and of the walk.
        chunks, steps: how large the memory is, and how long the walk.
        opening: what the prover had committed to.
        dice: the verifier's own.
        samples: how many steps are looked at; one twice counts once.
        numpy: the module, to be fast.
    """
    if len(opening) != steps * hm.WALK_BYTES:
        return False
    words, key = chunks * hm.CHUNK_BYTES // 8, hm.walk_key(seeds[1])

    def claimed(step: int) -> int:
        return int.from_bytes(opening[step * hm.WALK_BYTES : (step + 1) * hm.WALK_BYTES], "little") if step >= 0 else 0

    for step in {below(dice, steps) for _ in range(samples)}:
        index = hm.walk_next(claimed(step - 1), step - 1, key, words)
        if _word_at(seeds[0], index, numpy) & 0xFFFFFFFF != claimed(step):
            return False
    return True


def _word_at(seed: bytes, index: int, np: Any) -> int:
    if np is None:
        return hm.word_at(seed, index)
    chunk, block, word = hm.place_of(index)
    return int(he.numpy_block(np, seed, chunk, block)[word])


def disk_is_right(
    seed: bytes, nonce: int, chunks: int, opening: bytes, dice: Dice, samples: int = DISK_SAMPLES, numpy: Any = None
) -> bool:
    """Whether what was read back is what was ordered: the hashes of blocks drawn at random."""
    size = hm.PIECE_HASH_BYTES
    if len(opening) != chunks * hm.DISK_ANSWER_BYTES:
        return False
    for piece in {below(dice, chunks * hm.BLOCKS) for _ in range(samples)}:
        chunk, block = divmod(piece, hm.BLOCKS)
        if numpy is not None:
            data = he.numpy_block(numpy, seed, chunk, block).tobytes()
        else:
            data = hm.chunk_blocks(seed, chunk, block + 1)[-1].to_bytes(hm.BLOCK_BYTES, "little")
        if opening[size * piece : size * piece + size] != hm.piece_hashes(seed, nonce, data):
            return False
    return True


def below(dice: Dice, limit: int) -> int:
    """A number 0 … limit − 1."""
    return int.from_bytes(dice.bytes(8), "little") % limit
