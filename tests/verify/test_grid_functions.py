"""Functions made of exact operations: near enough to the math library's, and right at the edges."""

from __future__ import annotations

import math

import pytest
import torch

from minga.verify import grid_functions as fn

WIDE = torch.linspace(-87, 87, 20_011, dtype=torch.float64)
NARROW = torch.linspace(-6, 6, 20_011, dtype=torch.float64)
POSITIVE = torch.exp(WIDE)


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).abs() / wanted.abs().clamp(min=1e-300)).max().item()


@pytest.mark.parametrize(
    ("ours", "library", "points", "error"),
    [
        (fn.exp, torch.exp, WIDE, 3e-11),
        (fn.tanh, torch.tanh, NARROW + 1e-3, 5e-11),
        (fn.sigmoid, torch.sigmoid, WIDE, 3e-11),
        (fn.expm1, torch.expm1, NARROW + 1e-3, 1e-7),
        (fn.log1p, torch.log1p, NARROW.abs() + 1e-3, 1e-12),
    ],
)
def test_relative_error(ours, library, points, error):
    assert relative(ours(points.clone()), library(points)) < error


@pytest.mark.parametrize(
    ("ours", "library", "points", "error"),
    [
        (fn.log, torch.log, POSITIVE, 1e-13),
        (fn.erf, torch.erf, NARROW, 1e-10),
        (fn.sine, torch.sin, WIDE * 1000, 1e-12),
        (lambda x: fn.sine(x, 1), torch.cos, WIDE * 1000, 1e-12),
        (fn.gauss, torch.special.ndtr, NARROW, 1e-10),
        (fn.bell, lambda x: torch.exp(-x * x / 2) / math.sqrt(2 * math.pi), NARROW, 1e-11),
    ],
)
def test_absolute_error(ours, library, points, error):
    assert (ours(points.clone()) - library(points)).abs().max().item() < error


def test_nothing_that_was_given_is_changed():
    for function in (fn.exp, fn.log, fn.tanh, fn.sigmoid, fn.erf, fn.sine, fn.gauss, fn.bell, fn.log1p, fn.expm1):
        given = NARROW.abs() + 0.5
        before = given.clone()
        function(given)
        assert torch.equal(given, before), function.__name__


def test_small_arguments_keep_their_digits():
    small = torch.tensor([1e-30, -1e-12, 1e-7, 2e-4], dtype=torch.float64)
    assert relative(fn.tanh(small), torch.tanh(small)) < 1e-9
    assert relative(fn.log1p(small), torch.log1p(small)) < 1e-9
    assert relative(fn.expm1(small), torch.expm1(small)) < 1e-5


def test_edges():
    far = torch.tensor([-math.inf, -1e4, 0.0, 1e4, math.inf], dtype=torch.float64)
    assert fn.exp(far).tolist() == [0.0, 0.0, 1.0, math.inf, math.inf]
    assert fn.sigmoid(far).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert fn.tanh(far).tolist() == [-1.0, -1.0, 0.0, 1.0, 1.0]
    assert fn.erf(far).tolist()[::4] == [-1.0, 1.0]
    found = fn.log(torch.tensor([0.0, 1.0, math.inf, -1.0], dtype=torch.float64)).tolist()
    assert found[:3] == [-math.inf, 0.0, math.inf]
    assert math.isnan(found[3])
    assert fn.exp(torch.tensor([math.nan], dtype=torch.float64)).isnan().all()


def test_a_root_is_correctly_rounded_even_when_the_library_errs(monkeypatch):
    draws = torch.Generator().manual_seed(0)
    values = torch.exp(15 * torch.randn(200_000, generator=draws))
    near = torch.nextafter(values.sqrt() ** 2, torch.tensor(math.inf))  # squares of floats and their neighbours
    for given in (values, near, torch.tensor([0.0, 1.0, 2.0**-126, 3e38])):
        root = fn.root(given)
        below, above = (torch.nextafter(root, torch.tensor(side)) for side in (-math.inf, math.inf))
        low, high = ((root.double() + other.double()) / 2 for other in (below, above))
        assert ((low.clamp(min=0) ** 2 <= given.double()) & (given.double() <= high**2)).all()
    wanted, library = fn.root(values), torch.sqrt
    for units in (-3, 3):
        monkeypatch.setattr(torch, "sqrt", lambda x, d=units: (library(x).view(torch.int64) + d).view(torch.float64))
        assert torch.equal(fn.root(values), wanted)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 16, -1, -2, 1.5, -0.75, 20.0])
def test_powers(exponent):
    base = torch.linspace(0.1, 4, 301, dtype=torch.float64)
    assert relative(fn.power(base, exponent), base**exponent) < 1e-9
