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
    quality: bool = False
    """Measure how far samples are from the held-out images: short for --method quality."""
    memorization: bool = False
    """Look for copies of training images among samples: short for --method memorization."""
    thermodynamics: bool = False
    """Measure information, heat and entropy production by noise level: short for --method thermodynamics."""
    data: Path | None = None
    """A folder of images, or an image, to measure instead of the held-out ones."""
    per_image: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None
    """Write the value of every example into this CSV file, with its rank among the held-out ones, and a picture of the
    least and the most likely images beside it."""
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
    """bound: steps drawn for each example, in two independent halves; an even number, 16 by default. thermodynamics:
    evaluations for each example, two at each noise level, 96 by default."""
    steps: int | None = None
    """bound, importance, thermodynamics: steps of the trajectory; by default those of the trajectory that the model was
    trained on, if it was, else 100,000 for bound, 128 for thermodynamics and 256 for importance."""
    continuous: bool = False
    """bound: in continuous time, with infinitely many steps."""
    paths: int | None = None
    """importance, thermodynamics: paths for each example, 16 by default; thermodynamics has them for some examples, and
    0 leaves them out."""
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
    samples: int | None = None
    """quality, memorization: samples to draw."""
    features: Literal["inception", "dinov2"] | None = None
    """quality, memorization: compare by the features of this network too, whose weights are --weights."""
    weights: Path | None = None
    """quality, memorization: a file of the weights of --features, as safetensors or of torch."""
    flagged: float | None = None
    """memorization: the share of honest samples that is taken for copies, 0.01 by default."""
    guidance: float | None = None
    """Classifier-free guidance scale; 1 is off. By default likelihoods have none, and samples that of the model."""
    float64: bool = False
    """Run the network in float64."""
    condition: bool = True
    """Measure p(x | what the network learned to be told of x, by condition.operator or data.condition), not p(x)."""
    compare: bool = True
    """bound: measure as many training examples too, and draw both by log-SNR."""
    seed: int | None = None
    """Seed of all random numbers, 0 by default."""
    device: Device = None


@dataclass(frozen=True)
class Compare:
    """Compare images with their originals, or runs with each other.

    Images are compared file by file: PSNR, SSIM and, with weights, LPIPS, and the means of each. Images and originals
    are paired by their names without suffix. The exit code is 1 if one could not be compared. Runs are shown side by
    side in one HTML file: their curves over each other, their samples by step, and where their configurations differ.
    """

    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES|RUN")]
    """An image or a folder of images, or of restorations, which count by their mean; or a run folder."""
    originals: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ORIGINALS|RUN")]
    """The original or the folder of originals; or a run folder."""
    more: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN...]")] = ()
    """Further run folders."""
    lpips: Path | None = None
    """Weights of LPIPS as a safetensors file; docs/restoration.md says how to make it."""
    out: Path | None = None
    """Write the numbers of every image to this CSV file; of runs the page, by default compare.html."""
    device: Device = None


@dataclass(frozen=True)
class Distance:
    """Measure how far the images of one folder are from those of another, without a model.

    The second folder has the real images: the distance between two halves of it stands beside each number.
    docs/quality.md says how to read them.
    """

    samples: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SAMPLES")]
    """A folder of images."""
    real: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="REAL")]
    """The folder of real images."""
    features: Literal["inception", "dinov2"] | None = None
    """Compare by the features of this network too, whose weights are --weights."""
    weights: Path | None = None
    """A file of the weights of --features, as safetensors or of torch."""
    limit: int | None = None
    """Use at most this many images of each folder, evenly spaced."""
    size: int | None = None
    """The side to which images are resized and cropped; it is needed where they are of several sizes."""
    range: tuple[float, float] | None = None
    """The values of files that are black and white, as data.range has them; by default those of its depth."""
    seed: int = 0
    """Seed of the division into sets."""
    out: Path | None = None
    """Write the numbers to this JSON or CSV file, or a picture of them to this PNG."""
    device: Device = None
