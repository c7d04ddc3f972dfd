"""The definitions of challenges: streams, packing, chains, memory chunks, walks; and that nothing has a shortcut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provers import Seeded

from minga.verify import hardware_checks as checks
from minga.verify import hardware_engines as he
from minga.verify import hardware_math as hm

SEED = bytes(range(32))


def balanced(residue: int) -> int:
    """−6 … 6 for 0 … 12."""
    return residue - hm.P if residue > hm.P // 2 else residue


def chain_by_definition(seed: bytes, n: int, m: int, links: int) -> bytes:
    """The chain as the module's table says it, with integers and three loops."""
    a = [[balanced(value) for value in hm.base_matrix(seed, n)[i * n : (i + 1) * n]] for i in range(n)]
    x = [[balanced(value) for value in hm.first_matrix(seed, n, m)[i * m : (i + 1) * m]] for i in range(n)]
    for link in range(links):
        d = [1 - 2 * sign for sign in hm.signs(seed, links, n)[link * n : (link + 1) * n]]
        product = [[sum(a[i][k] * d[k] * x[k][j] for k in range(n)) for j in range(m)] for i in range(n)]
        assert max(abs(value) for row in product for value in row) <= 36 * n
        x = [[balanced(value % hm.P) for value in row] for row in product]
    return bytes(value % hm.P for row in x for value in row)


def test_streams_are_apart_by_label_and_seed() -> None:
    assert hm.stream(SEED, "A", 64) != hm.stream(SEED, "X", 64)
    assert hm.stream(SEED, "A", 64) != hm.stream(SEED[::-1], "A", 64)
    assert hm.stream(SEED, "A", 64)[:10] == hm.stream(SEED, "A", 10)


