"""The grid as a context: it computes what PyTorch computes, refuses what it cannot vouch for, leaves nothing behind."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from minga.core.errors import InvalidInput
from minga.verify import grid_rules
from minga.verify.grid import Grid

TARGET = torch.tensor([0, 4, 2, 2, 1, 3])
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(8, 4), (3, 8)),
    "linear without bias": (lambda: nn.Linear(8, 4, bias=False), (2, 3, 8)),
    "conv2d": (lambda: nn.Conv2d(4, 8, 3, padding=1), (2, 4, 8, 8)),
    "conv2d strided, dilated, in groups": (lambda: nn.Conv2d(4, 8, 3, 2, 2, 2, groups=2), (2, 4, 9, 9)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    "batch norm": (lambda: nn.BatchNorm2d(4), (3, 4, 5, 5)),
    "batch norm, evaluated": (lambda: nn.BatchNorm2d(4).eval(), (3, 4, 5, 5)),
    "instance norm": (lambda: nn.InstanceNorm2d(4, affine=True), (3, 4, 5, 5)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (3, 4, 5, 5)),
    "layer norm": (lambda: nn.LayerNorm(8), (3, 4, 8)),
    "rms norm": (lambda: nn.RMSNorm(8, eps=1e-5), (3, 4, 8)),
    "rms norm without weight": (lambda: nn.RMSNorm(8, elementwise_affine=False), (3, 8)),
    "max pool": (lambda: nn.MaxPool2d(3, 2), (2, 3, 9, 9)),
    "average pool": (lambda: nn.AvgPool2d(3, 2), (2, 3, 9, 9)),
    "average over all": (lambda: nn.AdaptiveAvgPool2d(1), (2, 3, 8, 8)),
    "encoder": (lambda: nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True), (2, 5, 16)),
    "gru": (lambda: First(nn.GRU(4, 4)), (3, 2, 4)),
    "lstm": (lambda: First(nn.LSTM(4, 4)), (3, 2, 4)),
    "glu": (nn.GLU, (5, 8)),
    "softmax": (lambda: nn.Softmax(-1), (3, 8)),
    "gelu by tanh": (lambda: nn.GELU("tanh"), (50, 7)),
    "prelu": (nn.PReLU, (5, 7)),
} | {
    kind.__name__: (kind, (50, 7))
    for kind in (
        nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.LogSigmoid, nn.Hardswish, nn.Mish,
        nn.ReLU6, nn.SELU, nn.ReLU,
    )
}  # fmt: skip
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "classes": lambda x: functional.cross_entropy(x, TARGET),
    "classes, one ignored": lambda x: functional.cross_entropy(x, TARGET, ignore_index=4),
    "classes, smoothed": lambda x: functional.cross_entropy(x, TARGET, label_smoothing=0.1),
    "classes, weighted": lambda x: functional.cross_entropy(x, TARGET, weight=torch.arange(1.0, 6.0)),
    "classes, each": lambda x: functional.cross_entropy(x, TARGET, reduction="none").mean(),
    "classes, summed": lambda x: functional.cross_entropy(x, TARGET, reduction="sum"),
    "classes of one": lambda x: functional.cross_entropy(x[0], TARGET[0]),
    "squares": lambda x: functional.mse_loss(x, torch.ones_like(x)),
    "distances": lambda x: functional.l1_loss(x, torch.ones_like(x)),
    "huber": lambda x: functional.huber_loss(x, torch.ones_like(x)),
    "yes or no": lambda x: functional.binary_cross_entropy_with_logits(x, torch.ones_like(x)),
    "divergence": lambda x: functional.kl_div(x.log_softmax(-1), torch.full_like(x, 0.2), reduction="sum"),
    "log of a sum": lambda x: torch.logsumexp(x, -1).mean(),
    "deviation": lambda x: x.var() + x.std() + x.var(1, correction=0).sum(),
    "norms": lambda x: x.norm() + x.norm(p=1) + x.norm(p=math.inf) + functional.normalize(x).sum(),
    "running": lambda x: x.cumsum(1).square().mean(),
    "indexed": lambda x: x[TARGET].square().sum() + x[:, [0, 0, 1]].sum() + x[1:, ::2].sum(),
    "gathered": lambda x: x.gather(1, TARGET[:, None]).square().sum() + x.index_select(0, TARGET).sum(),
    "contracted": lambda x: torch.einsum("ij,kj->ik", x, x).sum() + x[0] @ x[1] + (x @ x[0]).sum(),
    "largest": lambda x: x.max(1).values.sum() + x.amax() + x.minimum(x.flip(0)).sum(),
    "powers": lambda x: (x.abs() + 1).pow(1.5).sum() + (x**3).sum() + (2.0**x).sum() + (x.abs() + 1).pow(-0.5).sum(),
    "logarithms": lambda x: torch.log1p(x.abs()).sum() + torch.log2(x.abs() + 1).sum() + torch.expm1(x).sum(),
    "turns": lambda x: x.sin().sum() + x.cos().square().sum(),
    "repeated": lambda x: (
        (x.repeat(2, 1) * 2).square().sum() + x.repeat_interleave(2, 0).sum() + x.expand(3, 6, 5).sum()
    ),
    "embedded": lambda x: functional.embedding(TARGET, x, padding_idx=2).square().sum(),
    "accumulated": lambda x: torch.zeros(6, 5).index_put((TARGET,), x, accumulate=True).square().sum(),
    "added by index": lambda x: torch.zeros(6, 5).index_add(0, TARGET, x, alpha=2.0).square().sum(),
    "mixed": lambda x: torch.lerp(x, x.flip(0), 0.3).sum() + torch.addcmul(x, x, x, value=0.5).sum() + (1 - x).sum(),
}
OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2),
    "AdamW, foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, foreach=True),
    "Adam, amsgrad": lambda p: torch.optim.Adam(p, lr=1e-2, foreach=True, amsgrad=True),
    "SGD, nesterov": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
    "SGD, foreach": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, foreach=True, weight_decay=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p),
    "Adagrad": lambda p: torch.optim.Adagrad(p),
    "Adafactor": lambda p: torch.optim.Adafactor(p),
    "NAdam": lambda p: torch.optim.NAdam(p),
}


class First(nn.Module):
    """The first of a module's two results."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[0]


