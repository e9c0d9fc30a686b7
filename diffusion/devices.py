"""The devices of this machine, and the one that a person asks for.

`--device` of a command names it, or else the variable DIFFUSION_DEVICE: cpu, cuda, cuda:N or mps. The default, auto, is
a CUDA device if there is one, else Apple's MPS, else the CPU. Which of several CUDA devices a process takes is the
matter of `distributed.device`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from diffusion.errors import InputError, require

AUTO, OPTION, VARIABLE = "auto", "--device", "DIFFUSION_DEVICE"
# `accelerate launch --cpu` says so to the processes that it starts.
LAUNCHED_ON_CPU = "ACCELERATE_USE_CPU"


@dataclass(frozen=True)
class Wanted:
    """A device that is asked for: the word, and the option or variable that it was given by."""

    word: str = AUTO
    source: str = OPTION


# The words of the commands that run in this process, one within another; there is one device for all its threads.
_given: list[str] = []


@contextmanager
def given(word: str | None) -> Iterator[None]:
    """Within the context, whatever asks for a device takes that of the option `--device`, if there is a word.

    Raises InputError for a device that this machine does not have.
    """
    if word is None:
        yield
        return
    named(word, OPTION)
    _given.append(word)
    try:
        yield
    finally:
        _given.pop()


def wanted() -> Wanted:
    """Returns what is asked for: by the option, else by the variable, else by accelerate's launcher, else auto.

    Raises InputError where a GPU is asked for in a process that accelerate launched for the CPU.
    """
    variable = os.environ.get(VARIABLE, "").strip()
    found = Wanted(_given[-1]) if _given else Wanted(variable, VARIABLE) if variable else Wanted()
    if os.environ.get(LAUNCHED_ON_CPU, "").lower() in ("1", "true", "yes", "y", "on", "t"):
        require(found.word in (AUTO, "cpu"), found.source, "cpu under accelerate launch --cpu", found.word)
        return Wanted("cpu", LAUNCHED_ON_CPU)
    return found


def named(word: str, source: str = "device") -> torch.device:
    """Returns the device that a word names; cuda has no number, where the word has none.

    Raises InputError, which names the `source`, for another word and for a device that this machine does not have.
    """
    kind = word.partition(":")[0]
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps(:0)?", word):
        raise InputError(f"{source}: must be auto, cpu, cuda, cuda:N or mps, got {word!r}")
    if kind == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps() else "cpu")
    there = present()
    if word.removesuffix(":0" if kind == "mps" else "") not in {*there, *(name.partition(":")[0] for name in there)}:
        raise InputError(f"{source}: must be a device of this machine, {', '.join(there)}, got {word}{absence(kind)}")
    return torch.device(word)


def present() -> list[str]:
    """Returns the devices of this machine by the names that they can be asked for."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(f"cuda:{number}" for number in range(count)), *["mps"] * has_mps()]


def has_mps() -> bool:
    """Whether torch finds a GPU of Apple here."""
    return torch.backends.mps.is_available()


def absence(kind: str) -> str:
    """Says why torch does not see a device of a kind, as the end of a message; empty if nothing is known."""
    if kind == "mps" and not torch.backends.mps.is_built():
        return "; this torch is not built for MPS, which needs a Mac of Apple silicon"
    if kind == "mps":
        return "; MPS needs a Mac of Apple silicon and a recent macOS"
    if torch.version.cuda is None and torch.version.hip is None:
        return "; this torch is built without CUDA: install one that is"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = "" if visible is None else f"; CUDA_VISIBLE_DEVICES={visible} hides all others"
    return hidden or ("" if torch.cuda.is_available() else "; diffusion doctor says what is wrong with the driver")
