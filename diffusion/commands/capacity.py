"""The number of images that a device holds at once, in training and in sampling, by `backbones.footprint`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from diffusion import memory
from diffusion.backbones import UNetConfig
from diffusion.backbones.footprint import EVALUATED_WEIGHT, TRAINED_WEIGHT, evaluated_bytes, trained_bytes
from diffusion.config import Config
from diffusion.precision import name_of, network_dtype

# The share of a device's memory that is counted on. Work spaces of libraries and gaps between tensors take the rest.
SHARE = 0.8
# The float32 images of a step besides the network's: x, its noise, x_t, the estimate, and what is made of them.
IMAGES = 6


@dataclass(frozen=True)
class Capacity:
    """The bytes that a `device` has left, those that the weights take in training and in sampling, and those that each
    image takes, in a `precision` of the network.
    """

    device: str
    precision: str
    available: int
    training_weights: int
    sampling_weights: int
    training_image: int
    sampling_image: int

    @property
    def trained(self) -> int:
        """The images that a training step holds at once; 0 if not even one."""
        return max(0, int((SHARE * self.available - self.training_weights) / self.training_image))

    @property
    def sampled(self) -> int:
        """The images that are sampled at once; 0 if not even one."""
        return max(0, int((SHARE * self.available - self.sampling_weights) / self.sampling_image))


def capacity(experiment: Config, parameters: int, device: torch.device) -> Capacity | None:
    """The capacity of a device for an experiment whose network has so many parameters; None if it is no U-Net."""
    network, data, options = experiment.backbone, experiment.data, experiment.training
    if not isinstance(network, UNetConfig):
        return None
    dtype, fused, positions = network_dtype(options.precision, device), device.type == "cuda", math.prod(data.shape)
    images = 4 * IMAGES * data.channels * positions
    evaluated = evaluated_bytes(network, positions, bytes_each=dtype.itemsize, fused=fused)
    kept = trained_bytes(
        network,
        data.channels,
        positions,
        bytes_each=dtype.itemsize,
        fused=fused,
        checkpointing=options.gradient_checkpointing,
        mapped=experiment.mapped,
    )
    return Capacity(
        str(device),
        name_of(dtype),
        memory.available(device),
        # Weights are scaled and cast for the forward pass, and those copies are kept too.
        parameters * (TRAINED_WEIGHT + dtype.itemsize),
        parameters * (EVALUATED_WEIGHT + dtype.itemsize),
        # In the backward pass gradients of activations are alive as activations are in an evaluation; of a block that
        # runs again little else is left by then.
        kept + (0 if options.gradient_checkpointing else evaluated) + images,
        evaluated + images,
    )


def lines(experiment: Config, found: Capacity) -> list[str]:
    """Lines about how many images fit, and about what a batch of training that does not fit leads to."""
    batch, options = experiment.training.batch, experiment.training
    said = [
        f"memory    {found.training_image / 1e6:.0f} MB for each image of a training step and "
        f"{found.sampling_image / 1e6:.0f} MB for each sample, in {found.precision}; {SHARE:.0%} of the "
        f"{found.available / 1e9:.1f} GB",
        f"          that are free on {found.device} hold {_count(found.trained)} at once in training and "
        f"{_count(found.sampled)} in sampling",
    ]
    if found.trained >= batch:
        return said
    if found.trained:
        passes = math.ceil(batch / found.trained)
        text = f"a batch of {batch} is gone through in {passes} passes or more, which are found by trying"
    else:
        text = "the network does not fit: make it, or data.size, smaller, or take another device"
    more = "" if options.gradient_checkpointing else "; training.gradient_checkpointing = true takes less memory"
    return [*said, f"          {text}{more}"]


def _count(images: int) -> str:
    return f"{images:,}" if images else "none"
