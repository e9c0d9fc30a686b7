"""The precision a network runs in: bf16 where the hardware multiplies in it, float32 elsewhere.

Only the network is lowered. The algebra of diffusion around it keeps the precision of its argument (`Denoiser`).
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
    """Whether a network on that device runs in bf16: as asked, or for "auto" where the hardware multiplies in it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN takes bf16 wherever there is AVX-512, and emulates it, slowly, where its own instructions are missing.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@dataclass(frozen=True)
class Autocast:
    """A network whose convolutions and matrix products run in bf16."""

    network: Network

    def __call__(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None, /) -> Tensor:
        """As the network: x (B, C, *), log_snr (B,), label (B,) -> (B, C or 2C, *)."""
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.network(x, log_snr, label)
