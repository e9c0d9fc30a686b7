"""The options of diffusers' `UNet2DModel`, under their names in its config.json, and how a network is built of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from diffusion.backbones.backbone import BackboneConfig
from diffusion.backbones.unet2d_blocks import Layers, Level, decoder, encoder, middle
from diffusion.backbones.unet2d_network import Parts, UNet2D
from diffusion.backbones.unet2d_time import Times
from diffusion.errors import InputError, require, require_one

DOWN = ("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D")
UP = ("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D")
MID = "UNetMidBlock2D"
# Kinds of levels that are known and not taken, by the beginnings of their names, and what they need.
OTHERS = {
    "Skip": "FIR filters, as NCSN++ has them",
    "AttnSkip": "FIR filters, as NCSN++ has them",
    "CrossAttn": "something to attend to, such as a text",
    "SimpleCrossAttn": "something to attend to, such as a text",
    "KCrossAttn": "something to attend to, such as a text",
}
# A configuration may come from somebody else's file, so that all sizes are limited.
LEVELS, WIDEST, DEEPEST, CLASSES = 12, 2**14, 64, 2**20


@dataclass(frozen=True)
class UNet2DConfig(BackboneConfig):
    """The network of diffusers' `UNet2DModel`, with its options under their names there, so that weights go both ways.

    Other people's networks are read into it, and one trained in it can be used without this package. For a new network
    `unet` goes through more images a second at equal work. A learning rate of 0.001 or less suits this one.

    `block_out_channels` lists the widths of the levels, each at half the resolution of the one before.
    `down_block_types` lists the kinds of the encoder's levels from the finest on: DownBlock2D, AttnDownBlock2D with
    attention, or ResnetDownsampleBlock2D, which halves the resolution within a residual block. `up_block_types` lists
    those of the decoder's levels from the coarsest on: UpBlock2D, AttnUpBlock2D or ResnetUpsampleBlock2D.
    `mid_block_type` is UNetMidBlock2D, or none.

    `layers_per_block` is the number of residual blocks of a level; the decoder has one more. `mid_block_scale_factor`
    divides the sums of the middle block. `add_attention` gives it attention.

    `attention_head_dim` is the width of the heads of attention; none stands for one head. `attention_heads` is the
    number of heads at all widths, in place of theirs. `norm_num_groups` is the number of groups of the normalizations,
    and `norm_eps` what is added to their variances. `attn_norm_num_groups` is the number of groups before attention in
    the middle block, by default that of the others, but no normalization with `resnet_time_scale_shift` = scale_shift.

    `act_fn` is the activation: silu, swish, mish, gelu or relu. `resnet_time_scale_shift` is default, where residual
    blocks add the embedding, or scale_shift, where it scales and shifts what they normalized. `dropout` is the share of
    values that they drop in training.

    `downsample_padding` is 1, or 0 for a row and a column of zeros below and to the right. `downsample_type` and
    `upsample_type` say how levels with attention change the resolution: by conv, a convolution, or by resnet, in a
    residual block.

    `center_input_sample` takes the values x of an example for 2x - 1.

    `time` is the number that tells the network the noise level: index, edm, flow or sigma; `steps` is the number of
    discrete noise levels. index is the place of its log-SNR in a table of so many, which is saved with the weights;
    between two entries, and beyond the ends, it is linear in log-SNR. The table of a new network is that of betas from
    1e-4 to 0.02. edm is ln(σ/α)/4, flow is `steps` times the share σ/(α + σ) of the noise, and sigma is σ/α.

    `time_embedding_type` is positional, fourier or learned. fourier takes the logarithm of the time, which therefore
    is flow or sigma, and divides the output by the time. learned has a vector for each of `num_train_timesteps` indices
    and takes the nearest one. `time_embedding_dim` is the width of the embedding, by default 4 times the first level.
    `time_features` is the number of features of the time, by default the width of the first level; models of
    guided-diffusion may need it or `attention_heads`, with which no network can be exported to diffusers.
    `freq_shift` and `flip_sin_to_cos` say which frequencies a positional embedding has, and that cosines come first.

    `num_class_embeds` is the number of vectors that labels are told by: one for each class of the data, or one more,
    the last, for no label. By default there is one more if the data have classes. `class_embed_type` is unset, or
    timestep, where labels are embedded as times are, or identity, where they are embeddings already.
    """

    free: ClassVar[tuple[str, ...]] = ("dropout", "num_class_embeds")

    block_out_channels: tuple[int, ...] = (64, 128, 256)
    down_block_types: tuple[str, ...] = ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D")
    up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D")
    mid_block_type: str | None = MID
    layers_per_block: int = 2
    mid_block_scale_factor: float = 1.0
    add_attention: bool = True
    attention_head_dim: int | None = 64
    attention_heads: int | None = None
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    attn_norm_num_groups: int | None = None
    act_fn: str = "silu"
    resnet_time_scale_shift: str = "default"
    dropout: float = 0.0
    downsample_padding: int = 1
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    center_input_sample: bool = False
    time: str = "index"
    steps: int = 1000
    time_embedding_type: str = "positional"
    num_train_timesteps: int | None = None
    time_embedding_dim: int | None = None
    time_features: int | None = None
    freq_shift: int = 0
    flip_sin_to_cos: bool = True
    num_class_embeds: int | None = None
    class_embed_type: str | None = None

    def __post_init__(self) -> None:
        self._check_levels()
        self._check_widths()
        for name in ("downsample_type", "upsample_type"):
            require_one(getattr(self, name), name, ("conv", "resnet"))
        require(self.downsample_padding in (0, 1), "downsample_padding", "0 or 1", self.downsample_padding)
        require(self.mid_block_scale_factor > 0, "mid_block_scale_factor", "positive", self.mid_block_scale_factor)
        times, vectors, kind = self.times, self.num_class_embeds, self.class_embed_type
        require(vectors is None or 1 <= vectors <= CLASSES, "num_class_embeds", f"1 to {CLASSES:,}", vectors)
        if kind is not None:
            require_one(kind, "class_embed_type", ("timestep", "identity"))
            fits = not (kind == "timestep" and times.time_embedding_type == "fourier")
            rule = "unset or identity with time_embedding_type = fourier, as label 0 has no logarithm"
            require(fits, "class_embed_type", rule, kind)

    def _check_levels(self) -> None:
        """Checks the kinds of levels, and that there is one for each width."""
        channels, widths = self.block_out_channels, f"1 to {LEVELS} widths of 2 to {WIDEST}"
        fits = 1 <= len(channels) <= LEVELS and min(channels) >= 2 and max(channels) <= WIDEST
        require(fits, "block_out_channels", widths, channels)
        for name, kinds, taken in (
            ("down_block_types", self.down_block_types, DOWN),
            ("up_block_types", self.up_block_types, UP),
        ):
            for kind in kinds:
                check_kind(kind, name, taken)
            require(len(kinds) == len(channels), name, f"{len(channels)} kinds, as block_out_channels has", kinds)
        if self.mid_block_type is not None:
            require_one(self.mid_block_type, "mid_block_type", (MID,))
        require(1 <= self.layers_per_block <= DEEPEST, "layers_per_block", f"1 to {DEEPEST}", self.layers_per_block)

    def _check_widths(self) -> None:
        """Checks that groups and heads fit into the widths."""
        channels, layers = self.block_out_channels, self.layers
        fits = not any(width % layers.norm_num_groups for width in channels)
        require(fits, "norm_num_groups", f"a number that divides all of {channels}", layers.norm_num_groups)
        groups, head = self.attn_norm_num_groups, layers.attention_head_dim
        fits = groups is None or (groups >= 1 and channels[-1] % groups == 0)
        require(fits, "attn_norm_num_groups", f"a number that divides {channels[-1]}", groups)
        kinds, widths = (*self.down_block_types, *self.up_block_types), (*channels, *reversed(channels))
        attending = [width for kind, width in zip(kinds, widths, strict=True) if kind.startswith("Attn")]
        if self.mid_block_type is not None and self.add_attention:
            attending.append(channels[-1])
        fits = head is None or head <= min(attending, default=head)
        require(fits, "attention_head_dim", f"at most the least width that attends, {min(attending, default=0)}", head)
        heads = layers.attention_heads
        fits = heads is None or not any(width % heads for width in attending)
        require(fits, "attention_heads", f"a number that divides all widths that attend, {attending}", heads)
        features = self.time_features
        require(features is None or 2 <= features <= WIDEST, "time_features", f"2 to {WIDEST}", features)
        require(1 <= layers.embedding <= WIDEST, "time_embedding_dim", f"1 to {WIDEST}", layers.embedding)

    @property
    def layers(self) -> Layers:
        """The options that all blocks share. Raises InputError for those that are none."""
        width = 4 * self.block_out_channels[0] if self.time_embedding_dim is None else self.time_embedding_dim
        return Layers(
            width,
            self.norm_num_groups,
            self.norm_eps,
            self.act_fn,
            self.resnet_time_scale_shift,
            self.attention_head_dim,
            self.attention_heads,
            self.dropout,
        )

    @property
    def times(self) -> Times:
        """The options of the time. Raises InputError for those that are none."""
        return Times(
            self.block_out_channels[0] if self.time_features is None else self.time_features,
            self.time,
            self.steps,
            self.time_embedding_type,
            self.num_train_timesteps,
            self.freq_shift,
            self.flip_sin_to_cos,
        )

    def build(
        self,
        in_channels: int,
        out_channels: int,
        classes: int = 0,
        *,
        spacing: float | None = None,
        mapped: bool = False,
        condition_channels: int = 0,
    ) -> UNet2D:
        """Returns a new network. Raises InputError where it cannot be told so many classes."""
        kind, vectors = self.class_embed_type, self._vectors(classes)
        if kind == "identity":
            rule = "unset for data with labels, as identity takes embeddings in their place"
            require(not classes, "backbone.class_embed_type", rule, kind)
        channels, layers, blocks = self.block_out_channels, self.layers, self.layers_per_block
        by_down, by_up = (kind == "resnet" for kind in (self.downsample_type, self.upsample_type))
        padding = self.downsample_padding
        parts = Parts(
            channels[0],
            layers,
            self.times,
            encoder(self.down_block_types, channels, layers, blocks, residual=by_down, padding=padding),
            self._middle(layers),
            decoder(self.up_block_types, channels, layers, blocks, residual=by_up),
            kind or "",
            vectors,
            self.center_input_sample,
        )
        return UNet2D(in_channels, out_channels, classes, parts, mapped, condition_channels)

    def _vectors(self, classes: int) -> int:
        """The number of vectors that so many classes are told by, 0 for none."""
        vectors = self.num_class_embeds
        if self.class_embed_type is not None:
            return 0
        if vectors is None:
            return classes + 1 if classes else 0
        rule = f"{classes} or {classes + 1}, the classes of the data without or with one for no label"
        require(vectors in (classes, classes + 1), "backbone.num_class_embeds", rule, vectors)
        return vectors

    def _middle(self, layers: Layers) -> Level | None:
        if self.mid_block_type is None:
            return None
        width, groups, scale = self.block_out_channels[-1], self.attn_norm_num_groups, self.mid_block_scale_factor
        return middle(width, layers, attends=self.add_attention, groups=groups, scale=scale)


def check_kind(kind: str, name: str, taken: Sequence[str]) -> None:
    """Raises InputError, which names the option, for a kind of levels that is not among those taken."""
    needs = next((needs for beginning, needs in OTHERS.items() if kind.startswith(beginning)), "")
    if needs:
        raise InputError(f"{name}: must be one of {', '.join(taken)}, got {kind!r}, which needs {needs}")
    require_one(kind, name, taken)
