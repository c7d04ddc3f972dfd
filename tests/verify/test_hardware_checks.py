"""Checks of answers: honest ones always pass, each kind of wrong one is found; with numpy and without."""

from __future__ import annotations

import random
from typing import Any

import numpy
import pytest
from provers import Seeded

from minga.verify import hardware as hw
from minga.verify import hardware_checks as checks
from minga.verify import hardware_engines as he
from minga.verify import hardware_math as hm

SEED = bytes(range(1, 33))
N, LINKS = 32, 5


@pytest.fixture(scope="module")
def answer() -> bytes:
    """The right answer of a small chain."""
    return he.Plain().gemm(SEED, N, N, LINKS)[0]


@pytest.fixture(params=[None, numpy], ids=["plain", "numpy"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the verifier has; every test of this file runs with both."""
    monkeypatch.setitem(globals(), "LIBRARY", request.param)
    return request.param


LIBRARY: Any = None


def judged(values: bytes, seed: bytes = SEED, links: int = LINKS, throw: str = "0") -> bool:
    """Freivalds on these residues."""
    return checks.gemm_is_right(seed, N, N, links, hm.pack(values), Seeded(throw), LIBRARY)


def test_right_answers_pass_whatever_the_dice_say(answer: bytes) -> None:
    assert all(judged(answer, throw=str(number)) for number in range(25))


def test_one_wrong_entry_is_found(answer: bytes) -> None:
    """Four vectors: a lie passes with 12.8⁻⁴, so none of 60 does but with odds of 0.2 %, and the seeds are fixed."""
    for place in range(60):
        wrong = bytearray(answer)
        spot = place * 17 % len(wrong)
        wrong[spot] = (wrong[spot] + 1 + place % 12) % hm.P
        assert not judged(bytes(wrong), throw=f"entry {place}")


def test_one_vector_alone_lets_a_thirteenth_of_lies_pass(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stated odds are the real ones: with t = 1 about 1 in 13 of wrong answers passes."""
    monkeypatch.setattr(checks, "vectors_for", lambda n, numpy: 1)
    wrong = bytes([(answer[0] + 1) % hm.P]) + answer[1:]
    passed = sum(judged(wrong, throw=f"odds {number}") for number in range(400))
    assert 12 <= passed <= 55, passed


@pytest.mark.parametrize("links", [LINKS - 1, LINKS + 1, 1])
def test_a_shorter_or_longer_chain_is_another_answer(links: int) -> None:
    assert not judged(he.Plain().gemm(SEED, N, N, links)[0])


def test_the_answer_to_an_old_challenge_is_wrong_for_a_new_one(answer: bytes) -> None:
    assert not judged(answer, seed=SEED[::-1])


def test_a_chain_with_a_skipped_sign_is_wrong(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hm, "signs", lambda seed, links, n: bytes(links * n))
    forged = he.Plain().gemm(SEED, N, N, LINKS)[0]
    monkeypatch.undo()
    assert forged != answer
    assert not judged(forged)


@pytest.mark.parametrize("opening", [b"", b"\xff" * (N * N // 2), b"\x00" * (N * N // 2 + 1), b"\x00" * (N * N // 2)])
def test_what_is_no_answer_is_wrong(opening: bytes) -> None:
    assert not checks.gemm_is_right(SEED, N, N, LINKS, opening, Seeded("none"), LIBRARY)


@pytest.mark.parametrize(("n", "m", "links"), [(1, 1, 1), (9, 5, 3), (33, 32, 2), (700, 40, 2), (520, 520, 1)])
def test_every_shape_is_judged_right(n: int, m: int, links: int) -> None:
    """Odd sides, fewer columns than rows, and sides from which rows go through the matrix alone, in blocks."""
    opening = he.Numpy(1).opening(SEED, n, m, links)[0]
    assert checks.gemm_is_right(SEED, n, m, links, opening, Seeded("shape"), LIBRARY)
    wrong = bytearray(opening)
    wrong[len(wrong) // 2] ^= 0x10
    assert not checks.gemm_is_right(SEED, n, m, links, bytes(wrong), Seeded("shape"), LIBRARY)


@pytest.mark.parametrize("skipped", range(LINKS))
def test_a_prover_that_skips_any_one_link_is_found(skipped: int) -> None:
    """The whole chain is checked, so that no link may be left out, whichever it is."""
    x = hm.first_matrix(SEED, N, N)
    for link in [link for link in range(LINKS) if link != skipped]:
        x = one_link(x, link)
    assert not judged(x, throw=f"skipped {skipped}")


@pytest.mark.parametrize("first", range(LINKS - 1))
def test_links_in_another_order_are_found(first: int) -> None:
    x = hm.first_matrix(SEED, N, N)
    order = list(range(LINKS))
    order[first], order[first + 1] = order[first + 1], order[first]
    for link in order:
        x = one_link(x, link)
    assert not judged(x, throw=f"order {first}")


def one_link(x: bytes, link: int) -> bytes:
    """A · diag(d) · X for the signs of one link."""
    signs = hm.signs(SEED, LINKS, N)[link * N : (link + 1) * N]
    turned = numpy.frombuffer(x, numpy.uint8).reshape(N, N).astype(numpy.int64)
    turned *= 1 - 2 * numpy.frombuffer(signs, numpy.uint8).astype(numpy.int64)[:, None]
    a = numpy.frombuffer(hm.base_matrix(SEED, N), numpy.uint8).reshape(N, N).astype(numpy.int64)
    return bytes((a @ turned % hm.P).astype(numpy.uint8).tobytes())


def test_links_one_by_one_are_the_chain(answer: bytes) -> None:
    x = hm.first_matrix(SEED, N, N)
    for link in range(LINKS):
        x = one_link(x, link)
    assert x == answer


BYTE_COST = 32
"""Multiply-adds in whose time a byte is drawn, made a number and read: 0.7 ns against 47 a ns (bench_probe.py)."""


def test_checking_is_within_a_twentieth_of_computing() -> None:
    """For the shapes that promises of a tenth of a core, one, 16 cores and accelerators get."""
    for mops in (5_000, 11_999, 12_000, 50_000, 300_000, 2_000_000, 40_000_000, 200_000_000):
        n, links = hw.gemm_shape(mops, hw.ROUND_SECONDS, True)
        m, vectors = hw.columns_of(n), checks.vectors_for(n, numpy)
        checking = vectors * (links * n**2 + 2 * n * m) + BYTE_COST * (n**2 + 2 * n * m)
        assert checking < 0.05 * links * n**2 * m, (mops, n, links)


# -------------------------------------------------------------------------------------------------------------- memory

CHUNKS, STEPS = 2, 600


def walk_judged(
    opening: bytes, throw: str, walk_seed: bytes = SEED[::-1], steps: int = STEPS, samples: int = 4
) -> bool:
    """The check of a walk."""
    seeds = SEED, walk_seed
    return checks.walk_is_right(seeds, CHUNKS, steps, opening, Seeded(throw), samples, LIBRARY)


@pytest.fixture(scope="module")
def memory() -> memoryview:
    """Two filled chunks."""
    filled: memoryview = he.Numpy(1).fill(SEED, CHUNKS)[0]
    return filled


def test_an_honest_walk_passes(memory: memoryview) -> None:
    opening = hm.walk(memory, SEED[::-1], STEPS)
    assert all(walk_judged(opening, str(number)) for number in range(5))


def test_the_first_step_and_the_last_are_among_those_looked_at(memory: memoryview) -> None:
    honest = hm.walk(memory, SEED[::-1], STEPS)
    for step in (0, STEPS - 1):
        wrong = bytearray(honest)
        wrong[4 * step] ^= 1
        assert not walk_judged(bytes(wrong), "all", samples=8 * STEPS)
    assert checks.walk_is_right((SEED, SEED[::-1]), 1, 1, hm.walk(memory[: hm.CHUNK_BYTES], SEED[::-1], 1), Seeded("1"))


def half_walk(memory: memoryview, steps: int, tries: int) -> tuple[bytes, list[bool]]:
    """The walk of a cheat that holds the first half: it makes up each missing word, and chooses among `tries` made-up
    words the one after which it finds the most steps in its own half. Also, which steps are made up.
    """
    words, key, throw = len(memory) // 8, hm.walk_key(SEED[::-1]), random.Random(1)
    held = words // 2

    def good(word: int, step: int) -> int:
        found, index = 0, hm.walk_next(word, step, key, words)
        while index < held and step + found + 1 < steps:
            found += 1
            word = int.from_bytes(memory[8 * index : 8 * index + 4], "little")
            index = hm.walk_next(word, step + found, key, words)
        return found

    out, lies, index = bytearray(), [], hm.walk_next(0, -1, key, words)
    for step in range(steps):
        lies.append(index >= held)
        word = int.from_bytes(memory[8 * index : 8 * index + 4], "little")
        if lies[-1]:
            word = max((throw.getrandbits(32) for _ in range(tries)), key=lambda candidate: good(candidate, step))
        out += word.to_bytes(4, "little")
        index = hm.walk_next(word, step, key, words)
    return bytes(out), lies


@pytest.mark.parametrize(("tries", "share"), [(1, 0.5), (2, 0.38), (16, 0.19), (256, 0.11)])
def test_a_walk_with_made_up_words_is_found_at_the_stated_odds(memory: memoryview, tries: int, share: float) -> None:
    """However it chooses them: with 256 tries for each a cheat makes up one word in nine instead of one in two. What it
    passes with is (1 − f)ˢ; measured on 60 checks of 4 samples, and refused always by as many as the probe takes.
    """
    opening, lies = half_walk(memory, STEPS, tries)
    wrong = sum(lies) / STEPS
    assert wrong == pytest.approx(share, abs=0.05)
    if LIBRARY is not None:  # the same dice give the same steps, and plain Python takes ten times as long
        passed = sum(walk_judged(opening, f"odds {number}") for number in range(60)) / 60
        assert passed == pytest.approx((1 - wrong) ** 4, abs=0.2)
    assert not walk_judged(opening, "probe", samples=checks.WALK_SAMPLES)


def test_a_walk_of_another_seed_or_length_is_wrong(memory: memoryview) -> None:
    opening = hm.walk(memory, SEED[::-1], 64)
    assert walk_judged(opening, "honest", steps=64)
    assert not walk_judged(opening, "seed", walk_seed=SEED, steps=64)
    assert not walk_judged(opening, "length", steps=65)


# ---------------------------------------------------------------------------------------------------------------- disk


def disk_judged(answer: bytes, throw: str, nonce: int = 9) -> bool:
    """The check of two pieces."""
    return checks.disk_is_right(SEED, nonce, 2, answer, Seeded(throw), numpy=LIBRARY)


def test_disk_pieces_are_checked_against_their_content() -> None:
    pieces = [hm.piece_hashes(SEED, 9, hm.chunk_bytes(SEED, chunk)) for chunk in range(2)]
    answer = b"".join(pieces)
    assert all(disk_judged(answer, str(number)) for number in range(6))
    assert not disk_judged(answer, "another nonce", nonce=10)
    assert not disk_judged(b"".join(reversed(pieces)), "swapped")
    assert not disk_judged(answer[:-1], "short")
    made_up = pieces[0] + bytes(hm.DISK_ANSWER_BYTES)
    passed = sum(disk_judged(made_up, f"half {number}") for number in range(60))
    assert passed <= 12, "half of the blocks made up: 2⁻⁴ each"


def test_numbers_below_a_limit() -> None:
    dice = Seeded("below")
    assert {checks.below(dice, 3) for _ in range(60)} == {0, 1, 2}
