"""The options of every command. Nothing heavy is imported, so that help and mistakes answer at once.

The names that an option may take are read from the source of the registries (`registries.names`).
"""

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
OPERATORS = ", ".join(names("operators", "OPERATORS"))
EVALUATORS = ", ".join(names("evaluation", "EVALUATORS"))

Overrides = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SECTION.KEY=VALUE ...")]
ConfigFile = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")]
Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Images = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")]


@dataclass(frozen=True)
class Train:
    """Train a model. The same command again goes on where it stopped; Ctrl-C saves."""

    config: ConfigFile
    """A TOML file, as in configs/."""
    overrides: Overrides = ()
    """Values that replace those of the file, such as data.path=photos training.steps=5000."""
    out: Path | None = None
    """The run folder; runs/NAME for configs/NAME.toml by default."""
    strict: bool = False
    """Refuse to go on from an older checkpoint where the newest is damaged."""


@dataclass(frozen=True)
class Distill:
    """Teach a copy of a trained model to sample in a few network evaluations, guidance included."""

    run: Run
    """The run folder of the teacher."""
    overrides: Overrides = ()
    """Values of the student's experiment, such as training.steps=5000 distillation.substeps=4."""
    nfe: int = 4
    """Network evaluations per sample."""
    out: Path | None = None
    """The student's run folder; RUN-NFE by default, as in runs/flowers-4."""


@dataclass(frozen=True)
class DrawArguments(Draw):
    """The options of drawing images, with the names that the command line takes."""

    sampler: SamplerName | None = None
    """The sampler, instead of the default."""
    label: str | None = None
    """Class name or number."""


@dataclass(frozen=True)
class Sample:
    """Draw new images from a trained model, or with --image and --mask restore one."""

    run: Run
    """A run folder."""
    draw: Annotated[DrawArguments, tyro.conf.arg(name="")] = DrawArguments()
    out: Path | None = None
    """Where to write; RUN/samples-SEED or RUN/restored-NAME by default."""
    film: bool = False
    """Write the trajectory too, as a strip and an animation."""
    tune: bool = False
    """First measure on the model itself at which times its network evaluations are spent best."""
    image: Path | None = None
    """An image to restore. A transparent PNG is its own mask."""
    mask: Path | None = None
    """The mask of the image: white is known, black is to be filled."""
    method: MethodName = "auto"
    """The method of restoration."""
    noise: float = 0.0
    """Standard deviation of the noise on the known part of the image, in [0, 1]."""
    resize: bool = False
    """Bring the image to restore to the size that the model was trained on, instead of covering it by windows."""


@dataclass(frozen=True)
class Restorations:
    """The options of drawing restorations, and of where they are written."""

    draw: Annotated[DrawArguments, tyro.conf.arg(name="")] = DrawArguments(n=4)
    method: MethodName = "auto"
    """The method of restoration; docs/restoration.md says where each one is biased."""
    out: Path | None = None
    """Where to write; RUN/restored-NAME by default. Each of several images gets a folder of its name there."""
    resize: bool = False
    """Bring whole images to the size that the model was trained on, instead of covering them by windows of it."""


@dataclass(frozen=True)
class Inpaint:
    """Restore the unknown part of images, several times over."""

    run: Run
    """A run folder."""
    images: Images
    """Damaged images, or folders of them. A transparent PNG is its own mask."""
    mask: Path | None = None
    """The mask: white is known, black is to be filled. Or a folder of masks with the names of the images."""
    unknown_color: str | None = None
    """The color, such as #ff00ff, in which the unknown part is drawn into the images."""
    threshold: float = 0.1
    """The largest difference from that color, in [0, 1], of each channel of an unknown pixel."""
    noise: float = 0.0
    """Standard deviation of the noise on the known part, in [0, 1]; 0 keeps known pixels as they are."""
    options: Annotated[Restorations, tyro.conf.arg(name="")] = Restorations()


@dataclass(frozen=True)
class Restore:
    """Restore images that were blurred, made smaller, gray or noisy, or compressed, several times over."""

    run: Run
    """A run folder."""
    images: Images
    """Degraded images, or folders of them."""
    operator: Annotated[
        str,
        tyro.conf.arg(
            help=f"The degradation: {OPERATORS}. Options follow the name, as in blur:sigma=2, and several are applied "
            "one after another, as in blur:sigma=1+downsample:factor=2."
        ),
    ]
    noise: float | None = None
    """Standard deviation of the noise on the images, in [0, 1]; that of rounding to 8 bits by default."""
    damage: bool = False
    """Take whole images and degrade them first, to try a restoration out."""
    options: Annotated[Restorations, tyro.conf.arg(name="")] = Restorations()


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained model on held-out examples, each number with its interval and the sources of its width.

    The likelihood is in bits/dim for images and in bits/vector for points. An option that the method does not have is
    an error.
    """

    run: Run
    """A run folder."""
    method: Annotated[
        str,
        tyro.conf.arg(
            help=f"The evaluator: {EVALUATORS}. bound is the trajectory bound by terms, ode the probability-flow ODE, "
            "importance the importance-weighted paths. Options of an evaluator may follow its name, as in ode:probes=8."
        ),
    ] = "bound"
    data: Path | None = None
    """A folder of images to measure instead of the held-out ones."""
    limit: int | None = None
    """Use at most this many examples."""
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


@dataclass(frozen=True)
class Inspect:
    """Report on an image folder, tar shards or a Hugging Face dataset without training: what is in it, what repeats or
    is damaged, a configuration to start from, and the cost of training by it on this machine.
    """

    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """The folder, or whatever data.path may be."""
    labels: bool = False
    """Show the classes."""
    decode: bool = True
    """Decode every image, which finds damaged ones and near duplicates."""
    measure: bool = True
    """Time a part of a training step on this machine."""
    out: Path | None = None
    """Write the suggested configuration to this TOML file."""


@dataclass(frozen=True)
class VerifyResume:
    """Prove on this machine that a run of a configuration, interrupted and started again, ends as if it had not been:
    the same weights, moments and losses to the last bit. Otherwise the exit code is 1.
    """

    config: ConfigFile
    """A TOML file, as in configs/."""
    overrides: Overrides = ()
    """Values that replace those of the file."""
    steps: int = 6
    """Steps of the run, which is interrupted after half of them."""


@dataclass(frozen=True)
class Doctor:
    """Print the facts about this machine that belong in a bug report, and what is broken on it.

    The exit code is 1 if something is broken.
    """
