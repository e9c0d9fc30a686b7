"""A network that runs on another device than the algebra around it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.denoiser import Network


@dataclass(frozen=True)
class Elsewhere:
    """A network on a `device` that runs in float32, whose inputs and result are on the device of x.

    Likelihoods, latents, measured grids and restorations compute in float64, which MPS does not have. On the CPU their
    algebra costs little beside the network.
    """

    network: Network
    device: torch.device

    def __call__(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None, /, *beside: Tensor | None) -> Tensor:
        """Evaluates the network: x (B, C, *), log_snr (B,), label (B,) and what is `beside` -> (B, C or 2C, *)."""
        moved = None if label is None else label.to(self.device)
        x_there, log_snr = (values.float().to(self.device) for values in (x, log_snr))
        there = (None if part is None else part.float().to(self.device) for part in beside)
        return self.network(x_there, log_snr, moved, *there).to(x.device)
