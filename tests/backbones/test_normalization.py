"""Group normalization in channels-last layout is that of torch: results, gradients, and gradients of gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.backbones import normalization
from diffusion.backbones.normalization import IN_ORDER, GroupNorm
from tests.backbones.conftest import images

SIZES = pytest.mark.parametrize("size", [(5, 3), (33, 32)], ids=str)


@pytest.fixture(autouse=True)
def _small_inputs_are_many_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MANY", "MANY_SHORT"):
        monkeypatch.setattr(normalization, name, 1)


def drawn(size: tuple[int, int], dtype: torch.dtype = torch.float64) -> tuple[GroupNorm, Tensor, Tensor]:
    """A layer of random weights, an input of another mean and scale in each channel, and a gradient of the output."""
    norm = GroupNorm(4, 12, eps=1e-3)
    with torch.no_grad():
        norm.weight.copy_(images(12, seed=2))
        norm.bias.copy_(images(12, seed=3))
    x = images(2, 12, *size) * (1 + images(12, 1, 1, seed=4).square()) + 3 * images(12, 1, 1, seed=5)
    x, gradient = (v.to(dtype).contiguous(memory_format=torch.channels_last) for v in (x, images(2, 12, *size, seed=6)))
    return norm.to(dtype if dtype == torch.float64 else torch.float32), x.requires_grad_(), gradient


def plain(norm: GroupNorm, x: Tensor) -> Tensor:
    return F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)


@SIZES
def test_it_and_its_gradients_are_those_of_torch(size: tuple[int, int]) -> None:
    assert (size[0] * size[1] < IN_ORDER) == (size == (5, 3)), "both ways forward are tested"
    norm, x, gradient = drawn(size)
    y, expected = norm(x), plain(norm, x)
    assert "_ChannelsLast" in type(y.grad_fn).__name__, "it is not torch that is compared with itself"
    assert (y - expected).abs().max() < 1e-13
    inputs = x, norm.weight, norm.bias
    pairs = zip(torch.autograd.grad(y, inputs, gradient), torch.autograd.grad(expected, inputs, gradient), strict=True)
    for found, true in pairs:
        assert (found - true).abs().max() < 1e-12 * true.abs().max()
    assert y.is_contiguous(memory_format=torch.channels_last)


@SIZES
def test_gradients_of_gradients_know_that_the_moments_depend_on_x(size: tuple[int, int]) -> None:
    norm, x, gradient = drawn(size)

    def twice(y: Tensor) -> tuple[Tensor, ...]:
        (first,) = torch.autograd.grad(y, x, gradient, create_graph=True)
        return torch.autograd.grad(first.square().sum(), (x, norm.weight))

    for found, true in zip(twice(norm(x)), twice(plain(norm, x)), strict=True):
        assert (found - true).abs().max() < 1e-11 * true.abs().max()


@SIZES
def test_in_bf16_it_is_as_exact_as_its_result(size: tuple[int, int]) -> None:
    """The sums are taken in float32, so that only the result is rounded, to a relative 2^-9."""
    norm, x, gradient = drawn(size, torch.bfloat16)
    exact_norm, exact = GroupNorm(4, 12, eps=1e-3).double(), x.detach().double().requires_grad_()
    exact_norm.load_state_dict(norm.state_dict())
    y, expected = norm(x), plain(exact_norm, exact)
    y.backward(gradient)
    expected.backward(gradient.double())
    assert y.dtype == torch.bfloat16 and x.grad is not None and exact.grad is not None
    assert (y - expected).norm() < 2**-8 * expected.norm()
    assert (x.grad - exact.grad).norm() < 2**-8 * exact.grad.norm()
    pairs = ((norm.weight, exact_norm.weight), (norm.bias, exact_norm.bias))
    for found, true in ((a.grad, b.grad) for a, b in pairs):
        assert found is not None and true is not None
        assert (found - true).norm() < 2**-8 * true.norm()


def test_weights_that_are_not_trained_cost_nothing_and_change_nothing() -> None:
    norm, x, gradient = drawn((5, 3))
    expected = torch.autograd.grad(plain(norm, x), x, gradient)[0]
    norm.requires_grad_(False)
    assert (torch.autograd.grad(norm(x), x, gradient)[0] - expected).abs().max() < 1e-13


@pytest.mark.parametrize("shape", [(2, 12, 5, 3), (2, 12, 1, 1), (2, 12, 7), (2, 12)], ids=str)
def test_other_layouts_are_left_to_torch(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(normalization, "_ChannelsLast")
    norm, x = GroupNorm(4, 12), images(*shape)
    assert torch.equal(norm(x), F.group_norm(x, 4, norm.weight, norm.bias))


@pytest.mark.parametrize(
    ("shape", "dtype", "grad", "own"),
    [
        ((2, 64, 32, 16), torch.float32, True, True),
        ((1, 64, 32, 16), torch.float32, True, False),  # Few runs.
        ((1, 64, 32, 16), torch.bfloat16, True, True),
        ((8, 512, 32, 16), torch.float32, True, False),  # Long runs.
        ((2, 64, 32, 32), torch.float32, True, True),
        ((2, 64, 32, 32), torch.float32, False, False),  # Torch's forward pass is fast.
    ],
    ids=str,
)
def test_torch_does_what_it_does_as_fast(
    shape: tuple[int, ...], dtype: torch.dtype, grad: bool, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    norm, x = GroupNorm(32, shape[1]), torch.zeros(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
    called: list[object] = []
    monkeypatch.setattr(normalization._ChannelsLast, "apply", lambda *given: called.append(given) or [given[0]])
    with torch.set_grad_enabled(grad):
        norm(x)
    assert bool(called) == own
