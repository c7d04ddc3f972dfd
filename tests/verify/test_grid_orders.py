"""What the grid is for: whoever adds in another order gets the same bits.

Each layer is computed twice, with what it sums over in another order, and once more with every thread count; ordinary
float32 is computed beside it, to show that the order does matter there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from minga.verify.grid import Grid

N = 96
ORDER = torch.from_numpy(np.random.default_rng(1).permutation(N))
BACK = torch.argsort(ORDER)


def numbers(*shape: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    dice = np.random.default_rng(seed)
    values = dice.standard_normal(shape) * np.exp(spread * dice.standard_normal(shape))
    return torch.from_numpy(values.astype(np.float32))


A, B = numbers(5, N), numbers(N, 7, seed=1)
WEIGHT, SHIFT = numbers(N, seed=2).abs(), numbers(N, seed=3)
IMAGES, KERNEL = numbers(2, N, 6, 6, seed=4), numbers(4, N, 3, 3, seed=5)
ROWS, COLUMNS = numbers(N, 6, seed=6), numbers(N, 3, seed=7)
INDEX = torch.from_numpy(np.random.default_rng(2).integers(0, 9, N))
LABELS = INDEX % 6
EACH: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
    "sum": (lambda: A.sum(1), lambda: A[:, ORDER].sum(1)),
    "mean": (lambda: A.mean(1), lambda: A[:, ORDER].mean(1)),
    "variance": (lambda: A.var(1), lambda: A[:, ORDER].var(1)),
    "norm": (lambda: A.norm(dim=1), lambda: A[:, ORDER].norm(dim=1)),
    "product": (lambda: A @ B, lambda: A[:, ORDER] @ B[ORDER]),
    "product with a vector": (lambda: A @ SHIFT, lambda: A[:, ORDER] @ SHIFT[ORDER]),
    "batched product": (lambda: torch.bmm(A[None], B[None]), lambda: torch.bmm(A[None][..., ORDER], B[None][:, ORDER])),
    "linear": (lambda: functional.linear(A, B.t()), lambda: functional.linear(A[:, ORDER], B.t()[:, ORDER])),
    "softmax": (lambda: A.softmax(1), lambda: A[:, ORDER].softmax(1)[:, BACK]),
    "log softmax": (lambda: A.log_softmax(1), lambda: A[:, ORDER].log_softmax(1)[:, BACK]),
    "logsumexp": (lambda: A.logsumexp(1), lambda: A[:, ORDER].logsumexp(1)),
    "layer norm": (
        lambda: functional.layer_norm(A, (N,), WEIGHT, SHIFT),
        lambda: functional.layer_norm(A[:, ORDER], (N,), WEIGHT[ORDER], SHIFT[ORDER])[:, BACK],
    ),
    "rms norm": (
        lambda: functional.rms_norm(A, (N,), WEIGHT),
        lambda: functional.rms_norm(A[:, ORDER], (N,), WEIGHT[ORDER])[:, BACK],
    ),
    "batch norm": (
        lambda: functional.batch_norm(ROWS, None, None, training=True),
        lambda: functional.batch_norm(ROWS[ORDER], None, None, training=True)[BACK],
    ),
    "convolution": (
        lambda: functional.conv2d(IMAGES, KERNEL, padding=1),
        lambda: functional.conv2d(IMAGES[:, ORDER], KERNEL[:, ORDER], padding=1),
    ),
    "average pool": (
        lambda: functional.avg_pool2d(IMAGES, 3),
        lambda: functional.avg_pool2d(IMAGES.flip(-1, -2), 3).flip(-1, -2),
    ),
    "loss over classes": (
        lambda: functional.cross_entropy(ROWS, LABELS),
        lambda: functional.cross_entropy(ROWS[ORDER], LABELS[ORDER]),
    ),
    "squares": (lambda: functional.mse_loss(A[0], SHIFT), lambda: functional.mse_loss(A[0, ORDER], SHIFT[ORDER])),
    "added by index": (
        lambda: torch.zeros(9, 3).index_add(0, INDEX, COLUMNS),
        lambda: torch.zeros(9, 3).index_add(0, INDEX[ORDER], COLUMNS[ORDER]),
    ),
    "put by index": (
        lambda: torch.zeros(9, 3).index_put((INDEX,), COLUMNS, accumulate=True),
        lambda: torch.zeros(9, 3).index_put((INDEX[ORDER],), COLUMNS[ORDER], accumulate=True),
    ),
    "scattered": (
        lambda: torch.zeros(9).scatter_add(0, INDEX, SHIFT),
        lambda: torch.zeros(9).scatter_add(0, INDEX[ORDER], SHIFT[ORDER]),
    ),
}
ORDERED = {"average pool", "softmax", "log softmax", "logsumexp", "rms norm", "variance", "added by index"}
"""Where these few numbers happen to give the same in float32 in both orders, or may on some processor."""


@pytest.mark.parametrize("name", EACH)
def test_another_order_gives_the_same_bits(name):
    first, second = EACH[name]
    with Grid():
        assert torch.equal(first(), second())
    assert torch.allclose(first(), second(), rtol=1e-3, atol=1e-4)


def test_float32_would_not_give_the_same_bits():
    differ = [name for name, (first, second) in EACH.items() if not torch.equal(first(), second())]
    assert len(differ) >= len(EACH) - len(ORDERED) - 3, differ


def gradients(loss: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    loss(a, b).backward()
    return a.grad, b.grad


SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "of a product": lambda a, b: (a @ b).square().sum(),
    "of softmax and product": lambda a, b: ((a @ b).softmax(1) * 3).square().sum(),
    "of a norm": lambda a, b: (functional.layer_norm(a, (N,)) @ b).square().sum(),
    "of activations": lambda a, b: (functional.silu(a) @ functional.gelu(b)).tanh().square().sum(),
}


@pytest.mark.parametrize("name", SLOPES)
def test_gradients_have_the_same_bits_in_another_order(name):
    with Grid():
        a, b = gradients(SLOPES[name], A * 0.1, B * 0.1)
        c, d = gradients(SLOPES[name], A[:, ORDER] * 0.1, B[ORDER] * 0.1)
    assert torch.equal(a, c[:, BACK])
    assert torch.equal(b, d[BACK])
    assert a.abs().max() > 0


def test_batches_may_come_in_any_order():
    """The gradient of a shared weight is a sum over the batch."""

    def slope(order: Tensor) -> Tensor:
        weight = numbers(6, 6, seed=9).requires_grad_()
        functional.cross_entropy((ROWS[order] @ weight).tanh(), LABELS[order]).backward()
        return weight.grad

    with Grid():
        assert torch.equal(slope(torch.arange(N)), slope(ORDER))
    assert not torch.equal(slope(torch.arange(N)), slope(ORDER))


def test_the_convolutions_gradient_has_no_order():
    def slopes(order: Tensor) -> tuple[Tensor, Tensor]:
        return gradients(
            lambda a, b: functional.conv2d(a, b, padding=1).square().sum(), IMAGES[:, order] * 0.1, KERNEL[:, order]
        )

    with Grid():
        (a, b), (c, d) = slopes(torch.arange(N)), slopes(ORDER)
    assert torch.equal(a, c[:, BACK])
    assert torch.equal(b, d[:, BACK])


def test_threads_do_not_matter():
    big, before = numbers(300, 400, seed=10), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with Grid():
                results.append((big.sum(), (big @ big.t()).sum(), big.softmax(1).square().mean(), big.exp().sum()))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
