"""Signal propagation: wide random networks against mean-field theory, and which of them are outside of the trainable
range.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from diffusion.propagation import LIMITS, Change, Propagation, propagate

Activation = Callable[[Tensor], Tensor]
BATCH = 16


class Plain(nn.Module):
    """A perceptron of equal widths with Gaussian weights of variance `weight`/width and biases of variance `bias`."""

    def __init__(self, depth: int, activation: Activation, weight: float, bias: float = 0.0, width: int = 512) -> None:
        super().__init__()
        self.activation, self.width = activation, width
        layers = [nn.Linear(width, width, dtype=torch.float64) for _ in range(depth)]
        for layer in layers:
            nn.init.normal_(layer.weight, std=(weight / width) ** 0.5)
            nn.init.normal_(layer.bias, std=bias**0.5)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[0](x)
        for layer in self.layers[1:]:
            x = layer(self.activation(x))
        return x

    def measured(self, variance: float) -> Propagation:
        """What reaches each pre-activation for inputs of a variance."""
        x = variance**0.5 * torch.randn(BATCH, self.width, dtype=torch.float64)
        return propagate(self, {str(i): layer for i, layer in enumerate(self.layers)}, x)


def gauss(count: int = 201) -> tuple[Tensor, Tensor]:
    """Nodes and weights of a quadrature over a standard normal number."""
    z = torch.linspace(-8, 8, 8 * count, dtype=torch.float64)
    weight = torch.exp(-z.square() / 2)
    return z, weight / weight.sum()


def variance_map(q: float, activation: Activation, weight: float, bias: float) -> float:
    z, share = gauss()
    return weight * float((share * activation(q**0.5 * z).square()).sum()) + bias


def covariance_map(q: float, c: float, activation: Activation, weight: float, bias: float) -> float:
    """The covariance of pre-activations of the next layer for two inputs of variance q and correlation c."""
    z, share = gauss(25)
    u, v = q**0.5 * z[:, None], q**0.5 * (c * z[:, None] + (1 - c**2) ** 0.5 * z[None])
    return weight * float((share[:, None] * share * activation(u) * activation(v)).sum()) + bias


def fixed_point(activation: Activation, weight: float, bias: float) -> float:
    q = 1.0
    for _ in range(500):
        q = variance_map(q, activation, weight, bias)
    return q


def growth(q: float, activation: Activation, weight: float) -> float:
    """χ = σ_w² E φ'(√q z)²."""
    z, share = gauss()
    at = (q**0.5 * z).requires_grad_()
    (slope,) = torch.autograd.grad(activation(at).sum(), at)
    return weight * float((share * slope.square()).sum())


# χ is 0.467, 0.964 and 1.583.
PHASES = pytest.mark.parametrize(
    ("weight", "bias"), [(0.8, 0.3), (1.6, 0.05), (6.25, 0.1)], ids=["ordered", "edge", "chaotic"]
)


@PHASES
def test_rates_of_a_deep_tanh_network_are_those_of_mean_field_theory(weight: float, bias: float) -> None:
    """Inputs whose first pre-activations have the variance of the fixed point keep it, so that χ holds at any depth."""
    torch.manual_seed(0)
    q, depth = fixed_point(torch.tanh, weight, bias), 12
    expected = growth(q, torch.tanh, weight)
    found = Plain(depth, torch.tanh, weight, bias).measured((q - bias) / weight)
    # Over seeds the rates are within 2 % of theory, and the signals of single layers within 7 %.
    for layer in found.layers:
        assert layer.signal == pytest.approx(q**0.5, rel=0.07)
    first, last = found.layers[0], found.layers[-1]
    assert (last.separation / first.separation) ** (2 / (depth - 1)) == pytest.approx(expected, rel=0.03)
    assert (first.gradient / last.gradient) ** (2 / (depth - 1)) == pytest.approx(expected, rel=0.03)
    assert found.gradient.rate == pytest.approx(expected, rel=0.03)


@PHASES
def test_correlations_of_independent_inputs_follow_the_correlation_map(weight: float, bias: float) -> None:
    torch.manual_seed(1)
    q = fixed_point(torch.tanh, weight, bias)
    found = Plain(10, torch.tanh, weight, bias).measured((q - bias) / weight)
    correlations = [layer.correlation for layer in found.layers]
    assert correlations[0] == pytest.approx(bias / q, abs=0.04)
    for before, after in pairwise(correlations):
        assert after == pytest.approx(covariance_map(q, before, torch.tanh, weight, bias) / q, abs=0.04)
    # Only in the chaotic phase do inputs that begin alike end at a correlation below one.
    assert (correlations[-1] > 0.98) == (weight == 0.8) and correlations[-1] > correlations[0]


@pytest.mark.parametrize("weight", [1.0, 2.0, 3.0])
def test_a_relu_network_scales_signals_and_gradients_by_half_of_the_variance_of_its_weights(weight: float) -> None:
    torch.manual_seed(2)
    found = Plain(20, torch.relu, weight).measured(1 / weight)
    assert found.layers[0].signal == pytest.approx(1, rel=0.05)
    for change in found.signal, found.gradient:
        assert change.rate == pytest.approx(weight / 2, rel=0.03)


