"""Whether the answers to hardware challenges are right, for much less than it took to find them.

Knows `hardware_math` and the verifier's secret dice; not who answered or how fast. Rule: what is checked at random is
drawn after the answer was committed to, and a wrong answer passes at most with the odds stated here.

| answer | check                                                                 | a wrong one passes with at most |
|--------|-----------------------------------------------------------------------|---------------------------------|
| gemm   | Freivalds: for secret rows u, u·Xₖ = (((u·A)·dₖ₋₁)·A …)·X₀ modulo 13  | 12.8⁻ᵗ for t vectors            |
| walk   | s steps drawn at random: the word there, from the seed                | (1 − f)ˢ if a share f is wrong  |
| disk   | s pieces drawn at random: their keyed hash                            | (1 − f)ˢ                        |

For one link Freivalds is O(n²); for the whole chain O(n²) a link, with only the last matrix sent: errors in between
cannot cancel unless the last matrix is right, and then nothing was gained by them.
"""

from __future__ import annotations

from typing import Any

from minga.core.effects import Dice
from minga.verify import hardware_engines as he
from minga.verify import hardware_math as hm

WALK_SAMPLES = 8
DISK_SAMPLES = 2


def numpy_or_none() -> Any:
    """numpy, if this process has it: checks are then ten times as fast."""
    try:
        import numpy  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    return numpy


def vectors_for(n: int, numpy: Any) -> int:
    """How many Freivalds vectors are worth their time: a lie passes with 12.8⁻ᵗ."""
    if numpy is not None:
        return 8
    return 4 if n <= 1024 else 2


def gemm_is_right(seed: bytes, n: int, m: int, links: int, opening: bytes, dice: Dice, numpy: Any = None) -> bool:
    """Whether `opening` is the packed answer of the chain.

    Args:
        seed: of the challenge.
        n, m, links: its shape.
        opening: what the prover had committed to.
        dice: the verifier's own; the prover must not know what they gave before it committed.
        numpy: the module, to be fast.
    """
    try:
        answer = hm.unpack(opening, n * m)
    except ValueError:
        return False
    count = vectors_for(n, numpy)
    secret = hm.residues(dice.bytes(32), "u", count * n)
    check = _by_numpy if numpy is not None else _by_rows
    return check(seed, (n, m, links), answer, secret, numpy)


def _by_rows(seed: bytes, shape: tuple[int, int, int], answer: bytes, secret: bytes, _: Any) -> bool:
    n, m, links = shape
    packed = _rows(hm.base_matrix(seed, n), n)
    first, last = _rows(hm.first_matrix(seed, n, m), m), _rows(answer, m)
    turns = [hm.signs(seed, link, n) for link in range(links)]
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


def _by_numpy(seed: bytes, shape: tuple[int, int, int], answer: bytes, secret: bytes, np: Any) -> bool:
    n, m, links = shape

    def matrix(data: bytes, width: int) -> Any:
        return np.frombuffer(data, np.uint8).reshape(-1, width).astype(np.float32)

    a, u = matrix(hm.base_matrix(seed, n), n), matrix(secret, n)
    wanted = (u @ matrix(answer, m)) % hm.P
    for link in reversed(range(links)):
        u = (u @ a) % hm.P
        u *= 1 - 2 * matrix(hm.signs(seed, link, n), n)
        u %= hm.P
    return bool(((u @ matrix(hm.first_matrix(seed, n, m), m)) % hm.P == wanted).all())


def walk_is_right(
    fill_seed: bytes, walk_seed: bytes, chunks: int, steps: int, opening: bytes, dice: Dice, samples: int = WALK_SAMPLES
) -> bool:
    """Whether the walk through memory filled from `fill_seed` met the words that are there."""
    if len(opening) != steps * hm.WALK_BYTES:
        return False
    words = chunks * hm.CHUNK_BYTES // 8
    wanted = {below(dice, steps) for _ in range(samples)}
    key = hm.walk_key(walk_seed)
    index = hm.walk_next(0, -1, key, words)
    for step in range(steps):
        word = int.from_bytes(opening[step * hm.WALK_BYTES : (step + 1) * hm.WALK_BYTES], "little")
        if step in wanted and hm.word_at(fill_seed, index) & 0xFFFFFFFF != word:
            return False
        index = hm.walk_next(word, step, key, words)
    return True


def disk_is_right(
    seed: bytes, nonce: int, chunks: int, opening: bytes, dice: Dice, samples: int = DISK_SAMPLES
) -> bool:
    """Whether the pieces that were read back are those that were ordered."""
    if len(opening) != 16 * chunks:
        return False
    for chunk in {below(dice, chunks) for _ in range(samples)}:
        if opening[16 * chunk : 16 * chunk + 16] != hm.piece_hash(seed, nonce, hm.chunk_bytes(seed, chunk)):
            return False
    return True


def below(dice: Dice, limit: int) -> int:
    """A number 0 … limit − 1."""
    return int.from_bytes(dice.bytes(8), "little") % limit
