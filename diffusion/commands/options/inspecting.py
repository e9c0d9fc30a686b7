"""The options of the commands that look at data, at the machine and at the program: inspect, doctor, schema,
completion.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffusion.commands.options.common import Device, Overrides


@dataclass(frozen=True)
class Inspect:
    """Report on an image folder, an image, tar or zip files or a Hugging Face dataset without training: what is in it,
    what repeats or is damaged, a configuration to start from, and the cost of training by it on this machine. Of a run,
    say what it is, what it began from, and its held-out bounds.
    """

    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """The folder, or whatever data.path may be, or a run."""
    labels: bool = False
    """Show the classes."""
    labels_from: str = ""
    """Take the classes from a table (CSV, TSV, JSON, JSON lines), or from the file names: "prefix"."""
    pages: Literal["first", "all"] = "first"
    """Take every page of a file with several as an image, or only the first."""
    masks: str = ""
    """Say what is missing of damaged images, where, and what cannot be learned of them; the value of data.masks: alpha,
    a color such as "#ff00ff", or a folder of masks."""
    decode: bool = True
    """Decode every image, which finds damaged ones and near duplicates."""
    measure: bool = True
    """Time a part of a training step on this machine."""
    device: Device = None
    out: Path | None = None
    """Write the suggested configuration to this TOML file."""


@dataclass(frozen=True)
class Cache:
    """List what lies in the cache of decoded images and models of the hub, by size and last use, and remove it.

    What is removed is made again where it is needed. Runs that train go on with what they have opened.
    """

    prune: bool = False
    """Remove what will not be read again: of folders that are gone, of earlier versions, and left
    unfinished."""
    older_than: float | None = None
    """Remove what was not used for this many days too."""
    all: bool = False
    """Remove all of it."""


@dataclass(frozen=True)
class Doctor:
    """Print the facts about this machine that belong in a bug report, and what is broken on it.

    Of a configuration, print what reaches the blocks of its network with new weights: the scale of signals and of
    gradients, and whether two inputs converge or diverge. It says if the network is outside of the trainable range.

    The exit code is 1 if something is broken, or the network outside of that range.
    """

    config: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")] = None
    """A TOML file, or the name of a shipped one, whose network is examined instead of the machine."""
    overrides: Overrides = ()
    """Values that replace those of the file, such as backbone.blocks=8."""
    out: Path | None = None
    """A PNG to draw what reaches the blocks into."""


@dataclass(frozen=True)
class Schema:
    """Write a JSON Schema of configurations, by which an editor completes and checks their keys and values."""

    out: Path | None = None
    """The file to write instead of printing."""


@dataclass(frozen=True)
class Completion:
    """Print the script by which a shell completes commands and options; docs/command-line.md says where to put it."""

    shell: Annotated[Literal["bash", "zsh"], tyro.conf.Positional, tyro.conf.arg(metavar="SHELL")]
    """bash or zsh."""
