"""The embedding of log-SNR and label that conditions a backbone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.backbones.magnitude import SILU_SCALE, ScaledConv, UnitConv, inverse_rms


class LogSNRFeatures(nn.Module):
    """Features √2 cos(f λ + φ) of the log-SNR λ, at fixed frequencies f with phases φ of 0 and π/2 each.

    They have unit mean square. The frequencies run geometrically from a quarter period over the usual range of log-SNR
    (about ±15) to periods of about 2, which resolves every log-SNR that a schedule distinguishes without asking the
    network to extrapolate.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        frequencies = torch.logspace(math.log10(0.05), math.log10(3.0), channels // 2)
        self.register_buffer("frequencies", frequencies.repeat(2), persistent=False)
        self.register_buffer(
            "phases", torch.tensor([0.0, math.pi / 2]).repeat_interleave(channels // 2), persistent=False
        )

    def forward(self, log_snr: Tensor) -> Tensor:
        """log_snr: (B,). Returns (B, channels)."""
        return math.sqrt(2) * torch.cos(torch.outer(log_snr, self.frequencies) + self.phases)


class LabelTable(ScaledConv):
    """A column for each class, and a last one for no label, (channels, classes + 1).

    As in a `UnitConv` every row keeps its root mean square, `rms`. It is 1 in a new network. In one whose columns are
    taken from another table (`keep_from_`) it is whatever these have: classes that begin at the mean of others have
    smaller columns, and rows of 1 would scale those of all classes.
    """

    rms: Tensor

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__(classes + 1, channels, 0, (classes + 1) ** 0.5)
        nn.init.normal_(self.weight)
        self.register_buffer("rms", torch.ones(channels))
        self.project_()

    @torch.no_grad()
    def project_(self) -> None:
        """Rescales the rows of the stored weight to their root mean square."""
        self.weight.mul_(_whole(self.rms[:, None], self.weight) * inverse_rms(self.weight))

    @torch.no_grad()
    def keep_from_(self, other: LabelTable) -> None:
        """Makes what `project_` does to a row the same as in another table, some of whose columns this one has taken.

        Neither may be sharded.
        """
        weight = other.weight.to(self.weight)
        self.rms.copy_(other.rms.to(self.rms) * (inverse_rms(weight) / inverse_rms(self.weight)).squeeze(1))


def _whole(value: Tensor, weight: Tensor) -> Tensor:
    """A value that every process has, as operations with a weight that may be sharded over the processes take it."""
    if not hasattr(weight, "device_mesh"):  # Importing DTensor takes a while, and a single process does not need it.
        return value
    from torch.distributed.tensor import DTensor, Replicate

    mesh = weight.device_mesh
    return DTensor.from_local(value, mesh, [Replicate()] * mesh.ndim, run_check=False)


class Embedding(nn.Module):
    """Embeds log-SNR and label in one vector of unit mean square, (B, channels)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.features = LogSNRFeatures(channels)
        self.log_snr_layer = UnitConv(channels, channels)
        self.label = LabelTable(classes, channels) if classes else None

    def forward(self, log_snr: Tensor, one_hot: Tensor) -> Tensor:
        """log_snr: (B,); one_hot: (B, classes + 1). Returns (B, channels)."""
        z = self.log_snr_layer(self.features(log_snr))
        if self.label is not None:
            z = (z + self.label(one_hot)) / 2**0.5
        return F.silu(z) * SILU_SCALE
