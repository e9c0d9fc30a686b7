"""The memory that a U-Net takes to train and to evaluate, from its configuration: the bytes of an image and of the
weights.

A layer keeps for the backward pass what its derivative needs. The numbers below count tensors of one value per channel
and pixel at the resolution of their stage; each is there once, however many layers need it. What they leave out,
the means and scales of normalizations and whatever has no pixels, is a percent of it: `tests/backbones` compare them
with what torch counts, to 7 %. A compiler keeps less.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from diffusion.backbones.unet import UNetConfig, heads

# A float32 weight, its gradient, two moments of Adam and its average.
TRAINED_WEIGHT, EVALUATED_WEIGHT = 20, 4


@dataclass(frozen=True)
class Kept:
    """The tensors that the layers of a design keep: a block at its input's width and at its own, attention, the head;
    and those that are alive at a time when nothing is kept, in a block and in one with attention.

    A block keeps what enters its normalizations, activations and convolutions. Attention keeps what enters the
    projection, queries, keys and values, once more before they are normalized, if they are, and its result.
    """

    inputs: int
    block: int
    attention: int
    head: int
    alive: int
    alive_attention: int


KEPT = {"magnitude": Kept(0, 6, 8, 2, 5, 9), "group_norm": Kept(3, 4, 6, 3, 4, 6)}


@dataclass(frozen=True)
class Stage:
    """A residual block, by the widths of its input and output, the positions of an image at its resolution, the number
    of its attention heads, and the values of skips that wait for the decoder while it runs.
    """

    inputs: int
    width: int
    positions: int
    heads: int
    waiting: int


def blocks(config: UNetConfig, positions: int) -> Iterator[Stage]:
    """Yields the residual blocks of a network in their order, for images of so many pixels."""
    deepest, width, waiting = len(config.channels) - 1, config.channels[0], 0
    shapes = [(stage, positions // config.patch**2 >> 2 * stage) for stage in range(deepest + 1)]

    def block(stage: int, count: int, inputs: int) -> Stage:
        attending = heads(config.channels[stage]) if stage in config.attention else 0
        return Stage(inputs, config.channels[stage], count, attending, waiting)

    for stage, count in shapes:
        for _ in range(config.blocks):
            yield block(stage, count, width)
            width = config.channels[stage]
        waiting += width * count
    waiting -= width * shapes[-1][1]  # The middle block begins from the skip.
    yield block(deepest, shapes[-1][1], width)
    waiting += width * shapes[-1][1]
    for stage, count in reversed(shapes):
        width = config.channels[stage]
        waiting -= width * count
        for _ in range(config.blocks):
            yield block(stage, count, width)


def trained_bytes(
    config: UNetConfig,
    channels: int,
    positions: int,
    *,
    bytes_each: int,
    fused: bool = True,
    checkpointing: bool = False,
    mapped: bool = False,
) -> int:
    """Returns the bytes that the forward pass of training keeps for an image of `channels` channels and `positions`
    pixels, its values of `bytes_each` bytes.

    Without `fused` attention, as on CPUs, all weights of attention are kept too. With gradient `checkpointing` a block
    keeps its input alone, and while it runs again all that it would have kept. Each block of a `mapped` network keeps
    the modulations of its pixels too.
    """
    kept, every = KEPT[config.design], list(blocks(config, positions))
    inner = [_kept_by(config, stage, fused=fused) + (stage.width * stage.positions if mapped else 0) for stage in every]
    stem = (channels * (1 + 2 * config.fourier) + mapped) * config.patch**2 + 1
    own = (stem + kept.head * config.channels[0]) * every[0].positions
    # The encoder's stages end in a downsampling, which keeps what it averages, and the decoder's begin with a layer
    # that keeps the result of the coarser stage, or of the middle block.
    sizes = [width * (every[0].positions >> 2 * stage) for stage, width in enumerate(config.channels)]
    own += sum(sizes[:-1]) + sum(sizes[1:]) + sizes[-1]
    if checkpointing:
        return bytes_each * (own + max(inner) + sum(stage.inputs * stage.positions for stage in every))
    return bytes_each * (own + sum(inner))


def evaluated_bytes(config: UNetConfig, positions: int, *, bytes_each: int, fused: bool = True) -> int:
    """Returns the most bytes that an evaluation without gradients has alive for an image at a time."""
    kept, most = KEPT[config.design], 0
    for stage in blocks(config, positions):
        tensors = kept.alive_attention + fused if stage.heads else kept.alive  # The fused kernel's result is one more.
        values = stage.waiting + tensors * stage.width * stage.positions
        # Without it there are the logits, and the weights that are made of them.
        most = max(most, values + (0 if fused else 2 * stage.heads * stage.positions**2))
    return bytes_each * most


def _kept_by(config: UNetConfig, stage: Stage, *, fused: bool) -> int:
    """The values that a block keeps for an image."""
    kept, changes = KEPT[config.design], stage.inputs != stage.width
    values = (max(kept.inputs, int(changes)) * stage.inputs + kept.block * stage.width) * stage.positions
    if stage.heads:
        values += kept.attention * stage.width * stage.positions
        if not fused:
            values += stage.width * stage.positions + stage.heads * stage.positions**2
    return values
