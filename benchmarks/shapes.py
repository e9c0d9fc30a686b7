"""What the network of each configuration costs by its shapes alone: FLOP and memory, on tensors without values.

    python -m benchmarks.shapes [CONFIG ...]

Prints for each shipped configuration of images, or for those that are named, the comment that it has beside its
network. FLOP are two per multiply-add of convolutions and matrix products. A training step takes three times those of
the forward pass. The memory of an image is what the backward pass needs of the forward pass in bf16 autocast; the state
is that of training: weights, gradients, two moments and the average, in float32. Torch counts both here; for any
network in a moment, `diffusion.backbones.footprint` works them out.
"""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from benchmarks import flops
from diffusion import config, shipped
from diffusion.backbones import Backbone, UNetConfig
from diffusion.backbones.footprint import TRAINED_WEIGHT
from diffusion.config import Config

WIDTH = 120


@dataclass(frozen=True)
class Cost:
    """The parameters of a network, its FLOP for an image, and the bytes that training keeps of an image."""

    parameters: int
    forward: int
    image_bytes: int

    @property
    def training(self) -> int:
        """The FLOP of both passes for an image, with the gradient of the image itself, which is not computed."""
        return 3 * self.forward

    @property
    def state_bytes(self) -> int:
        """The bytes of the state of training."""
        return TRAINED_WEIGHT * self.parameters

    def __str__(self) -> str:
        return (
            f"{self.parameters / 1e6:.1f} M parameters. {quantity(self.forward / 1e9)} GFLOP per image forward, "
            f"{quantity(self.training / 1e9)} in training, which keeps {quantity(self.image_bytes / 2**20)} MiB per "
            f"image in bf16, besides {quantity(self.state_bytes / 2**20)} MiB of state."
        )


def quantity(value: float) -> str:
    """Returns a number with two significant digits, three from 100 on."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.2g}".rstrip(".")


def forward(experiment: Config) -> int:
    """Returns the FLOP of the forward pass for an image."""
    with FakeTensorMode(), torch.no_grad():
        network, x = _built(experiment)
        return flops.count(lambda: network(x, torch.empty(1)))


def cost(experiment: Config) -> Cost:
    """Returns what the network of an experiment costs, for images of the size of its data."""
    with FakeTensorMode():
        network, x = _built(experiment)
        # What two images take more than one is that of an image: the rest is of weights.
        kept = [_kept(network, x.expand(n, -1, -1, -1)) for n in (1, 2)]
    parameters = sum(p.numel() for p in network.parameters())
    return Cost(parameters, forward(experiment), kept[1] - kept[0])


def _built(experiment: Config) -> tuple[Backbone, Tensor]:
    data = experiment.data
    outputs = data.channels * (2 if experiment.model.learned_variance else 1)
    network = experiment.backbone.build(data.channels, outputs, spacing=2 / 255, mapped=experiment.mapped)
    return network, torch.empty(1, data.channels, *data.shape)


def _kept(network: Backbone, x: Tensor) -> int:
    """Returns the bytes of what the backward pass needs of the forward pass, each storage once."""
    kept: dict[int, Tensor] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage()._cdata] = t
        return t

    # The network takes the fused attention of a GPU, which keeps no matrix of all pairs of pixels.
    fused = mock.patch.object(FakeTensor, "is_cuda", new=True)
    with fused, saved_tensors_hooks(pack, lambda t: t), torch.autocast("cpu", torch.bfloat16):
        network(x, torch.empty(len(x)), None, torch.empty_like(x[:, :1]) if network.mapped else None)
        return sum(t.untyped_storage().nbytes() for t in kept.values())


def comment(found: Cost) -> str:
    """Returns the comment of a configuration, in lines of its width."""
    return "\n".join(f"# {line}" for line in textwrap.wrap(str(found), WIDTH - 2))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("configs", type=Path, nargs="*", metavar="CONFIG", help="default: all shipped ones of images")
    for path in options.parse_args().configs or shipped.configurations().values():
        experiment = config.load(path)
        if isinstance(experiment.backbone, UNetConfig):
            print(f"{path.stem}\n{comment(cost(experiment))}")


if __name__ == "__main__":
    main()
