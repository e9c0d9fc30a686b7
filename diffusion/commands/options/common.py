"""What the options of several commands share: their positional arguments, and how images are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from diffusion.draw import Draw
from diffusion.registries import names

if TYPE_CHECKING:
    SamplerName = str
    MethodName = str
else:
    SamplerName = Literal[names("samplers.py", "SAMPLERS")]
    MethodName = Literal["auto", *names("restoration/methods.py", "METHODS")]

Overrides = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SECTION.KEY=VALUE ...")]
ConfigFile = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")]
Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Images = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")]
Device = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="auto|cpu|cuda[:N]|mps",
        help="What computes: by default what DIFFUSION_DEVICE names, else a GPU if there is one, else the CPU.",
    ),
]


@dataclass(frozen=True)
class DrawArguments(Draw):
    """The options of drawing images, with the names that the command line takes."""

    sampler: SamplerName | None = None
    """The sampler, instead of the default."""
    label: str | None = None
    """Class name or number."""
