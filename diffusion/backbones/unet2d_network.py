"""The network of diffusers' `UNet2DModel`, under its names: the same tensors and the same results.

It is the U-Net of Ho et al. (2020, arXiv 2006.11239), with the variants that Dhariwal and Nichol (2021, arXiv
2105.05233) brought. Unlike `unet` it has a skip for every block, and joins skips by concatenation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.backbones.backbone import Backbone, ResidualBlock
from diffusion.backbones.layers import padded, zero
from diffusion.backbones.unet2d_blocks import Layers, Level
from diffusion.backbones.unet2d_time import Clock, Times, TimestepEmbedding
from diffusion.errors import InputError, require


@dataclass(frozen=True)
class Parts:
    """What a network is made of: its levels, and how it is told time and label.

    `width` is that of the first and of the last layer. `label_type` is timestep, identity or empty, and `vectors` the
    number of vectors that labels are told by. `center` takes the values x of an example for 2x - 1.
    """

    width: int
    layers: Layers
    times: Times
    down: nn.ModuleList
    middle: Level | None
    up: nn.ModuleList
    label_type: str
    vectors: int
    center: bool


class UNet2D(Backbone):
    """The network F(x, log-SNR, label) for images (B, C, H, W), which tells the layers of diffusers the time.

    A state dict of diffusers can be loaded as it is; one without a table of log-SNRs leaves the table as it was.

    What the network is told beside x, a map and a condition, are further inputs of its first layer. Their weights are
    zero in a new network. Images whose sides the downsampling does not divide, which diffusers refuses, are padded by
    copies of the last row and column, and the output is cropped.
    """

    first_weight = "conv_in.weight"
    label_weight, label_axis, labels_add = "class_embedding.weight", 0, True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        classes: int,
        parts: Parts,
        mapped: bool = False,
        condition_channels: int = 0,
    ) -> None:
        super().__init__(in_channels, out_channels, classes)
        self.mapped, self.condition_channels = mapped, condition_channels
        layers, times, width = parts.layers, parts.times, parts.width
        self.clock, self.time_proj = Clock(times.time, times.steps), times.projection()
        self.time_embedding = TimestepEmbedding(times.features, layers.embedding)
        self.label_type, self.nameless = parts.label_type, parts.vectors == classes + 1
        self.class_embedding: nn.Module | None = None
        if parts.label_type == "timestep":
            self.class_embedding = TimestepEmbedding(times.features, layers.embedding)
        elif parts.vectors:
            self.class_embedding = nn.Embedding(parts.vectors, layers.embedding)
        self.conv_in = nn.Conv2d(in_channels + mapped + condition_channels, width, 3, padding=1)
        with torch.no_grad():
            self.conv_in.weight[:, in_channels:] = 0
        self.down_blocks, self.mid_block, self.up_blocks = parts.down, parts.middle, parts.up
        self.conv_norm_out = layers.norm(width)
        self.conv_out = zero(nn.Conv2d(width, out_channels, 3, padding=1))
        self.act, self.center, self.multiple = layers.act, parts.center, 2 ** (len(parts.down) - 1)
        self.divided = times.time_embedding_type == "fourier"
        self.register_load_state_dict_pre_hook(_with_clock)  # type: ignore[no-untyped-call]

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        label: Tensor | None = None,
        log_snr_map: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """x: (B, C, H, W); log_snr: (B,); label: (B,), or (B, E) embeddings with class_embed_type = identity;
        log_snr_map: (B, 1, H, W); condition: (B, K, H, W). Returns (B, out_channels, H, W).

        Raises InputError for examples without a label where the network knows no "no label".
        """
        height, width = x.shape[-2:]
        time = self.clock(log_snr)
        embedding = self.embedded(time, label, x.shape[0])
        beside = self.beside(x, log_snr, log_snr_map, condition)
        x = 2 * x - 1 if self.center else x
        x = torch.cat([x, *beside], dim=1) if beside else x
        x = padded(x, self.multiple).contiguous(memory_format=torch.channels_last)
        x = self.conv_in(x)
        skips = [x]
        for level in self.down_blocks.children():
            assert isinstance(level, Level)
            for layers in level.steps():
                x = self._run(layers, x, embedding)
                skips.append(x)
            if len(level.downsamplers):
                x = self._run(level.downsamplers, x, embedding)
                skips.append(x)
        if self.mid_block is not None:
            for layers in self.mid_block.steps():
                x = self._run(layers, x, embedding)
        for level in self.up_blocks.children():
            assert isinstance(level, Level)
            for layers in level.steps():
                x = self._run(layers, torch.cat([x, skips.pop()], dim=1), embedding)
            x = self._run(level.upsamplers, x, embedding)
        x = self.conv_out(F.silu(self.conv_norm_out(x)))
        x = x / time.to(x.dtype).reshape(-1, 1, 1, 1) if self.divided else x
        return x[..., :height, :width]

    def _run(self, layers: Iterable[nn.Module], x: Tensor, embedding: Tensor) -> Tensor:
        """The output of layers one after the other."""
        for layer in layers:
            x = self.run_block(layer, x, embedding) if isinstance(layer, ResidualBlock) else layer(x)
        return x

    def embedded(self, time: Tensor, label: Tensor | None, batch: int) -> Tensor:
        """Embeds times (B,) and labels, and activates the embedding as every block would: (B, E)."""
        weight = self.time_embedding.linear_1.weight
        embedding: Tensor = self.time_embedding(self.time_proj(time).to(weight.dtype))
        if self.label_type == "identity":
            fits = label is not None and label.shape == embedding.shape
            rule = f"embeddings {tuple(embedding.shape)}, which a network with class_embed_type = identity takes"
            require(fits, "label", rule, None if label is None else tuple(label.shape))
            assert label is not None
            embedding = embedding + label.to(embedding.dtype)
        elif self.class_embedding is not None:
            labels = self._known(label, batch, time.device)
            if self.label_type == "timestep":
                embedding = embedding + self.class_embedding(self.time_proj(labels).to(weight.dtype))
            else:
                embedding = embedding + self.class_embedding(labels)
        return self.act(embedding)

    def _known(self, label: Tensor | None, batch: int, device: torch.device) -> Tensor:
        """Labels (B,), the last one for examples without any. Raises InputError where the network knows none."""
        if self.nameless:
            none = torch.full((batch,), self.classes, device=device)
            return none if label is None else torch.where(label < 0, none, label)
        # The device is waited for, but an index that is none would end all work on it. Exported networks cannot ask.
        if label is None or (not torch.compiler.is_exporting() and bool((label < 0).any())):
            raise InputError(
                f"label: must be given, one of 0 to {self.classes - 1}, as this network knows no examples without a "
                "label; do without guidance and training.label_dropout"
            )
        return label


def _with_clock(network: UNet2D, tensors: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Adds the table of log-SNRs to a state dict that has none."""
    for name, own in network.clock.state_dict(prefix=f"{prefix}clock.").items():
        tensors.setdefault(name, own)
