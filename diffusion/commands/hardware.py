"""What the devices of this machine can do and what they cannot, for `diffusion doctor`."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend

from diffusion import memory
from diffusion.compilation import obstacle
from diffusion.precision import FP16_SINCE, name_of, network_dtype

# The channels of a head, on which the kernel of attention depends.
HEAD = 64
KERNELS = {
    SDPBackend.MATH: "matrix products",
    SDPBackend.FLASH_ATTENTION: "the flash kernel",
    SDPBackend.EFFICIENT_ATTENTION: "the memory-efficient kernel",
    SDPBackend.CUDNN_ATTENTION: "the kernel of cuDNN",
}


@dataclass(frozen=True)
class Abilities:
    """The lines about a device: its memory, its precisions, attention and compiler. A `cure` says how to have more."""

    lines: tuple[str, ...]
    cure: str = ""


def abilities(device: torch.device) -> Abilities:
    """Returns what a device can do. Raises what torch raises where it does not work."""
    torch.ones(8, device=device).sum().item()
    able, cure = compiler(device)
    return Abilities((capacity(device), precisions(device), f"attention by {attention(device)}; {able}"), cure)


def capacity(device: torch.device) -> str:
    """Says what a device is and how much memory it has."""
    free = f"{memory.available(device) / 1e9:.1f} GB free"
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        return f"{facts.name}, capability {facts.major}.{facts.minor}, {facts.total_memory / 1e9:.0f} GB, {free}"
    if device.type == "mps":
        return f"Apple's GPU, {torch.mps.recommended_max_memory() / 1e9:.0f} GB of the machine's at most, {free}"
    return f"{torch.get_num_threads()} threads, {free}"


def precisions(device: torch.device) -> str:
    """Says in which precisions a device multiplies, and which of them networks take by default."""
    found = {"bf16": multiplies_in_bf16(device), "fp16": multiplies_in_fp16(device), "fp32": True}
    found["float64"] = device.type != "mps"
    can, cannot = ([name for name, is_so in found.items() if is_so is state] for state in (True, False))
    lacks = f", not {' or '.join(cannot)}" if cannot else ""
    why = "" if found["float64"] else "; diffusion evaluate --float64 needs --device cpu"
    return f"multiplies in {', '.join(can)}{lacks}; networks take {name_of(network_dtype('auto', device))}{why}"


def multiplies_in_bf16(device: torch.device) -> bool:
    """Whether the hardware of a device multiplies in bf16, without emulation."""
    if device.type == "mps":
        return torch.backends.mps.is_macos_or_newer(14, 0)
    return network_dtype("auto", device) == torch.bfloat16


def multiplies_in_fp16(device: torch.device) -> bool:
    """Whether the hardware of a device multiplies in fp16; CPUs do so slowly, if at all."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= FP16_SINCE
    return device.type == "mps"


def attention(device: torch.device) -> str:
    """Says by which kernel a network's attention is computed, as torch chooses it for a head of `HEAD` channels."""
    if device.type != "cuda":
        return KERNELS[SDPBackend.MATH]
    q = torch.empty(1, 1, 256, HEAD, device=device, dtype=network_dtype("auto", device))
    return KERNELS.get(SDPBackend(torch._fused_sdp_choice(q, q, q)), "a kernel of its own")


def compiler(device: torch.device) -> tuple[str, str]:
    """Says whether torch.compile can make code for a device, and what to do if it lacks something, empty otherwise."""
    if device.type == "cuda":
        why = obstacle(device)
        cure = "install it, so that networks are compiled, which is faster" if why.startswith("there is no") else ""
        return (f"networks are not compiled: {why}" if why else "networks are compiled"), cure
    if device.type == "mps":
        return "torch.compile was not tried on it", ""
    usual = "clang++" if on_mac() else "g++"
    found = shutil.which(os.environ.get("CXX") or usual)
    if found is None:
        return "torch.compile lacks a C++ compiler", f"install {usual}, or name one by CXX, for training.compile = true"
    return f"torch.compile works with {os.path.basename(found)}", ""


def on_mac() -> bool:
    """Whether this is a Mac."""
    return sys.platform == "darwin"
