"""The precision of the network: bf16 autocast where the hardware multiplies in bf16, float32 elsewhere.

Autocast applies to the network alone. The diffusion algebra around it keeps the dtype of its argument (`Denoiser`).
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffusion.denoiser import Network

Precision = Literal["auto", "bf16", "fp32"]


def use_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether a network on `device` runs in bf16: as asked, or with "auto" if the hardware multiplies in bf16."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN accepts bf16 on every AVX-512 machine, but emulates it, slowly, on those without bf16 instructions.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@dataclass(frozen=True)
class Autocast:
    """A network that runs under bf16 autocast: its convolutions and matrix products are in bf16."""

    network: Network

    def __call__(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None, /) -> Tensor:
        """Evaluates the network: x (B, C, *), log_snr (B,), label (B,) -> (B, C or 2C, *)."""
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.network(x, log_snr, label)
