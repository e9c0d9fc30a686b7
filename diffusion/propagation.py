"""Signal propagation: the scale of activations and gradients by depth, and whether two inputs converge or diverge.

In a wide random network two nearby inputs converge with depth (ordered) or diverge (chaotic), and gradients vanish or
explode at the same rate: their mean squares grow by χ per layer, and by e over a depth scale ξ = 1/|log χ| (Poole et
al. 2016, arXiv 1606.05340; Schoenholz et al. 2017, arXiv 1611.01232). For weights of variance σ_w²/N, biases of
variance σ_b², the activation φ and a standard normal z,

    q_{l+1} = σ_w² E φ(√q_l z)² + σ_b²         the variance of pre-activations
    χ = σ_w² E φ'(√q z)²                       at the fixed point q of this map

Schoenholz et al. find networks trainable up to a depth of about 6 ξ. Over 6 ξ a mean square changes by the factor e⁶, a
root mean square by e³ = 20. `LIMITS` is that factor, and it holds for the whole depth: shortcuts and normalization make
rates change with depth (Yang and Schoenholz 2017, arXiv 1712.08969), so that they have no one depth scale.

The outputs of new diffusion networks are often zero, as are the gradients of all that lies before such a layer. So the
gradient is that of a random projection of the last layer measured, behind which nothing is evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.errors import require

# The number of depth scales over which signals and gradients reach, and the factors of root mean squares over them.
SCALES = 6.0
LIMITS = math.exp(-SCALES / 2), math.exp(SCALES / 2)


@dataclass(frozen=True)
class Layer:
    """What reaches one layer of a network.

    `signal` is the root mean square of its output, `gradient` that of the gradient there. `separation` is the distance
    of two nearby inputs here, relative to the signal, as a multiple of that at the input of the network. `correlation`
    is the cosine of the outputs for two independent inputs.
    """

    name: str
    signal: float
    gradient: float
    separation: float
    correlation: float


@dataclass(frozen=True)
class Change:
    """The change of a root mean square over depth: its `factor`, after so many `layers`."""

    factor: float
    layers: int

    @property
    def rate(self) -> float:
        """χ, the factor of the mean square per layer; 1 where no layer lies between."""
        return float(self.factor ** (2 / self.layers)) if self.layers else 1.0

    @property
    def nats(self) -> float:
        """|log factor|; infinite for a factor that is 0 or infinite."""
        return abs(math.log(self.factor)) if 0 < self.factor < math.inf else math.inf

    @property
    def depth_scale(self) -> float:
        """ξ = 1/|log χ|, the layers over which the mean square changes by e; infinite where it does not."""
        return self.layers / (2 * self.nats) if self.nats else math.inf

    @property
    def within(self) -> bool:
        """Whether the factor lies within `LIMITS`."""
        return LIMITS[0] <= self.factor <= LIMITS[1]


@dataclass(frozen=True)
class Propagation:
    """The layers of a network from its input on, in the order in which they run.

    The three changes are those from one end to the other. Where a layer has others beside it, as in a U-Net, what it
    loses may reach the end beside it; `faintest` is the layer whose gradient differs most.
    """

    layers: tuple[Layer, ...]

    @property
    def signal(self) -> Change:
        """The change of activations from the first layer to the last."""
        return self._change(self.layers[-1].signal, self.layers[0].signal)

    @property
    def gradient(self) -> Change:
        """The change of gradients from the last layer back to the first."""
        return self._change(self.layers[0].gradient, self.layers[-1].gradient)

    @property
    def separation(self) -> Change:
        """The change of the distance of nearby inputs from the input of the network to the last layer."""
        return Change(self.layers[-1].separation, len(self.layers))

    @property
    def trainable(self) -> bool:
        """Whether all three changes lie within `LIMITS`."""
        return self.signal.within and self.gradient.within and self.separation.within

    @property
    def faintest(self) -> tuple[Layer, Change]:
        """The layer whose gradient differs most from that of the last layer, with that change."""
        last = len(self.layers) - 1
        changes = [_change(layer.gradient, self.layers[last].gradient, last - i) for i, layer in enumerate(self.layers)]
        place = max(range(len(changes)), key=lambda i: changes[i].nats)
        return self.layers[place], changes[place]

    def _change(self, value: float, before: float) -> Change:
        return _change(value, before, len(self.layers) - 1)


def propagate(run: Callable[[Tensor], Any], layers: Mapping[str, nn.Module], x: Tensor) -> Propagation:
    """Measures what reaches each of the `layers` of a network that `run` evaluates.

    x: (B, *), at least two independent inputs, whose precision decides how near nearby inputs are: the root of its
    rounding error, relative to x. A layer returns a tensor (B, *); one that runs several times is measured each time.
    Draws from torch's global random numbers. Raises InputError unless there are two inputs and a layer runs.
    """
    require(len(x) >= 2, "x", "at least two inputs", len(x))
    names, outputs = _outputs(run, layers, x.requires_grad_())
    require(bool(outputs), "layers", "modules that the network runs", list(layers))
    last = outputs[-1]
    gradients = torch.autograd.grad(last, outputs, torch.randn_like(last), allow_unused=True)
    with torch.no_grad():
        x = x.detach()
        near = torch.finfo(x.dtype).eps ** 0.5 * _rms(x) * torch.randn_like(x)
        _, moved = _outputs(run, layers, x + near)
        before = _rms(near) / _rms(x)
        found = [
            Layer(name, _rms(y), 0.0 if g is None else _rms(g), _rms(z - y) / (_rms(y) or 1) / before, _correlation(y))
            for name, y, g, z in zip(names, outputs, gradients, moved, strict=True)
        ]
    return Propagation(tuple(found))


def _outputs(
    run: Callable[[Tensor], Any], layers: Mapping[str, nn.Module], x: Tensor
) -> tuple[list[str], list[Tensor]]:
    """The names and outputs of layers as a network runs on x."""
    names: list[str] = []
    outputs: list[Tensor] = []

    def kept(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ANN401, the inputs of any module
            names.append(name)
            outputs.append(output)

        return keep

    handles = [layer.register_forward_hook(kept(name)) for name, layer in layers.items()]
    try:
        run(x)
    finally:
        for handle in handles:
            handle.remove()
    return names, outputs


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def _correlation(y: Tensor) -> float:
    """The cosine of each example with the next one, over their mean square, on average."""
    flat = y.flatten(1)
    square = float(flat.square().sum(1).mean())
    return float((flat * flat.roll(1, 0)).sum(1).mean()) / square if square else 1.0


def _change(value: float, before: float, layers: int) -> Change:
    return Change(value / before if before else 0.0, layers)
