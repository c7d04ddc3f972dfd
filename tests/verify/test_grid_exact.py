"""Sums and products on a grid: exact, hence the same in every order; and how near they are to what was asked."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.core.errors import InvalidInput
from minga.verify import grid_exact as exact

SEEDS = st.integers(0, 2**32 - 1)


def numbers(seed: int, *shape: int, spread: float = 8.0) -> torch.Tensor:
    """float32 of very different sizes."""
    draws = torch.Generator().manual_seed(seed)
    sizes = torch.exp(spread * torch.randn(shape, generator=draws))
    return torch.randn(shape, generator=draws) * sizes


def rational(values: torch.Tensor) -> Fraction:
    return sum((Fraction(value) for value in values.reshape(-1).tolist()), Fraction(0))


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 3000))
def test_a_sum_is_the_exact_sum_of_the_rounded_and_so_the_same_in_any_order(seed, count):
    values = numbers(seed, count)
    held = exact.rounded(values, [0], exact.sum_bits(count))
    found = exact.total(values, [0])
    assert Fraction(found.item()) == rational(held)
    shuffled = values[torch.randperm(count, generator=torch.Generator().manual_seed(seed))]
    assert exact.total(shuffled, [0]).item() == found.item() == exact.total(values.flip(0), []).item()
    step = Fraction(float(values.abs().max())) * 2 / 2 ** exact.sum_bits(count)
    assert abs(Fraction(found.item()) - rational(values)) <= count * step / 2


def test_an_ordinary_sum_depends_on_the_order():
    values = numbers(1, 3000)
    assert values.sum().item() != values.flip(0).sort().values.sum().item()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, rows=st.integers(1, 5), inner=st.integers(1, 600), columns=st.integers(1, 5))
def test_a_product_is_exact_for_the_rounded_factors(seed, rows, inner, columns):
    a, b = numbers(seed, rows, inner), numbers(seed + 1, inner, columns)
    bits = exact.factor_bits(inner)
    left, right = exact.rounded(a, [1], bits), exact.rounded(b, [0], bits)
    found = exact.product(a, b)
    for i in range(rows):
        for j in range(columns):
            pairs = zip(left[i].tolist(), right[:, j].tolist(), strict=True)
            assert Fraction(found[i, j].item()) == sum((Fraction(x) * Fraction(y) for x, y in pairs), Fraction(0))
    order = torch.randperm(inner, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(exact.product(a[:, order], b[order]), found)


@pytest.mark.parametrize("inner", [1, 64, 1024, 8192])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_a_product_errs_by_what_its_bits_allow(inner, spread):
    """Normal entries, and entries of which few are large; TF32 would err by 2**-11."""
    a, b = numbers(3, 16, inner, spread=spread), numbers(4, inner, 16, spread=spread)
    wanted = a.double() @ b.double()
    error = ((exact.product(a, b) - wanted).norm() / wanted.norm()).item()
    assert error < 2.0 ** (3 - exact.factor_bits(inner)) * (1 if spread == 0 else 8)
    bound = inner * 2.0 ** (1 - exact.factor_bits(inner)) * a.abs().amax(1, True) * b.abs().amax(0, True) * 2
    assert ((exact.product(a, b) - wanted).abs() <= bound).all()


def test_a_whole_bound_is_used_and_not_passed():
    """The worst case: every product as large as it may be, so that the sum ends at 2**53 grids, exactly."""
    inner = 512
    bits = exact.factor_bits(inner)
    row = torch.full((1, inner), 2.0 - 2.0**-22)
    held = exact.rounded(row, [1], bits)
    assert held.max() == 2.0
    assert exact.product(row, row.T).item() == 4.0 * inner
    assert inner * 2 ** (2 * bits) <= 2**53 < inner * 2 ** (2 * (bits + 1))


@pytest.mark.parametrize(("count", "bits"), [(1, 51), (4, 51), (5, 50), (1024, 43), (2**20, 33)])
def test_bits_of_a_sum(count, bits):
    assert exact.sum_bits(count) == bits


@pytest.mark.parametrize(("count", "bits"), [(1, 26), (2, 26), (128, 23), (2048, 21), (2**29, 12)])
def test_bits_of_a_factor(count, bits):
    assert exact.factor_bits(count) == bits


def test_what_has_no_grid_is_refused():
    with pytest.raises(InvalidInput, match="no grid"):
        exact.factor_bits(2**29 + 1)
    with pytest.raises(InvalidInput, match="no grid"):
        exact.sum_bits(2**42)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_shows(value):
    found = exact.total(torch.tensor([[1.0, value], [1.0, 2.0]]), [1])
    assert found[0].isnan()
    assert found[1] == 3.0


def test_zeros_integers_and_nothing():
    assert exact.total(torch.zeros(4), []).item() == 0.0
    assert exact.total(torch.tensor([2**60, 1]), []).item() == 2**60 + 1
    assert exact.total(torch.empty(0, 3), [0]).tolist() == [0.0, 0.0, 0.0]
    assert exact.total(torch.tensor(1.5), []).item() == 1.5
    assert exact.gathered(2, torch.empty(0, dtype=torch.int64), torch.empty(0, 3)).tolist() == [[0.0] * 3] * 2
    assert exact.running_total(torch.tensor([1, 2, 3]), 0).tolist() == [1, 3, 6]


def test_gathered_rows_do_not_depend_on_the_order():
    values, index = numbers(5, 4000, 2), torch.arange(4000) % 3
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(0))
    found = exact.gathered(3, index, values)
    assert torch.equal(exact.gathered(3, index[order], values[order]), found)
    assert torch.allclose(found[1], values[index == 1].double().sum(0), rtol=1e-9)


def test_a_running_total_ends_at_the_total():
    values = numbers(6, 7, 500)
    running = exact.running_total(values, 1)
    assert torch.equal(running[:, -1], exact.total(values, [1]))
    assert torch.equal(running[:, 99], exact.rounded(values, [1], exact.sum_bits(500))[:, :100].flip(1).sum(1))
