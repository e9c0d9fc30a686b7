"""The tensors of guided-diffusion: what network they are of, and their names in `UNet2DModel`.

    time_embed.0, .2, label_emb        time_embedding.linear_1, .linear_2, class_embedding
    input_blocks.0.0, out.0, out.2     conv_in, conv_norm_out, conv_out
    input_blocks.N.0, .1               down_blocks.L.resnets.B, .attentions.B; or .downsamplers.0
    middle_block.0, .1, .2             mid_block.resnets.0, .attentions.0, .resnets.1
    output_blocks.N.0, .1, the last    up_blocks.L.resnets.B, .attentions.B, .upsamplers.0

Most of what the flags say of a network shows in the names and shapes of its tensors, so that a wrong flag can be named
with the value that it must have. How many heads attention has, and in which order their queries, keys and values lie,
leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from einops import rearrange
from torch import Tensor

from diffusion.errors import InputError, require

SINGLE = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ATTENTION = {"norm": "group_norm", "qkv": "qkv", "proj_out": "to_out.0"}
PROJECTIONS = ("to_q", "to_k", "to_v")


@dataclass(frozen=True)
class Layout:
    """What the tensors say of a network.

    `channels` and `outputs` are the channels that go in and come out, and `features` the numbers that tell it the time.
    Each level has a width, `blocks` residual blocks in the encoder and one more in the decoder, and attention or none.
    With `residual` the resolution changes in residual blocks, and with `scale_shift` these are scaled and shifted.
    `classes` is the number of labels, 0 for none.
    """

    channels: int
    outputs: int
    features: int
    widths: tuple[int, ...]
    attending: tuple[bool, ...]
    blocks: int
    residual: bool
    scale_shift: bool
    classes: int


def layout_of(tensors: Mapping[str, Tensor], where: str) -> Layout:
    """Returns what tensors say of their network. Raises InputError for those of no U-Net of guided-diffusion."""

    def shape(name: str, axes: int) -> tuple[int, ...]:
        if name not in tensors or tensors[name].ndim != axes:
            raise InputError(f"{where}: has no {name} of {axes} axes, which each U-Net of guided-diffusion has")
        return tuple(tensors[name].shape)

    convolution = shape("input_blocks.0.0.weight", 4)
    if not any(name.startswith("output_blocks.") for name in tensors):
        raise InputError(f"{where}: is a classifier of guided-diffusion, which makes no images")
    count = 0
    while f"output_blocks.{count}.0.in_layers.0.weight" in tensors:
        count += 1
    # A level of the decoder ends with the first block that changes the resolution.
    ends = [n for n in range(count) if any(f"output_blocks.{n}.{end}.weight" in tensors for end in _ENDS)]
    per_level = ends[0] + 1 if ends else count
    rule = "blocks of as many in each level, at least 2"
    require(per_level >= 2 and count % per_level == 0, f"{where}: output_blocks", rule, f"{count} with ends at {ends}")
    firsts = [f"input_blocks.{1 + place}" for place in range(0, count, per_level)]
    widths = tuple(shape(f"{first}.0.out_layers.0.weight", 1)[0] for first in firsts)
    return Layout(
        channels=convolution[1],
        outputs=shape("out.2.weight", 4)[0],
        features=shape("time_embed.0.weight", 2)[1],
        widths=widths,
        attending=tuple(f"{first}.1.qkv.weight" in tensors for first in firsts),
        blocks=per_level - 1,
        residual=not any(name.endswith(".op.weight") for name in tensors),
        scale_shift=shape(f"{firsts[0]}.0.emb_layers.1.weight", 2)[0] == 2 * widths[0],
        classes=shape("label_emb.weight", 2)[0] if "label_emb.weight" in tensors else 0,
    )


# The layers at the end of a block that change the resolution: a residual block, or a convolution, with attention before
# it or without.
_ENDS = ("1.in_layers.0", "2.in_layers.0", "1.conv", "2.conv")


def layers(layout: Layout) -> Iterator[tuple[str, str]]:
    """Yields the names of all layers of a network, with those that they have in `UNet2DModel`.

    The three projections of attention are one layer, qkv.
    """
    yield from SINGLE.items()
    size, deepest = layout.blocks + 1, len(layout.widths) - 1
    for level, attends in enumerate(layout.attending):
        first, own = 1 + level * size, f"down_blocks.{level}"
        for block in range(layout.blocks):
            yield from _block(f"input_blocks.{first + block}", own, block, attends)
        if level < deepest:
            yield from _resampling(f"input_blocks.{first + layout.blocks}.0", f"{own}.downsamplers.0", layout, "op")
    yield from _named(RESNET, "middle_block.0", "mid_block.resnets.0")
    yield from _named(ATTENTION, "middle_block.1", "mid_block.attentions.0")
    yield from _named(RESNET, "middle_block.2", "mid_block.resnets.1")
    for level, attends in enumerate(reversed(layout.attending)):
        first, own = level * size, f"up_blocks.{level}"
        for block in range(size):
            yield from _block(f"output_blocks.{first + block}", own, block, attends)
        if level < deepest:
            last = f"output_blocks.{first + layout.blocks}.{1 + attends}"
            yield from _resampling(last, f"{own}.upsamplers.0", layout, "conv")


def _block(old: str, own: str, number: int, attends: bool) -> Iterator[tuple[str, str]]:
    yield from _named(RESNET, f"{old}.0", f"{own}.resnets.{number}")
    if attends:
        yield from _named(ATTENTION, f"{old}.1", f"{own}.attentions.{number}")


def _resampling(old: str, own: str, layout: Layout, convolution: str) -> Iterator[tuple[str, str]]:
    yield from _named(RESNET if layout.residual else {convolution: "conv"}, old, own)


def _named(names: Mapping[str, str], old: str, own: str) -> Iterator[tuple[str, str]]:
    return ((f"{old}.{a}", f"{own}.{b}") for a, b in names.items())


def renamed(
    tensors: Mapping[str, Tensor], layout: Layout, heads: Mapping[int, int], *, new_order: bool, where: str
) -> dict[str, Tensor]:
    """Returns tensors under their names in `UNet2DModel`, with queries, keys and values apart.

    `heads` has the number of heads for each width that attends. The rows of qkv are in the order (heads, 3, rows of a
    head), or with `new_order` (3, heads, rows of a head), in which the three come apart. Raises InputError for a tensor
    that is part of no layer.
    """
    names, found = dict(layers(layout)), {}
    for name, value in tensors.items():
        layer, _, kind = name.rpartition(".")
        if layer not in names or kind not in ("weight", "bias"):
            raise InputError(f"{where}: {name} is no part of the network that the other tensors are of")
        own = names[layer]
        if ".attentions." not in own:
            found[f"{own}.{kind}"] = value
            continue
        # Convolutions of one pixel are linear layers.
        value = value.flatten(1) if value.ndim > 1 else value
        if not own.endswith("qkv"):
            found[f"{own}.{kind}"] = value
            continue
        rows = {3 * width: count for width, count in heads.items()}
        count = rows.get(len(value), 0) if value.ndim else 0
        require(count, f"{where}: {name}", f"of {' or '.join(map(str, rows))} rows", tuple(value.shape))
        order = "(three heads rows)" if new_order else "(heads three rows)"
        parts = rearrange(value, f"{order} ... -> three (heads rows) ...", three=3, heads=count)
        for projection, part in zip(PROJECTIONS, parts, strict=True):
            found[f"{own.removesuffix('qkv')}{projection}.{kind}"] = part
    return found
