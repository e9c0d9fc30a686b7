"""A normalized radial basis network for points that has a separate output layer for every step of a discrete diffusion.

It is the network of the first diffusion model (Sohl-Dickstein et al. 2015, arXiv 1503.03585, appendix D.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffusion.backbones.backbone import Backbone, BackboneConfig
from diffusion.errors import InputError, require

# A configuration may come from somebody else's checkpoint, so that all sizes are limited.
MOST = 2**20


@dataclass(frozen=True)
class RBFConfig(BackboneConfig):
    """A network of `units` radial functions, shared by all log-SNRs, and `steps` output layers; each log-SNR uses the
    nearest output layer.

    Output layer i, from 0, belongs to the share i / (steps - 1) of noise in the variance, σ²/(α² + σ²). There is thus
    one for each step of the schedule β_i = 1 / (steps - i + 1), which turns an equal share of the variance into
    noise in each step, except for a small constant β_1. With `span`, a pair of log-SNRs, the output layers are spaced
    evenly in log-SNR between the two instead.
    """

    units: int = 16
    steps: int = 40
    span: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        require(1 <= self.units <= MOST, "units", f"1 to {MOST:,}", self.units)
        require(2 <= self.steps <= MOST, "steps", f"2 to {MOST:,}", self.steps)
        require(self.span is None or self.span[0] < self.span[1], "span", "an increasing pair of log-SNRs", self.span)

    def build(
        self,
        in_channels: int,
        out_channels: int,
        classes: int = 0,
        *,
        spacing: float | None = None,
        mapped: bool = False,
        condition_channels: int = 0,
    ) -> RBF:
        """Returns a new network. Raises InputError for labels, maps and conditions, which the network does not take."""
        if classes:
            raise InputError("backbone.name: rbf takes no labels; set data.labels = false, or choose mlp")
        if mapped or condition_channels:
            raise InputError("backbone.name: rbf takes no map of noise levels and no condition; choose mlp")
        return RBF(in_channels, out_channels, self)


class RBF(Backbone):
    """The network F(x, log-SNR) = W_i φ(x) for points (B, D), where φ = softmax_j(-‖x - c_j‖² e^{s_j} / 2) and i is the
    step of the log-SNR.
    """

    def __init__(self, in_channels: int, out_channels: int, config: RBFConfig) -> None:
        super().__init__(in_channels, out_channels, 0)
        self.steps, self.span = config.steps, config.span
        self.centers = nn.Parameter(torch.randn(config.units, in_channels))
        self.log_precisions = nn.Parameter(torch.zeros(config.units))
        self.weights = nn.Parameter(torch.zeros(config.steps, out_channels, config.units))

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        label: Tensor | None = None,
        log_snr_map: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """x: (B, D); log_snr: (B,). Returns (B, out_channels)."""
        square = (x[:, None] - self.centers).square().sum(2)
        units = torch.softmax(-square * self.log_precisions.exp() / 2, dim=1)
        return torch.einsum("bou,bu->bo", self.weights[self.step(log_snr)], units)

    def step(self, log_snr: Tensor) -> Tensor:
        """Returns the number of the output layer of each log-SNR: (B,) -> (B,) int64."""
        if self.span is None:
            position = torch.sigmoid(-log_snr)
        else:
            low, high = self.span
            position = ((high - log_snr) / (high - low)).clamp(0, 1)
        return (position * (self.steps - 1)).round().long()