def numbers(*shape: int) -> Tensor:
    """The same inside the grid and outside: PyTorch's own random numbers are others there."""
    return torch.from_numpy(np.random.default_rng(7).standard_normal(shape, dtype=np.float32))


def near(found: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(found, wanted, rtol=3e-5, atol=2e-6 * (wanted.abs().max().item() + 1e-6))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_compute_what_pytorch_computes(name):
    build, shape = LAYERS[name]
    torch.manual_seed(0)
    ordinary = build()
    exact = copy.deepcopy(ordinary)

    def run(module: nn.Module) -> list[Tensor]:
        given = numbers(*shape).requires_grad_()
        out = module(given)
        (out * torch.arange(1.0, 1 + out.numel()).reshape(out.shape).sin()).sum().backward()
        return [out.detach(), given.grad, *(p.grad for p in module.parameters()), *module.buffers()]

    wanted = run(ordinary)
    with Grid():
        found = run(exact)
    assert all(near(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_compute_what_pytorch_computes(name):
    def run() -> tuple[Tensor, Tensor]:
        given = numbers(6, 5).requires_grad_()
        value = LOSSES[name](given)
        value.backward()
        return value.detach(), given.grad

    (value, slope), (wanted, wanted_slope) = _both(run)
    assert near(value, wanted)
    assert near(slope, wanted_slope)


def _both(run: Callable[[], tuple[Tensor, Tensor]]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    with Grid():
        found = run()
    return found, run()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers_compute_what_pytorch_computes(name):
    def run() -> tuple[Tensor, Tensor]:
        weights = [nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4)), nn.Parameter(torch.ones(3))]
        optimizer = OPTIMIZERS[name](weights)
        for _ in range(3):
            optimizer.zero_grad()
            ((weights[0] * numbers(3, 4)).square().sum() + weights[1].sum() * 0.1).backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
        return weights[0].detach(), weights[1].detach()

    found, wanted = _both(run)
    assert all(near(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_sum_under_the_grid_has_no_order():
    values = numbers(5000) * torch.exp(5 * numbers(5000).flip(0))
    orders = (values, values.flip(0), values.sort().values)
    assert len({order.sum().item() for order in orders}) > 1
    with Grid():
        assert len({order.sum().item() for order in orders}) == 1


@pytest.mark.parametrize(
    ("what", "run"),
    [
        ("::prod", lambda: torch.prod(torch.ones(3))),
        ("bfloat16", lambda: torch.ones(3).to(torch.bfloat16)),
        ("float16", lambda: torch.ones(3, dtype=torch.float16) + 1),
        ("complex64", lambda: torch.ones(3, dtype=torch.complex64) + 1),
        ("float64", lambda: torch.ones(3, dtype=torch.float64).sqrt()),
        ("order 3", lambda: torch.ones(3).norm(p=3)),
        ("convolution", lambda: functional.conv_transpose2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2))),
        ("linalg", lambda: torch.linalg.inv(torch.eye(2))),
        ("reduction", lambda: torch.ones(3).scatter(0, torch.tensor([0]), torch.ones(1), reduce="add")),
        ("one place", lambda: torch.ones(3).scatter(0, torch.tensor([0, 0]), torch.ones(2))),
        ("one place", lambda: torch.ones(3).index_put((torch.tensor([1, 1]),), torch.ones(2))),
        ("decimals", lambda: torch.ones(3).round(decimals=2)),
        ("fft", lambda: torch.fft.rfft(torch.ones(4))),
        ("multinomial", lambda: torch.multinomial(torch.ones(4), 2)),
        ("rounds to integers", lambda: torch.div(torch.ones(2), 0.3, rounding_mode="floor")),
        ("fused", lambda: _fused_step()),
    ],
)
def test_what_is_not_known_to_be_exact_is_refused(what, run):
    with Grid(), pytest.raises(InvalidInput) as refused:
        run()
    assert what in refused.value.fact


def _fused_step() -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    torch.optim.AdamW([weight], fused=True).step()


def test_nothing_is_left_behind_also_after_an_error():
    before = torch._C._get_mkldnn_enabled()
    grid = Grid()
    for _ in range(2):
        with pytest.raises(InvalidInput), grid:
            torch.prod(torch.ones(3))
        assert torch._C._get_mkldnn_enabled() == before
        assert torch.prod(torch.full((3,), 2.0)).item() == 8.0


def test_random_numbers_follow_from_the_cpu_generator_alone():
    def drawn() -> list[Tensor]:
        torch.manual_seed(3)
        dropped = functional.dropout(torch.ones(500, 500), 0.3)
        kept = [torch.randn(3, 4), torch.rand(5), torch.randint(0, 9, (6,)), torch.randperm(7), nn.Linear(3, 2).weight]
        return [dropped, *kept, torch.empty(4).normal_(2.0, 0.1), torch.bernoulli(torch.full((9,), 0.5))]

    with Grid():
        first, second = drawn(), drawn()
        more = torch.randn(200_000)
        even = torch.rand(200_000)
        torch.manual_seed(4)
        other = torch.randn(3, 4)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[1], other)
    assert first[0].mean().item() == pytest.approx(1, abs=0.01)
    assert set(first[0].unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    assert (more.mean().item(), more.std().item()) == pytest.approx((0, 1), abs=0.01)
    assert (even.mean().item(), even.var().item()) == pytest.approx((0.5, 1 / 12), abs=0.003)
    assert (even.min() >= 0) & (even.max() < 1)
    bins = torch.histc(even, 64, 0, 1)
    assert ((bins - 3125) ** 2 / 3125).sum().item() < 115  # chi square, 63 degrees, 1 in 10,000


def test_a_generator_of_another_device_is_refused():
    class Elsewhere:
        device = torch.device("meta")

    with pytest.raises(InvalidInput, match="generator"):
        grid_rules.RULES["rand"]([3], generator=Elsewhere())


@pytest.mark.parametrize("name", sorted(set(grid_rules.RULES) - {"cudnn_batch_norm", "prims"}))
def test_every_rule_belongs_to_an_operator_that_exists(name):
    places = (name, f"{name}_")
    assert any(hasattr(torch.ops.aten, place) for place in places)


@pytest.mark.parametrize("name", sorted(grid_rules.PASSED))
def test_every_operator_that_passes_exists_and_has_no_rule(name):
    assert hasattr(torch.ops.aten, name)
    assert name not in grid_rules.RULES


def test_each_place_may_be_written_once():
    with Grid():
        assert torch.zeros(3).scatter(0, torch.tensor([2, 0]), torch.tensor([5.0, 6.0])).tolist() == [6.0, 0.0, 5.0]
        found = torch.zeros(3)
        found[torch.tensor([2, 1])] = torch.tensor([5.0, 6.0])
        found[found > 5.5] = 1.0
        assert found.tolist() == [0.0, 1.0, 5.0]


def test_ranges_are_computed_number_by_number():
    with Grid():
        assert torch.arange(5).tolist() == [0, 1, 2, 3, 4]
        assert torch.arange(0, 1, 0.1).tolist() == [torch.tensor(i * 0.1).item() for i in range(10)]
        assert torch.linspace(0, 1, 11).tolist() == [torch.tensor(i * 0.1).item() for i in range(11)]


def test_scalars_are_rounded_to_float32():
    assert grid_rules.single(0.1) == torch.tensor(0.1).item() != 0.1
    assert grid_rules.single(1e300) == 1e300
    assert grid_rules.single(-math.inf) == -math.inf
    assert grid_rules.single(3) == 3
    value = torch.ones(3, dtype=torch.float64)
    with Grid():
        assert (value * 0.1).tolist() == [torch.tensor(0.1).item()] * 3
        assert (torch.full((3,), 7.0) / 3).tolist() == [torch.tensor(7 / 3).item()] * 3
