"""A U-Net for images of any size and number of channels, in two designs that share this skeleton.

An encoder of residual blocks halves the resolution from stage to stage. A decoder mirrors it and receives the output of
each stage of the encoder as a skip (Ronneberger et al. 2015, arXiv 1505.04597; Ho et al. 2020, arXiv 2006.11239). There
is one skip per stage, which is added instead of concatenated: the wide tensors of a concatenation at full resolution,
and the convolution that narrows them, take more time than any other layer. `design` chooses the layers: "magnitude"
keeps the scale of signals by construction, "group_norm" normalizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.backbones import group_norm, magnitude
from diffusion.backbones.backbone import Backbone, BackboneConfig
from diffusion.backbones.embedding import Embedding
from diffusion.backbones.fourier import LevelFeatures
from diffusion.backbones.layers import downsample, padded
from diffusion.errors import require, require_one

DESIGNS: dict[str, ModuleType] = {"magnitude": magnitude, "group_norm": group_norm}
HEAD_CHANNELS = 64
# Log-SNRs nearer to each other than this are one.
LEAST_WAY = 1e-3
# A configuration may come from somebody else's checkpoint, so that all sizes are limited.
STAGES, WIDEST, DEEPEST, PATCH, FOURIER = 12, 2**14, 64, 64, 12


@dataclass(frozen=True)
class UNetConfig(BackboneConfig):
    """A U-Net with a stage for each resolution: stage l, from 0, works at size / (patch 2^l).

    `channels` lists the widths of the stages, `blocks` is the number of residual blocks per stage, and `attention`
    lists the stages whose blocks have attention, in heads of 64 channels.

    `fourier` is the number of periods, 1, 2, 4, ... times the spacing of the gray levels of the data, at which the
    network receives sin and cos of its input besides the input itself (`LevelFeatures`). They resolve the last bits of
    a pixel, which matter to a likelihood; 2 periods suffice.

    `dropout` is the share of values that blocks drop in training. `design` is magnitude, which keeps the scale of
    signals by construction, or group_norm.

    `patch` folds patch x patch pixels into channels before the first layer: patch 2 costs a quarter of patch 1, at some
    loss of detail.
    """

    channels: tuple[int, ...] = (64, 128, 256)
    blocks: int = 2
    attention: tuple[int, ...] = (2,)
    patch: int = 1
    fourier: int = 0
    dropout: float = 0.0
    design: str = "magnitude"

    def __post_init__(self) -> None:
        widths, most = f"one to {STAGES} widths of 2 to {WIDEST}", max(self.channels, default=0)
        require(1 <= len(self.channels) <= STAGES, "channels", widths, self.channels)
        require(min(self.channels) >= 2 and most <= WIDEST, "channels", widths, self.channels)
        require(1 <= self.blocks <= DEEPEST, "blocks", f"1 to {DEEPEST}", self.blocks)
        require(
            set(self.attention) <= set(range(len(self.channels))),
            "attention",
            f"stages from 0 to {len(self.channels) - 1}",
            self.attention,
        )
        require(
            all(width % heads(width) == 0 for width in (self.channels[stage] for stage in self.attention)),
            "channels",
            f"divided by the number of heads (about {HEAD_CHANNELS} channels each) in stages with attention",
            self.channels,
        )
        require(1 <= self.patch <= PATCH, "patch", f"1 to {PATCH}", self.patch)
        require(0 <= self.fourier <= FOURIER, "fourier", f"0 to {FOURIER}", self.fourier)
        require(0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout)
        require_one(self.design, "design", DESIGNS)

    def build(
        self,
        in_channels: int,
        out_channels: int,
        classes: int = 0,
        *,
        spacing: float | None = None,
        mapped: bool = False,
        condition_channels: int = 0,
    ) -> UNet:
        """Returns a new U-Net. Raises InputError for Fourier features of continuous data."""
        require(spacing or not self.fourier, "backbone.fourier", "0 for data without levels", self.fourier)
        return UNet(in_channels, out_channels, classes, self, spacing, mapped, condition_channels)


class UNet(Backbone):
    """The network F(x, log-SNR, label) for images (B, C, H, W).

    Images whose sides the downsampling does not divide are padded by copies of the last row and column, and the output
    is cropped.
    """

    inputs_after = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        classes: int,
        config: UNetConfig,
        spacing: float | None,
        mapped: bool = False,
        condition_channels: int = 0,
    ) -> None:
        super().__init__(in_channels, out_channels, classes)
        self.mapped, self.condition_channels = mapped, condition_channels
        channels, blocks = config.channels, config.blocks
        self.patch = config.patch
        self.multiple = config.patch * 2 ** (len(channels) - 1)
        layers = DESIGNS[config.design]
        self.embed = Embedding(4 * channels[0], classes)
        self.features = LevelFeatures(config.fourier, spacing) if spacing and config.fourier else None

        def block(inputs: int, stage: int) -> nn.Module:
            count = heads(channels[stage]) if stage in config.attention else 0
            new: nn.Module = layers.Block(inputs, channels[stage], 4 * channels[0], heads=count, dropout=config.dropout)
            return new

        # A constant input channel replaces biases and shows the border of the image to the convolutions.
        inputs = in_channels * (1 + 2 * config.fourier) + mapped + condition_channels
        self.stem = layers.conv(inputs * self.patch**2 + 1, channels[0])
        width = channels[0]
        self.encoder = nn.ModuleList()
        for stage in range(len(channels)):
            self.encoder.append(
                nn.ModuleList(block(width if i == 0 else channels[stage], stage) for i in range(blocks))
            )
            width = channels[stage]
        self.middle = block(width, len(channels) - 1)
        self.joins, self.decoder = nn.ModuleList(), nn.ModuleList()
        for stage in reversed(range(len(channels))):
            self.joins.append(layers.Join(width, channels[stage]))
            self.decoder.append(nn.ModuleList(block(channels[stage], stage) for _ in range(blocks)))
            width = channels[stage]
        self.head = layers.Head(width, out_channels * self.patch**2)

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        label: Tensor | None = None,
        log_snr_map: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """x: (B, C, H, W) of about unit variance; log_snr: (B,); label: (B,); log_snr_map: (B, 1, H, W); condition: (B,
        K, H, W). Returns (B, out_channels, H, W).
        """
        height, width = x.shape[-2:]
        embedding, share = self.embedded(log_snr, self.one_hot(label, x.shape[0], log_snr), log_snr_map)
        values, beside = [x], self.beside(x, log_snr, log_snr_map, condition)
        if self.features is not None:
            values.append(self.features(x, log_snr if log_snr_map is None else log_snr_map))
        if len(values) + len(beside) > 1:
            x = torch.cat([*values, *beside], dim=1)
        x = F.pixel_unshuffle(padded(x, self.multiple), self.patch)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1).contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        skips, shares = [], self._by_stage(share)
        for stage, stage_blocks in enumerate(self.encoder):
            x = downsample(x) if stage else x
            for block in stage_blocks.children():
                x = self.run_block(block, x, embedding, shares[stage])
            skips.append(x)
        x = self.run_block(self.middle, x, embedding, shares[-1])
        for join, stage_blocks in zip(self.joins, self.decoder, strict=True):
            x, share = join(x, skips.pop()), shares.pop()
            for block in stage_blocks.children():
                x = self.run_block(block, x, embedding, share)
        x = F.pixel_shuffle(self.head(x), self.patch)
        return x[..., :height, :width]

    def embedded(self, log_snr: Tensor, one_hot: Tensor, log_snr_map: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Embeds log-SNR and label: (B, E) and None, or with a map (2B, E) and the share (B, 1, H, W).

        The two embeddings are those of `log_snr` and of the cleanest pixel. The log-SNR of each pixel is this share of
        the way from the former to the latter; that of a pixel noisier than `log_snr`, which nobody has seen, is 0.
        """
        if log_snr_map is None:
            return self.embed(log_snr, one_hot), None
        cleanest = log_snr_map.flatten(1).amax(1)
        way = (cleanest - log_snr).clamp_min(LEAST_WAY).reshape(-1, 1, 1, 1)
        share = ((log_snr_map - log_snr.reshape(-1, 1, 1, 1)) / way).clamp(0, 1)
        return self.embed(torch.cat([log_snr, cleanest]), torch.cat([one_hot, one_hot])), share

    @property
    def inputs_beside(self) -> tuple[int, int]:
        """The inputs of the first layer for a map and for a condition, whose patches are channels too."""
        return self.mapped * self.patch**2, self.condition_channels * self.patch**2

    def _by_stage(self, share: Tensor | None) -> list[Tensor | None]:
        """A share of the pixels at the resolution of each stage."""
        if share is None:
            return [None] * len(self.encoder)
        found: list[Tensor | None] = [F.avg_pool2d(padded(share, self.multiple), self.patch)]
        for _ in range(len(self.encoder) - 1):
            before = found[-1]
            assert before is not None
            found.append(downsample(before))
        return found


def heads(channels: int) -> int:
    """Returns the number of attention heads of a stage with this number of channels."""
    return max(1, channels // HEAD_CHANNELS)
