"""The options of the commands that measure models and images: evaluate, compare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffusion.commands.options.common import Device, Overrides, Run
from diffusion.registries import names

EVALUATORS = ", ".join(names("evaluation", "EVALUATORS"))
MASKS = ", ".join(names("evaluation/known.py", "MASKS"))


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained model on held-out examples, each number with its interval and the sources of its width.

    The likelihood is in bits/dim for images and in bits/vector for points. An option that the method does not have is
    an error.
    """

    run: Run
    """A run folder."""
    overrides: Overrides = ()
    """Where the data are or how their files are taken, such as data.path=photos data.labels=labels.csv."""
    method: Annotated[
        str,
        tyro.conf.arg(
            help=f"The evaluator: {EVALUATORS}. bound is the trajectory bound by terms, ode the probability-flow ODE, "
            "importance the importance-weighted paths. Options of an evaluator may follow its name, as in ode:probes=8."
        ),
    ] = "bound"
    data: Path | None = None
    """A folder of images, or an image, to measure instead of the held-out ones."""
    data_path: Path | None = None
    """The place of the run's own data, if they were moved. They are known by content, and held-out ones stay so."""
    limit: int | None = None
    """Use at most this many examples."""
    known: Annotated[
        str | None,
        tyro.conf.arg(
            help="bound: measure what is hidden given what is known, in bits per hidden dimension, with a model that "
            f"was trained to restore (observed.share). A mask, white where it is known, or {MASKS}: the middle, the "
            "right half, or 92 percent of the pixels are hidden."
        ),
    ] = None
    draws: int | None = None
    """bound: steps drawn for each example, in two independent halves; an even number, 16 by default."""
    steps: int | None = None
    """bound, importance: steps of the trajectory; by default those of the trajectory that the model was trained on,
    if it was, else 100,000 for bound and 256 for importance."""
    continuous: bool = False
    """bound: in continuous time, with infinitely many steps."""
    paths: int | None = None
    """importance: paths for each example, 16 by default."""
    probes: int | None = None
    """ode: Hutchinson probes for each example and dequantization, 4 by default; in few dimensions the trace is
    exact."""
    tolerance: float | None = None
    """ode: tolerance of the adaptive solver, 1e-4 by default; a tenth of it on a few examples measures its error."""
    dequantization: Literal["uniform", "noise"] | None = None
    """ode: dequantization of images, by uniform noise (the default), or by the noise of the clean end, for models
    trained with Fourier features."""
    solver_steps: int | None = None
    """ode: number of fixed RK4 steps; 0, the default, for an adaptive solver."""
    guidance: float = 1.0
    """Classifier-free guidance scale; 1 is off."""
    float64: bool = False
    """Run the network in float64."""
    compare: bool = True
    """bound: measure as many training examples too, and draw both by log-SNR."""
    seed: int | None = None
    """Seed of all random numbers, 0 by default."""
    device: Device = None


@dataclass(frozen=True)
class Compare:
    """Compare images with their originals, file by file: PSNR, SSIM and, with weights, LPIPS, and the means of each.

    Images and originals are paired by their names without suffix. The exit code is 1 if one could not be compared.
    """

    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """An image or a folder of images, or of restorations, which count by their mean."""
    originals: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ORIGINALS")]
    """The original or the folder of originals."""
    lpips: Path | None = None
    """Weights of LPIPS as a safetensors file; docs/restoration.md says how to make it."""
    out: Path | None = None
    """Write the numbers of every image to this CSV file."""
    device: Device = None