def noise_by_definition(seed: bytes, label: str, count: int) -> bytes:
    """SplitMix64's finaliser of key + (i + 1)·φ, word by word."""
    key, out = int.from_bytes(hm.stream(seed, label, 8), "little"), b""
    for index in range(-(-count // 8)):
        z = (key + (index + 1) * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        out += (z ^ z >> 31).to_bytes(8, "little")
    return out[:count]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 64, 8191, 65_536, 65_537, 131_080])
def test_noise_is_what_its_definition_says(count: int) -> None:
    assert hm.noise(SEED, "A", count) == noise_by_definition(SEED, "A", count)


def test_noise_is_splitmix64(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first words for the seed 1234567, as published with the generator (Rosetta Code, "Pseudo-random numbers/
    Splitmix64").
    """
    monkeypatch.setattr(hm, "noise_key", lambda seed, label: 1234567)
    found = hm.noise(SEED, "A", 40)
    assert [int.from_bytes(found[8 * i : 8 * i + 8], "little") for i in range(5)] == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip


def test_noise_is_apart_by_label_and_seed() -> None:
    assert hm.noise(SEED, "A", 64) != hm.noise(SEED, "X", 64)
    assert hm.noise(SEED, "A", 64) != hm.noise(SEED[::-1], "A", 64)
    assert hm.noise(SEED, "A", 64)[:10] == hm.noise(SEED, "A", 10)


def test_entries_are_as_even_as_stated() -> None:
    """A byte modulo 13, less 6: −6 … 2 come 20 times in 256, 3 … 6 come 19 times; 260,000 draws, five sigma."""
    found = hm.residues(SEED, "A", 260_000)
    assert max(found) == 12
    for entry in range(-6, 7):
        share = (20 if entry <= 2 else 19) / 256
        assert abs(found.count(bytes([entry % hm.P])) - 260_000 * share) < 5 * (260_000 * share) ** 0.5, entry


@given(st.binary(max_size=200).map(lambda data: bytes(byte % hm.P for byte in data)))
def test_packing_gives_back_what_was_packed(values: bytes) -> None:
    packed = hm.pack(values)
    assert len(packed) == (len(values) + 1) // 2
    assert hm.unpack(packed, len(values)) == values


@pytest.mark.parametrize(("data", "count"), [(b"\xd0", 2), (b"\x0d", 2), (b"", 1), (b"\x00\x00", 2)])
def test_what_is_no_packing_is_refused(data: bytes, count: int) -> None:
    with pytest.raises(ValueError, match="residue"):
        hm.unpack(data, count)


@pytest.mark.parametrize(("n", "m", "links"), [(1, 1, 1), (3, 2, 4), (16, 16, 3), (20, 7, 2)])
def test_plain_python_computes_the_chain_of_the_definition(n: int, m: int, links: int) -> None:
    assert he.Plain().gemm(SEED, n, m, links)[0] == chain_by_definition(SEED, n, m, links)


def test_a_long_row_is_summed_in_parts_that_fit_their_fields() -> None:
    """Over 455 rows a 16-bit field would overflow in one sum: 600 times 12 · 12."""
    rows = [he.pack_fields(bytes([12, 12])) for _ in range(600)]
    assert he.combine(bytes([12] * 600), rows, 2) == bytes([600 * 144 % hm.P] * 2)


def test_the_signs_of_links_differ() -> None:
    both = hm.signs(SEED, 2, 256)
    assert both[:256] != both[256:]
    assert 90 < sum(both[:256]) < 166
    assert set(both) == {0, 1}


# --------------------------------------------------------------------------------------------- structure, and shortcuts


def hankel(n: int) -> list[bytes]:
    """A matrix with A[i, j] = f(i + j)."""
    f = hm.residues(SEED, "f", 2 * n)
    return [f[i : i + n] for i in range(n)]


def fast_product(first_row: bytes, last_column: bytes, x: bytes) -> bytes:
    """A·x for a Hankel matrix from 2n − 1 of its entries, by one multiplication of integers: no n² work at all."""
    n = len(first_row)
    f = first_row + last_column[1:]
    wide = 4
    left = int.from_bytes(b"".join(value.to_bytes(wide, "little") for value in f), "little")
    right = int.from_bytes(b"".join(value.to_bytes(wide, "little") for value in reversed(x)), "little")
    product = (left * right).to_bytes(wide * (3 * n), "little")
    fields = [int.from_bytes(product[wide * k : wide * (k + 1)], "little") for k in range(n - 1, 2 * n - 1)]
    return bytes(value % hm.P for value in fields)


def slow_product(rows: list[bytes], x: bytes) -> bytes:
    """A·x by the definition."""
    return bytes(sum(a * b for a, b in zip(row, x, strict=True)) % hm.P for row in rows)


def rank(rows: list[list[int]]) -> int:
    """Over F₁₃, by elimination."""
    rows, found = [row[:] for row in rows], 0
    for column in range(len(rows[0])):
        pivot = next((i for i in range(found, len(rows)) if rows[i][column] % hm.P), None)
        if pivot is None:
            continue
        rows[found], rows[pivot] = rows[pivot], rows[found]
        inverse = pow(rows[found][column], -1, hm.P)
        for i in range(found + 1, len(rows)):
            factor = rows[i][column] * inverse % hm.P
            if factor:
                rows[i] = [(x - factor * y) % hm.P for x, y in zip(rows[i], rows[found], strict=True)]
        found += 1
    return found


def displacement(rows: list[bytes]) -> list[list[int]]:
    """A[i + 1, j] − A[i, j + 1]: zero everywhere for Hankel, of low rank for Toeplitz- and Cauchy-like matrices."""
    n = len(rows)
    return [[rows[i + 1][j] - rows[i][j + 1] for j in range(n - 1)] for i in range(n - 1)]


def test_a_structured_matrix_allows_the_shortcut_and_ours_does_not() -> None:
    n = 48
    x = hm.residues(SEED, "v", n)
    structured = hankel(n)
    ours = [hm.base_matrix(SEED, n)[i * n : (i + 1) * n] for i in range(n)]
    for rows, works in ((structured, True), (ours, False)):
        guess = fast_product(rows[0], bytes(row[-1] for row in rows), x)
        assert (guess == slow_product(rows, x)) is works
    assert rank(displacement(structured)) == 0
    assert rank(displacement(ours)) >= n - 3


def test_an_answer_by_the_shortcut_is_found_wrong() -> None:
    n = 24
    a, x = hm.base_matrix(SEED, n), hm.first_matrix(SEED, n, n)
    d = hm.signs(SEED, 1, n)
    columns = [bytes(-x[k * n + j] % hm.P if d[k] else x[k * n + j] for k in range(n)) for j in range(n)]
    last = bytes(a[i * n + n - 1] for i in range(n))
    guessed = [fast_product(a[:n], last, column) for column in columns]
    answer = bytes(guessed[j][i] for i in range(n) for j in range(n))
    honest = chain_by_definition(SEED, n, n, 1)
    assert answer[:n] == honest[:n], "the first row of a Hankel guess is right, so the forgery is not mere noise"
    assert not checks.gemm_is_right(SEED, n, n, 1, hm.pack(answer), Seeded("shortcut"))
    assert checks.gemm_is_right(SEED, n, n, 1, hm.pack(honest), Seeded("shortcut"))


def test_signs_stop_the_squaring_of_a_power() -> None:
    """Without them K links are Aᴷ·X₀, which 2·log₂ K products find; with them that gives another answer."""
    n, links = 12, 4
    a = [list(hm.base_matrix(SEED, n)[i * n : (i + 1) * n]) for i in range(n)]
    x = [list(hm.first_matrix(SEED, n, n)[i * n : (i + 1) * n]) for i in range(n)]

    def times(left: list[list[int]], right: list[list[int]]) -> list[list[int]]:
        return [[sum(left[i][k] * right[k][j] for k in range(n)) % hm.P for j in range(n)] for i in range(n)]

    square = times(a, a)
    guess = bytes(value for row in times(times(square, square), x) for value in row)
    assert guess != chain_by_definition(SEED, n, n, links)


# ------------------------------------------------------------------------------------------------------------- memory


def test_a_chunk_follows_from_its_seed_and_number() -> None:
    chunk = hm.chunk_bytes(SEED, 3)
    assert len(chunk) == hm.CHUNK_BYTES
    assert chunk[: hm.BLOCK_BYTES] == hm.first_block(SEED, 3)
    assert chunk != hm.chunk_bytes(SEED, 4)


def test_a_block_is_the_turned_one_before_it_with_what_the_other_turn_lets_through() -> None:
    head = hm.first_block(SEED, 0)
    words = [int.from_bytes(head[8 * i : 8 * i + 8], "little") for i in range(hm.WORDS)]
    first, second = hm.turns(words[0])
    wanted = [
        words[(i + first) % hm.WORDS] ^ (words[i] & ~words[(i + second) % hm.WORDS] & (2**64 - 1))
        for i in range(hm.WORDS)
    ]
    block = hm.next_block(int.from_bytes(head, "little")).to_bytes(hm.BLOCK_BYTES, "little")
    assert [int.from_bytes(block[8 * i : 8 * i + 8], "little") for i in range(hm.WORDS)] == wanted


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_turns_are_two_different_ones(word: int) -> None:
    first, second = hm.turns(word)
    assert 1 <= first < hm.WORDS
    assert 1 <= second < hm.WORDS
    assert first != second


def test_blocks_stay_random_to_the_end() -> None:
    """The fill must not run dry: the last block is as even in its bits as the first, and does not compress."""
    import zlib

    last = hm.chunk_bytes(SEED, 0)[-hm.BLOCK_BYTES :]
    ones = int.from_bytes(last, "little").bit_count()
    assert abs(ones - 4 * hm.BLOCK_BYTES) < 4000
    assert len(zlib.compress(last, 9)) > hm.BLOCK_BYTES


def test_one_changed_word_reaches_every_word_of_later_blocks() -> None:
    """So nobody computes one word of a missing chunk alone."""
    block = int.from_bytes(hm.first_block(SEED, 0), "little")
    other = block ^ (1 << 70)
    for _ in range(24):
        block, other = hm.next_block(block), hm.next_block(other)
    differing = (block ^ other).to_bytes(hm.BLOCK_BYTES, "little")
    changed = sum(any(differing[8 * i : 8 * i + 8]) for i in range(hm.WORDS))
    assert changed > 500


def test_a_word_alone_is_the_word_in_memory() -> None:
    chunk = hm.chunk_bytes(SEED, 1)
    for place in (0, 8191, 8192, 500_000):
        wanted = int.from_bytes(chunk[8 * place : 8 * place + 8], "little")
        assert hm.word_at(SEED, hm.CHUNK_BYTES // 8 + place) == wanted


def test_a_walk_depends_on_every_word_that_it_met() -> None:
    memory = bytearray(hm.chunk_bytes(SEED, 0))
    honest = hm.walk(memoryview(memory), SEED, 50)
    start = hm.walk_next(0, -1, hm.walk_key(SEED), len(memory) // 8)
    memory[8 * start] ^= 1
    changed = hm.walk(memoryview(memory), SEED, 50)
    assert changed[:4] != honest[:4]
    assert sum(changed[4 * i : 4 * i + 4] != honest[4 * i : 4 * i + 4] for i in range(50)) >= 49


def test_walks_of_two_seeds_part_at_every_step_even_where_they_read_the_same() -> None:
    """Else the answer to an old walk would pass for a new one but for its first step."""
    words = hm.CHUNK_BYTES // 8
    for step in range(-1, 40):
        assert hm.walk_next(5, step, hm.walk_key(SEED), words) != hm.walk_next(5, step, hm.walk_key(b"other"), words)


def test_walks_reach_every_part_of_memory() -> None:
    words, index, met = 1 << 20, 0, set()
    for step in range(2000):
        index = hm.walk_next(step * 2654435761 & 0xFFFFFFFF, step, hm.walk_key(SEED), words)
        met.add(index >> 14)
    assert len(met) == 64


def test_a_piece_hash_is_bound_to_seed_and_nonce() -> None:
    found = {hm.piece_hashes(SEED, 1, b"data"), hm.piece_hashes(SEED, 2, b"data"), hm.piece_hashes(SEED[::-1], 1, b"d")}
    assert len(found) == 3


def test_each_block_of_a_chunk_has_its_own_hash() -> None:
    chunk = hm.chunk_bytes(SEED, 0)
    found = hm.piece_hashes(SEED, 1, chunk)
    assert len(found) == hm.DISK_ANSWER_BYTES
    assert found[16:32] == hm.piece_hashes(SEED, 1, chunk[hm.BLOCK_BYTES : 2 * hm.BLOCK_BYTES])
