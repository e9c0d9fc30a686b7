"""What `diffusion doctor CONFIG` says of a network with new weights: signals and gradients by depth, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion import model, plots
from diffusion.backbones import Backbone
from diffusion.backbones.backbone import ResidualBlock
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.data.sources import POINTS
from diffusion.errors import InputError
from diffusion.propagation import LIMITS, SCALES, Change, Propagation, propagate

INPUTS = 4
# Images are this many pixels wide at the coarsest resolution of a U-Net; more take longer and give the same numbers.
COARSEST = 2
# The gray levels of images, and their standard deviation in units of a level.
LEVELS, STD = 256, 64.0
# The most blocks that are listed.
ROWS = 24
# What two directions of each change are called: a fall and a rise.
WORDS = {
    "signal": ("signals vanish", "signals explode"),
    "gradient": ("gradients vanish", "gradients explode"),
    "separation": ("nearby inputs converge", "nearby inputs diverge"),
}


@dataclass(frozen=True)
class Network:
    """A new network, the shape of the inputs that it was given, and what reaches each of its residual blocks.

    There is no `propagation` where it has no blocks.
    """

    backbone: Backbone
    shape: tuple[int, ...]
    propagation: Propagation | None


def examined(experiment: Config) -> Network:
    """Measures the network of an experiment with new weights, drawn by `training.seed`, on white inputs at log-SNR 0
    without labels. No data are read.
    """
    with torch.random.fork_rng():
        torch.manual_seed(experiment.training.seed)
        points = experiment.data.source in POINTS
        shape: tuple[int, ...] = (2,) if points else (experiment.data.channels, *experiment.data.shape)
        backbone = model.build(experiment, DataSpec(shape, None if points else LEVELS, std=1.0 if points else STD))
        backbone.eval()
        if not points:
            most = COARSEST * int(getattr(backbone, "multiple", 1))
            shape = (shape[0], *(min(side, most) for side in shape[1:]))
        blocks: dict[str, nn.Module] = {n: m for n, m in backbone.named_modules() if isinstance(m, ResidualBlock)}
        x = torch.randn(INPUTS, *shape)

        def run(x: Tensor) -> Tensor:
            return backbone(x, torch.zeros(len(x)))

        return Network(backbone, shape, propagate(run, blocks, x) if blocks else None)


def table(network: Network) -> Iterator[str]:
    """Lines about a network: what it is, and what reaches its blocks."""
    parameters = sum(p.numel() for p in network.backbone.parameters())
    given = "x".join(map(str, network.shape))
    yield f"{type(network.backbone).__name__}, {parameters:,} parameters, new weights; {INPUTS} white inputs of {given}"
    if network.propagation is None:
        return
    layers = network.propagation.layers
    width = max(len("block"), *(len(layer.name) for layer in layers))
    yield f"{'block':{width}s}{'signal':>10s}{'gradient':>10s}{'distance':>10s}{'correlation':>13s}"
    last = layers[-1].gradient or 1.0
    every = math.ceil(len(layers) / ROWS)
    # Counted from the last one, which is where the gradient enters and what the verdict is about.
    for layer in layers[(len(layers) - 1) % every :: every]:
        numbers = f"{layer.signal:10.3g}{layer.gradient / last:10.3g}{layer.separation:10.3g}{layer.correlation:13.3f}"
        yield f"{layer.name:{width}s}{numbers}"


def drawn(network: Network, path: Path) -> Path:
    """Draws what reaches each block: signals as a multiple of the first block's, gradients of the last block's.

    Raises InputError for a network without blocks.
    """
    found = network.propagation
    if found is None:
        raise InputError("--out: must be left out for a network without residual blocks, which has no depth to draw")
    first, last = found.layers[0].signal or 1.0, found.layers[-1].gradient or 1.0
    curves = {
        "signal": [layer.signal / first for layer in found.layers],
        "gradient": [layer.gradient / last for layer in found.layers],
        "distance": [layer.separation for layer in found.layers],
    }
    return plots.by_depth(curves, [layer.correlation for layer in found.layers], LIMITS, path)


def verdict(network: Network) -> tuple[str, str]:
    """Says whether a network is within the trainable range, and what to do if it is not; empty if it is."""
    found = network.propagation
    if found is None:
        return "one hidden layer: there is no depth over which signals or gradients could vanish", ""
    changes = {"signal": found.signal, "gradient": found.gradient, "separation": found.separation}
    if found.trainable:
        factors = ", ".join(f"{name} x{change.factor:.2g}" for name, change in changes.items())
        factors = factors.replace("separation", "distance")
        within = f"within the trainable range ({factors}, each between {LIMITS[0]:.2g} and {LIMITS[1]:.0f})"
        return within + _faintest(found), ""
    wrong = {name: change for name, change in changes.items() if not change.within}
    told = ", ".join(_told(name, change) for name, change in wrong.items())
    reach = int(SCALES * min(change.depth_scale for change in wrong.values()))
    return (
        f"outside of the trainable range: {told}",
        f"what reaches over more than about {reach} such blocks is lost: take fewer, or another backbone",
    )


def _faintest(found: Propagation) -> str:
    """Names the block whose gradient is furthest from that of the last one; empty if none is beyond the limits."""
    layer, change = found.faintest
    return "" if change.within else f"; {layer.name} has x{change.factor:.2g} of the gradient, which AdamW rescales"


def _told(name: str, change: Change) -> str:
    word = WORDS[name][change.factor > 1]
    return f"{word} (x{change.factor:.2g} over {change.layers} blocks, χ = {change.rate:.3g})"
