"""Whether a network is compiled (`torch.compile`, block by block), and what happens where that fails.

Compiled blocks take fewer passes over memory, which on a GPU is most of the time of a block. The first evaluation takes
some seconds longer, for which a CPU is not paid back.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from diffusion.backbones import Backbone
from diffusion.errors import InputError

Compile = bool | Literal["auto"]

# The compute capability from which Triton writes code for NVIDIA's GPUs.
TRITON_SINCE = (7, 0)
COMPILERS = ("cc", "gcc", "clang")
# Compiling takes about as long as it saves in this many evaluations of a pixel: 16,000 images of 64 x 64 in 30 steps.
# It was estimated from the bytes that compiled blocks do not move (U-Net, 36 M parameters) and 40 s of compilation.
WORTH = 2**31
# Errors of the compiler have classes of these modules.
OWN = ("torch._dynamo.", "torch._inductor.", "torch._functorch.", "triton.")
LONGEST = 200


def obstacle(device: torch.device) -> str:
    """Returns what "auto" finds to keep torch from compiling for a device, empty if nothing does."""
    if device.type != "cuda":
        return f"networks on {device.type} are compiled where it is asked for alone"
    if importlib.util.find_spec("triton") is None:
        return "there is no Triton"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < TRITON_SINCE:
        return "Triton does not know this GPU"
    if not os.environ.get("CC") and not any(map(shutil.which, COMPILERS)):
        return "there is no C compiler"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "there is no Python.h, which the development package of Python has"
    return ""


def compile_blocks(
    network: Backbone, setting: Compile, device: torch.device, key: str, say: Callable[[str], None], *, dynamic: bool
) -> bool:
    """Compiles the blocks of a network at their first evaluation, if `setting`, the value of `key`, asks for it or is
    "auto" where nothing speaks against it. Returns whether it does.

    Where the compiler fails, "auto" says so in a line and evaluates the blocks as they are, and true raises InputError.
    With `dynamic` one code serves all batch sizes; else there is one for each.
    """
    if setting is False or (setting == "auto" and obstacle(device)):
        return False

    def failed(error: Exception) -> None:
        if not is_of_compiler(error):
            raise error
        if setting == "auto":
            say(f"{key}: the network runs without compilation, as the compiler failed: {reason(error)}")
            return
        raise InputError(
            f"{key}: true, but the compiler failed: {reason(error)}; it takes a C compiler, Python.h and, on GPUs, "
            'Triton; set it to "auto", which goes on without, or to false'
        ) from error

    network.compile_blocks(dynamic=dynamic, on_failure=failed)
    return True


def compile_for_sampling(
    network: object, setting: Compile, device: torch.device, positions: int, say: Callable[[str], None]
) -> None:
    """Compiles the blocks of a backbone, once, where sampling evaluates it for `positions` pixels in all, or points.

    "auto" does so where that pays (`WORTH`). Other networks stay as they are.
    """
    if not isinstance(network, Backbone) or network.compiled or (setting == "auto" and positions < WORTH):
        return
    compile_blocks(network, setting, device, "sampling.compile", say, dynamic=True)


def is_of_compiler(error: Exception) -> bool:
    """Whether an error came out of the compiler or of loading its code."""
    own = any(kind.__module__.startswith(OWN) for kind in type(error).__mro__)
    return own or isinstance(error, subprocess.CalledProcessError) or "Triton Error" in str(error)


def reason(error: Exception) -> str:
    """Returns what an error of the compiler says, in one line."""
    inner = getattr(error, "inner_exception", None) or error
    line = next((line.strip() for line in str(inner).splitlines() if line.strip()), "no reason given")
    return f"{type(inner).__name__}: {line[:LONGEST]}"
