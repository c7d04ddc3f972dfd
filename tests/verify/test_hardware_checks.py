"""Checks of answers: honest ones always pass, each kind of wrong one is found."""

from __future__ import annotations

import pytest
from provers import Seeded

from minga.verify import hardware_checks as checks
from minga.verify import hardware_engines as he
from minga.verify import hardware_math as hm

SEED = bytes(range(1, 33))
N, LINKS = 32, 5


@pytest.fixture(scope="module")
def answer() -> bytes:
    """The right answer of a small chain."""
    return he.Plain().gemm(SEED, N, N, LINKS)[0]


def judged(values: bytes, seed: bytes = SEED, links: int = LINKS, throw: str = "0") -> bool:
    """Freivalds on these residues."""
    return checks.gemm_is_right(seed, N, N, links, hm.pack(values), Seeded(throw))


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
    monkeypatch.setattr(hm, "signs", lambda seed, link, n: bytes(n))
    forged = he.Plain().gemm(SEED, N, N, LINKS)[0]
    monkeypatch.undo()
    assert forged != answer
    assert not judged(forged)


@pytest.mark.parametrize("opening", [b"", b"\xff" * (N * N // 2), b"\x00" * (N * N // 2 + 1), b"\x00" * (N * N // 2)])
def test_what_is_no_answer_is_wrong(opening: bytes) -> None:
    assert not checks.gemm_is_right(SEED, N, N, LINKS, opening, Seeded("none"))


def test_checking_costs_far_fewer_products_than_computing() -> None:
    """In multiply-adds, for the sizes that units of one core, 16 cores and an accelerator get."""
    for n, links in ((512, 48), (1024, 60), (8192, 37)):
        vectors = checks.vectors_for(n, None)
        assert vectors * (links + 2) * n**2 / (links * n**3) < 0.01


def walked(chunks: int, steps: int) -> bytes:
    """An honest walk."""
    engine = he.Plain()
    return engine.walk(engine.fill(SEED, chunks)[0], SEED[::-1], steps)


def test_an_honest_walk_passes() -> None:
    opening = walked(2, 300)
    assert all(checks.walk_is_right(SEED, SEED[::-1], 2, 300, opening, Seeded(str(i)), 2) for i in range(4))


def test_a_walk_over_words_that_are_not_there_is_found() -> None:
    """A prover with half of the memory that makes up the rest; the check replays the path that it claims."""
    held = bytearray(he.Plain().fill(SEED, 1)[0]) + bytearray(hm.CHUNK_BYTES)
    opening = hm.walk(memoryview(held), SEED[::-1], 300)
    found = [checks.walk_is_right(SEED, SEED[::-1], 2, 300, opening, Seeded(f"half {i}")) for i in range(6)]
    assert not any(found), "each passes with at most 2⁻⁸"


def test_a_walk_of_another_seed_or_length_is_wrong() -> None:
    opening = walked(1, 64)
    assert not checks.walk_is_right(SEED, SEED, 1, 64, opening, Seeded("seed"))
    assert not checks.walk_is_right(SEED, SEED[::-1], 1, 65, opening, Seeded("length"))


def test_disk_pieces_are_checked_against_their_content() -> None:
    pieces = [hm.piece_hash(SEED, 9, hm.chunk_bytes(SEED, chunk)) for chunk in range(2)]
    assert checks.disk_is_right(SEED, 9, 2, b"".join(pieces), Seeded("disk"))
    assert not checks.disk_is_right(SEED, 10, 2, b"".join(pieces), Seeded("another nonce"))
    assert not checks.disk_is_right(SEED, 9, 2, b"".join(reversed(pieces)), Seeded("swapped"))
    assert not checks.disk_is_right(SEED, 9, 2, b"".join(pieces)[:-1], Seeded("short"))


def test_numbers_below_a_limit() -> None:
    dice = Seeded("below")
    assert {checks.below(dice, 3) for _ in range(60)} == {0, 1, 2}