@pytest.mark.parametrize(
    ("activation", "weight", "bias", "depth", "trainable"),
    [
        pytest.param(torch.tanh, 0.8, 0.3, 30, False, id="ordered"),
        pytest.param(torch.tanh, 6.25, 0.1, 30, False, id="chaotic"),
        pytest.param(torch.tanh, 0.8, 0.3, 6, True, id="ordered, within 6 depth scales"),
        pytest.param(torch.tanh, 6.25, 0.1, 6, True, id="chaotic, within 6 depth scales"),
        pytest.param(torch.tanh, 1.6, 0.05, 30, True, id="tanh at the edge"),
        pytest.param(torch.relu, 2.0, 0.0, 40, True, id="He"),
        pytest.param(torch.relu, 1.0, 0.0, 40, False, id="ReLU with half the variance"),
        pytest.param(torch.relu, 3.0, 0.0, 40, False, id="ReLU with more variance"),
    ],
)
def test_deep_networks_away_from_criticality_are_outside_of_the_trainable_range(
    activation: Activation, weight: float, bias: float, depth: int, trainable: bool
) -> None:
    torch.manual_seed(3)
    found = Plain(depth, activation, weight, bias, width=256).measured(1.0)
    assert found.trainable is trainable
    if not trainable:
        assert not found.gradient.within and not (found.separation.within and found.signal.within)
        assert depth > 6 * found.gradient.depth_scale


class Residual(nn.Module):
    """Pre-activation residual layers x + scale · W φ(x), in which χ = 1 + scale² · weight · E φ'² at any depth."""

    def __init__(self, depth: int, scale: float) -> None:
        super().__init__()
        self.layers, self.scale = Plain(depth, torch.relu, 2.0, width=256).layers, scale
        self.ends = nn.ModuleList(nn.Identity() for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer, end in zip(self.layers, self.ends, strict=True):
            x = end(x + self.scale * layer(torch.relu(x)))
        return x


def test_shortcuts_are_judged_by_the_change_over_the_whole_depth() -> None:
    """Residual layers add up: 40 of branch scale 0.2 change gradients by 1.04^20, of scale 1 by 2^20."""
    torch.manual_seed(4)
    for scale, trainable in ((0.2, True), (1.0, False), (0.0, True)):
        network = Residual(40, scale)
        x = torch.randn(BATCH, 256, dtype=torch.float64)
        found = propagate(network, {str(i): end for i, end in enumerate(network.ends)}, x)
        assert found.gradient.rate == pytest.approx(1 + scale**2, rel=0.02) and found.trainable is trainable
        if not scale:
            assert found.signal.factor == found.gradient.factor == 1
            assert found.separation.factor == pytest.approx(1, rel=1e-6)


def test_layers_are_measured_in_the_order_in_which_they_run_and_without_a_trace() -> None:
    first, second = nn.Linear(3, 3, dtype=torch.float64), nn.Linear(3, 3, dtype=torch.float64)
    x = torch.randn(4, 3, dtype=torch.float64)
    found = propagate(lambda x: first(second(first(x))), {"first": first, "second": second}, x)
    assert [layer.name for layer in found.layers] == ["first", "second", "first"]
    assert not first._forward_hooks and first.weight.grad is None


def test_a_layer_that_passes_nothing_on_has_no_gradient_and_is_outside() -> None:
    dead = nn.Linear(3, 3, dtype=torch.float64)
    nn.init.zeros_(dead.weight)
    first = nn.Linear(3, 3, dtype=torch.float64)
    found = propagate(nn.Sequential(first, dead), {"first": first, "dead": dead}, torch.randn(4, 3).double())
    assert found.layers[0].gradient == 0 == found.gradient.factor and not found.trainable
    assert found.faintest[0].name == "first"
    assert found.layers[1].separation == 0 and found.gradient.depth_scale == 0


def test_what_goes_around_a_layer_reaches_the_other_end() -> None:
    """Of x + W f(x) with a small W the ends agree, and the layers inside are the ones with little gradient."""
    torch.manual_seed(5)
    first, inside, last = nn.Linear(64, 64).double(), nn.Linear(64, 64).double(), nn.Identity()
    with torch.no_grad():
        inside.weight *= 1e-3

    def run(x: Tensor) -> Tensor:
        x = first(x)
        y: Tensor = last(x + inside(between(torch.tanh(x))))
        return y

    between = nn.Identity()
    found = propagate(run, {"first": first, "between": between, "last": last}, torch.randn(8, 64).double())
    assert found.trainable and found.gradient.factor == pytest.approx(1, rel=0.01)
    layer, change = found.faintest
    assert layer.name == "between" and not change.within
    # The gradient is that of the sum times the weights, which are uniform with variance 1e-6 / (3 · 64).
    assert change.factor == pytest.approx(1e-3 / 3**0.5, rel=0.1) and change.layers == 1


def test_a_mean_square_changes_by_e_over_a_depth_scale() -> None:
    change = Change(math.e**-2, 8)
    assert change.rate == pytest.approx(math.e**-0.5) and change.depth_scale == pytest.approx(2)
    assert Change(1.0, 0).rate == 1 and Change(1.0, 5).depth_scale == math.inf
    # The limit is passed where the depth is six of these scales.
    for low_or_high, sign in zip(LIMITS, (-1, 1), strict=True):
        assert Change(low_or_high, 12).depth_scale == pytest.approx(2)
        assert Change(low_or_high * math.exp(-1e-9 * sign), 1).within
        assert not Change(low_or_high * math.exp(1e-9 * sign), 1).within


@pytest.mark.parametrize(
    ("count", "layers", "message"),
    [
        (1, {"all": nn.Identity()}, "x: must be at least two inputs, got 1"),
        (2, {}, "layers: must be modules that the network runs, got []"),
        (2, {"other": nn.Identity()}, "layers: must be modules that the network runs, got ['other']"),
    ],
)
def test_bad_arguments_are_named(count: int, layers: dict[str, nn.Module], message: str) -> None:
    run = layers.get("all", nn.Identity())
    with pytest.raises(ValueError, match=re.escape(message)):
        propagate(run, layers, torch.zeros(count, 3))
