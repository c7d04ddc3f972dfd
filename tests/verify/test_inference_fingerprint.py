"""Fingerprints: what is encoded is found again, distances mean what they say, hostile ones are refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from minga.core.errors import BadEvidence, InternalError
from minga.verify import inference_fingerprint as module
from minga.verify.inference_fingerprint import MODULUS_MIN, P, distance, fingerprint, injective, interpolate, parse


def hidden_of(rows: int = 32, width: int = 64, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def packed(modulus: int, coefficients: list[int]) -> bytes:
    return struct.pack(f"<{len(coefficients) + 1}H", modulus, *coefficients)


def test_the_prime_is_the_largest_below_two_to_the_sixteen():
    def prime(n):
        return all(n % d for d in range(2, int(n**0.5) + 1))

    assert prime(P)
    assert not any(prime(n) for n in range(P + 1, 2**16))
    infinite = torch.tensor(-torch.inf, dtype=torch.bfloat16).view(torch.int16).item() & 0xFFFF
    assert infinite - 1 < P


@pytest.mark.parametrize("width", [1, 3, 64, 576, 4096])
@pytest.mark.parametrize("rows", [1, 31, 32])
def test_ones_own_fingerprint_is_at_no_distance(rows, width):
    hidden = hidden_of(rows, width)
    shown = fingerprint(hidden)
    assert len(shown) == 2 + 2 * min(128, rows * width)
    found = distance(shown, hidden)
    assert (found.far, found.near) == (0, 0.0)


def test_large_indices_are_reduced_by_both_sides():
    """32 × 8192 activations: indices are above the prime, and are taken modulo the fingerprint's modulus."""
    hidden = hidden_of(32, 8192)
    assert int(module.largest(hidden)[0].max()) > P
    assert distance(fingerprint(hidden), hidden).far == 0
    assert distance(fingerprint(hidden), hidden_of(32, 8192, seed=2)).far > 120


def test_a_modulus_is_found_when_the_largest_makes_indices_coincide():
    indices = np.arange(128, dtype=np.int64)
    indices[5] = P + 6
    assert injective(indices, 10 * P) < P
    assert len(np.unique(indices % injective(indices, 10 * P))) == 128
    with pytest.raises(InternalError):
        injective(np.zeros(2, dtype=np.int64), 10 * P)


def test_the_polynomial_goes_through_every_point():
    dice = np.random.default_rng(4)
    x, y = dice.permutation(P)[:128].astype(np.int64), dice.integers(0, P, 128)
    found = interpolate(x, y)
    assert module.evaluate(found, x).tolist() == y.tolist()
    by_hand = [sum(int(c) * pow(int(at), power, P) for power, c in enumerate(found)) % P for at in x[:5]]
    assert by_hand == y[:5].tolist()


def test_a_small_error_is_near_and_another_model_is_far():
    hidden = hidden_of()
    shown = fingerprint(hidden)
    little = distance(shown, hidden * (1 + 1e-5))
    assert little.far <= 1
    assert little.near < 0.02
    one_percent = distance(shown, hidden * 1.01)
    assert one_percent.far <= 2
    assert 0.5 < one_percent.near < 3
    assert distance(shown, hidden_of(seed=2)).far > 120
    assert distance(shown, -hidden).far == 128


def test_values_on_both_sides_of_a_power_of_two_are_near():
    low, high = torch.full((32, 8), 1.999), torch.full((32, 8), 2.0)
    found = distance(fingerprint(low), high)
    assert found.far == 0
    assert found.near <= 1


def test_equal_activations_are_taken_in_order():
    """Ties are broken by place, so two sides with the same numbers take the same ones."""
    hidden = torch.ones(32, 64)
    assert module.largest(hidden)[0].tolist() == list(range(128))
    assert distance(fingerprint(hidden), hidden).far == 0


def test_numbers_that_are_not_finite_are_refused():
    hidden = hidden_of()
    for bad in (torch.nan, torch.inf, -torch.inf):
        hidden[3, 3] = bad
        with pytest.raises(InternalError):
            fingerprint(hidden)


def test_huge_activations_do_not_round_up_to_infinity():
    hidden = torch.full((2, 2), -3.4e38)
    assert distance(fingerprint(hidden), hidden).far == 0


@pytest.mark.parametrize(
    "shown",
    [
        b"",
        b"\0",
        b"\0" * 257,
        b"\0" * 259,
        packed(0, [1] * 128),
        packed(1, [1] * 128),
        packed(MODULUS_MIN, [1] * 128),
        packed(P - 1, [1] * 128),
        packed(P + 1, [1] * 128),
        packed(65535, [1] * 128),
        packed(P, [1] * 127),
        packed(P, [1] * 129),
        packed(P, [*[1] * 127, P]),
        packed(P, [65535, *[1] * 127]),
    ],
)
def test_hostile_fingerprints_are_refused_with_one_clear_error(shown):
    """Among them what kills the published library: no bytes, modulus 0, a modulus that makes all points one."""
    with pytest.raises(BadEvidence) as caught:
        distance(shown, hidden_of())
    assert caught.value.fact
    assert caught.value.remedy


def test_a_free_modulus_is_bounded():
    size = 32 * 8192
    assert parse(packed(MODULUS_MIN, [1] * 128), size)[0] == MODULUS_MIN
    for modulus in (0, MODULUS_MIN - 1, P + 1):
        with pytest.raises(BadEvidence):
            parse(packed(modulus, [1] * 128), size)


def test_well_formed_noise_is_far():
    dice = np.random.default_rng(7)
    for _ in range(20):
        shown = packed(P, dice.integers(0, P, 128).tolist())
        assert distance(shown, hidden_of()).far > 110
