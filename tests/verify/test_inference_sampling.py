"""Seeded sampling: the noise is what the module says, tokens come as often as they should, margins tell cheats."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from blake3 import blake3

from minga.verify.inference_record import Sampling
from minga.verify.inference_sampling import CAP, candidates, choose, gumbel, margins, noise

SEED = bytes(range(32))
PLAIN = Sampling(temperature_milli=1000, top_p_milli=1000)
NUCLEUS = Sampling(temperature_milli=700, top_p_milli=900)


def logits_of(*shares: float) -> torch.Tensor:
    return torch.tensor([shares]).log()


def random_logits(rows: int, vocabulary: int = 200, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(rows)) * scale


def by_hand(logits: torch.Tensor, sampling: Sampling, seed: bytes, index: int) -> int:
    """The choice as the module's text defines it, in plain Python."""
    scaled = [float(value) / (sampling.temperature_milli / 1000) for value in logits]
    top = max(scaled)
    weights = [math.exp(value - top) for value in scaled]
    shares = [weight / sum(weights) for weight in weights]
    raw = blake3(index.to_bytes(8, "little"), key=seed).digest(length=8 * len(shares))
    best, chosen, mass = -math.inf, -1, 0.0
    for token in sorted(range(len(shares)), key=lambda token: -shares[token]):
        if mass and mass >= sampling.top_p_milli / 1000:
            break
        word = int.from_bytes(raw[8 * token : 8 * token + 8], "little") >> 12
        score = math.log(shares[token]) - math.log(-math.log((word + 0.5) / 2**52))
        best, chosen = max((best, chosen), (score, token))
        mass += shares[token]
    return chosen


@pytest.mark.parametrize("sampling", [PLAIN, NUCLEUS, Sampling(temperature_milli=1300, top_p_milli=500)])
def test_tokens_are_chosen_as_the_text_says(sampling):
    logits = random_logits(40)
    expected = [by_hand(row, sampling, SEED, index) for index, row in enumerate(logits)]
    assert choose(logits, sampling, [SEED] * 40, range(40)) == expected
    assert len(set(expected)) > 10


def test_the_noise_differs_by_seed_and_by_place():
    first = noise(SEED, 0, 64)
    assert len(first) == 512
    assert first == noise(SEED, 0, 64) == noise(SEED, 0, 100)[:512]
    assert len({first, noise(SEED, 1, 64), noise(bytes(32), 0, 64)}) == 3


def test_gumbel_numbers_are_finite_at_both_ends_and_have_the_right_mean():
    ends = gumbel(np.array([0, 2**64 - 1], dtype=np.uint64))
    assert torch.isfinite(ends).all()
    assert float(ends[0]) == pytest.approx(-3.60, abs=0.01)
    assert float(ends[1]) == pytest.approx(36.74, abs=0.01)
    drawn = gumbel(np.frombuffer(noise(SEED, 3, 100_000), dtype="<u8"))
    assert float(drawn.mean()) == pytest.approx(0.5772, abs=0.02)


def test_tokens_come_as_often_as_their_probabilities():
    """20,000 draws of four tokens: each count within four standard deviations."""
    shares = (0.5, 0.3, 0.15, 0.05)
    rows = logits_of(*shares).expand(20_000, -1)
    found = Counter(choose(rows, PLAIN, [SEED] * 20_000, range(20_000)))
    for token, share in enumerate(shares):
        assert abs(found[token] - 20_000 * share) < 4 * math.sqrt(20_000 * share * (1 - share))


def test_the_nucleus_leaves_out_the_unlikely():
    rows = logits_of(0.5, 0.3, 0.15, 0.05).expand(4000, -1)
    cut = Sampling(temperature_milli=1000, top_p_milli=790)
    found = Counter(choose(rows, cut, [SEED] * 4000, range(4000)))
    assert set(found) == {0, 1}
    assert found[0] / 4000 == pytest.approx(0.625, abs=0.03)


