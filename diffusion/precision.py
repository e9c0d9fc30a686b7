"""The precision of the network: bf16 where the hardware multiplies in it, else fp16 on GPUs that multiply in that, and
float32 elsewhere.

Autocast applies to the network alone. The diffusion algebra around it keeps the dtype of its argument (`Denoiser`).
Numbers in fp16 end at 65,504 and lose their digits below 6e-5, so a network that trains in it needs a scale for its
loss (`training.scaler`); bf16 has the range of float32.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffusion.denoiser import Network

Precision = Literal["auto", "bf16", "fp16", "fp32"]

DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# The compute capability from which NVIDIA's GPUs multiply matrices in fp16: Volta.
FP16_SINCE = (7, 0)


def network_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Returns the dtype in which a network on `device` multiplies: as asked, or with "auto" the fastest that is safe.

    That is bf16 if the hardware multiplies in it, else fp16 if a GPU multiplies in that, else float32.
    """
    if precision != "auto":
        return DTYPES[precision]
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16
        return torch.float16 if torch.cuda.get_device_capability(device) >= FP16_SINCE else torch.float32
    return torch.bfloat16 if device.type == "cpu" and _multiplies_in_bf16() else torch.float32


def name_of(dtype: torch.dtype) -> str:
    """Returns the name of a dtype in a configuration."""
    return next(name for name, known in DTYPES.items() if known == dtype)


def in_precision(network: Network, dtype: torch.dtype) -> Network:
    """Returns the network that runs in `dtype`: itself for float32."""
    return network if dtype == torch.float32 else Autocast(network, dtype)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Multiplies float32 numbers as they are within the context, which is also a decorator.

    GPUs else round the factors of convolutions to 11 digits (TF32), which moves a likelihood by up to 0.03 nats in 350.
    Blocks that were compiled for sampling run as they are, so that results do not depend on what was done before.
    """
    kinds = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    before = [kind.fp32_precision for kind in kinds]
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # It takes seconds to import, and without it nothing is compiled.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for kind in kinds:
                kind.fp32_precision = "ieee"
            yield
        finally:
            for kind, precision in zip(kinds, before, strict=True):
                kind.fp32_precision = precision


def _multiplies_in_bf16() -> bool:
    """Whether the CPU has instructions that multiply in bf16."""
    if not torch._C._has_mkldnn:
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN accepts bf16 on every AVX-512 machine, but emulates it, slowly, on those without bf16 instructions.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@dataclass(frozen=True)
class Autocast:
    """A network that runs under autocast: its convolutions and matrix products are in `dtype`, bf16 or fp16."""

    network: Network
    dtype: torch.dtype = torch.bfloat16

    def __call__(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None, /, *beside: Tensor | None) -> Tensor:
        """Evaluates the network: x (B, C, *), log_snr (B,), label (B,) and what is `beside` -> (B, C or 2C, *)."""
        with torch.autocast(x.device.type, self.dtype):
            return self.network(x, log_snr, label, *beside)