def test_a_tiny_nucleus_is_the_likeliest_token():
    rows = random_logits(30)
    least = Sampling(temperature_milli=2000, top_p_milli=1)
    assert choose(rows, least, [SEED] * 30, range(30)) == rows.argmax(1).tolist()


def test_temperature_zero_is_greedy_whatever_the_seed():
    rows, cold = random_logits(30), Sampling(temperature_milli=0)
    assert choose(rows, cold, [SEED] * 30, range(30)) == rows.argmax(1).tolist()
    assert choose(rows, cold, [bytes(32)] * 30, range(30)) == rows.argmax(1).tolist()
    top = rows.topk(2).indices[:, 1].tolist()
    gaps = (rows.max(1).values - rows.gather(1, torch.tensor(top)[:, None])[:, 0]).clamp(max=CAP)
    assert margins(rows, cold, SEED, 0, top, 0.0) == pytest.approx(gaps.tolist())


@pytest.mark.parametrize("sampling", [PLAIN, NUCLEUS, Sampling(temperature_milli=0)])
def test_the_right_tokens_have_no_margin(sampling):
    """Over more rows than are judged at once, and from another place than the first."""
    rows = random_logits(80)
    tokens = choose(rows, sampling, [SEED] * 80, range(5, 85))
    assert margins(rows, sampling, SEED, 5, tokens, 1e-4) == [0.0] * 80


def test_wrong_tokens_seeds_and_places_have_margins():
    rows = random_logits(80, scale=1.0)
    tokens = choose(rows, PLAIN, [SEED] * 80, range(80))
    assert sum(m > 0.01 for m in margins(rows, PLAIN, bytes(32), 0, tokens, 0.0)) > 60
    assert sum(m > 0.01 for m in margins(rows, PLAIN, SEED, 1, tokens, 0.0)) > 60
    others = [(token + 1) % 200 for token in tokens]
    assert all(m > 0 for m in margins(rows, PLAIN, SEED, 0, others, 0.0))


def test_nearly_equal_logits_give_nearly_no_margin():
    """A difference of 1e-4 in the logits costs at most 4e-4 nats, whatever token it makes another."""
    rows = random_logits(400, scale=1.0)
    shaken = rows + 1e-4 * (2 * torch.rand(rows.shape, generator=torch.Generator().manual_seed(1)) - 1)
    tokens = choose(shaken, NUCLEUS, [SEED] * 400, range(400))
    found = margins(rows, NUCLEUS, SEED, 0, tokens, 1e-3)
    assert max(found) <= 4e-4 / 0.7
    exact = choose(rows, NUCLEUS, [SEED] * 400, range(400))
    assert sum(a != b for a, b in zip(tokens, exact, strict=True)) <= 4


def test_a_token_outside_the_nucleus_has_the_cap_and_at_its_edge_the_benefit_of_the_doubt():
    rows = logits_of(0.5, 0.3, 0.2)
    cut = Sampling(temperature_milli=1000, top_p_milli=799)
    assert margins(rows, cut, SEED, 0, [2], 0.0) == [CAP]
    assert margins(rows, cut, SEED, 0, [2], 0.002)[0] < CAP
    edge = Sampling(temperature_milli=1000, top_p_milli=801)
    for index in range(40):  # in the nucleus by a hair: no rival counts that may be outside
        third = choose(rows, edge, [SEED], [index]) == [2]
        without = choose(rows, cut, [SEED], [index])
        assert margins(rows, edge, SEED, index, without, 0.002) == [0.0]
        assert not third or margins(rows, edge, SEED, index, without, 0.0)[0] > 0


def test_a_wide_nucleus_sorts_as_many_tokens_as_it_needs():
    flat = torch.zeros(2, 9000)
    flat[0, :3] = 50
    found = candidates(flat, Sampling(temperature_milli=1000, top_p_milli=990), 0.99)
    assert found.ids.shape == (2, 9000)
    assert candidates(flat[:1], Sampling(temperature_milli=1000, top_p_milli=990), 0.99).ids.shape == (1, 512)
    assert len(set(choose(flat, Sampling(top_p_milli=990), [SEED, SEED], [0, 1]))) == 2
