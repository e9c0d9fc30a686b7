"""The `diffusion` command. Arguments are parsed before anything heavy is imported, so that help and mistakes answer
at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffusion.errors import InputError

Overrides = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SECTION.KEY=VALUE ...")]
Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
SamplerName = Literal["ddpm", "ddim", "heun", "dpmpp_2m", "dpmpp_2m_sde"]
LikelihoodMethod = Literal["bound", "ode", "importance"]
DequantizationName = Literal["uniform", "noise"]
Method = Literal[
    "auto",
    "product",
    "replacement",
    "repaint",
    "dps",
    "ddnm",
    "zero",
    "pigdm",
    "tmpd",
    "mmps",
    "particles",
    "resampling",
]
Images = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")]


@dataclass(frozen=True)
class Train:
    """Train a model. The same command again goes on where it stopped; Ctrl-C saves."""

    config: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")]
    """A TOML file, as in configs/."""
    overrides: Overrides = ()
    """Values that replace those of the file, such as data.path=photos training.steps=5000."""
    out: Path | None = None
    """The run folder; runs/NAME for configs/NAME.toml by default."""
    strict: bool = False
    """Refuse to go on from an older checkpoint where the newest is damaged."""

    def __call__(self) -> int:
        """Returns the exit code."""
        from diffusion import config
        from diffusion.training import train

        run = self.out or Path("runs") / self.config.stem
        return train(config.load(self.config, self.overrides), run, strict=self.strict)


@dataclass(frozen=True)
class Distill:
    """Teach a copy of a trained model to sample in a few calls of the network, guidance included."""

    run: Run
    """The run folder of the teacher."""
    overrides: Overrides = ()
    """Values of the student's experiment, such as training.steps=5000 distillation.substeps=4."""
    calls: int = 4
    """Calls of the network per sample."""
    out: Path | None = None
    """The student's run folder; RUN-CALLS by default, as in runs/flowers-4."""

    def __call__(self) -> int:
        """Returns the exit code."""
        from diffusion.training import train
        from diffusion.training.distill import student

        out = self.out or self.run.with_name(f"{self.run.name}-{self.calls}")
        return train(student(self.run, self.calls, self.overrides), out)


@dataclass(frozen=True)
class Sample:
    """Draw new images from a trained model, or with --image and --mask restore one."""

    run: Run
    """A run folder."""
    n: int = 16
    """Number of samples, or of restorations of the image."""
    steps: int | None = None
    """Steps of the sampler."""
    sampler: SamplerName | None = None
    """Instead of the one in the run's config."""
    seed: int = 0
    """The same seed gives the same images."""
    label: str | None = None
    """Class name or number; without it a model with classes takes them in turn."""
    guidance: float | None = None
    """Strength of the label; 1 is none."""
    out: Path | None = None
    """Where to write; RUN/samples-SEED or RUN/restored-NAME by default."""
    film: bool = False
    """Write the trajectory too, as a strip and an animation."""
    tune: bool = False
    """First measure on the model itself at which noise levels its calls are spent best."""
    image: Path | None = None
    """An image to restore. A transparent PNG is its own mask."""
    mask: Path | None = None
    """Its mask: white is known, black is to be filled."""
    method: Method = "auto"
    """How to restore."""
    noise: float = 0.0
    """Standard deviation of noise on what is known of it, in [0, 1]."""
    batch: int | None = None
    """Images at a time; what suits the device by default."""
    resize: bool = False
    """Bring the image to restore to the size that the model was trained on, instead of covering it by windows."""

    def __call__(self) -> int:
        """Returns the exit code."""
        from diffusion.commands import evaluate

        if self.image is None and self.mask is not None:
            raise InputError("--mask: needs --image, the image that it belongs to")
        if self.image is None:
            return evaluate.sample(self)
        options = Restorations(
            n=self.n,
            method=self.method,
            steps=self.steps,
            sampler=self.sampler,
            seed=self.seed,
            label=self.label,
            guidance=self.guidance,
            out=self.out,
            batch=self.batch,
            resize=self.resize,
        )
        return Inpaint(self.run, (self.image,), mask=self.mask, noise=self.noise, options=options)()


@dataclass(frozen=True)
class Restorations:
    """How restorations are drawn and where they go."""

    n: int = 4
    """How many different restorations of each image."""
    method: Method = "auto"
    """How to restore; what the others are and where they are biased is in docs/restoration.md."""
    steps: int | None = None
    """Steps of the sampler."""
    sampler: SamplerName | None = None
    """Instead of the method's own."""
    seed: int = 0
    """The same seed gives the same restorations."""
    label: str | None = None
    """Class name or number."""
    guidance: float | None = None
    """Strength of the label; 1 is none."""
    out: Path | None = None
    """Where to write; RUN/restored-NAME by default. Of several images each gets a folder of its name there."""
    batch: int | None = None
    """Restorations at a time, of the size that the model was trained on; what suits the device by default."""
    resize: bool = False
    """Bring whole images to that size first, instead of covering them by overlapping windows of it."""


@dataclass(frozen=True)
class Inpaint:
    """Restore the unknown part of images, several times over."""

    run: Run
    """A run folder."""
    images: Images
    """Damaged images, or folders of them. A transparent PNG is its own mask."""
    mask: Path | None = None
    """Their mask: white is known, black is to be filled. Or a folder of masks with the names of the images."""
    unknown_color: str | None = None
    """The color, as #ff00ff, in which the unknown part is drawn into the images."""
    threshold: float = 0.1
    """How far from that color, in [0, 1], each channel of an unknown pixel may be."""
    noise: float = 0.0
    """Standard deviation of noise on what is known, in [0, 1]; without it known pixels are kept as they are."""
    options: Annotated[Restorations, tyro.conf.OmitArgPrefixes] = Restorations()

    def __call__(self) -> int:
        """Returns the exit code."""
        from diffusion.commands import restore

        return restore.inpaint(self)


@dataclass(frozen=True)
class Restore:
    """Restore images that were blurred, made smaller, gray or noisy, or compressed, several times over."""

    run: Run
    """A run folder."""
    images: Images
    """What is left of the images, or folders of it."""
    operator: str
    """What happened to them: denoise, gray, blur, box, motion, downsample or jpeg, with options as in blur:sigma=2, one
    after another as in blur:sigma=1+downsample:factor=2."""
    noise: float | None = None
    """Standard deviation of the noise on them, in [0, 1]; that of rounding to 8 bits by default."""
    damage: bool = False
    """The images are whole: do this to them first, to try it out."""
    options: Annotated[Restorations, tyro.conf.OmitArgPrefixes] = Restorations()

    def __call__(self) -> int:
        """Returns the exit code."""
        from diffusion.commands import restore

        return restore.restore(self)


@dataclass(frozen=True)
class Evaluate:
    """Measure the likelihood of held-out examples: bits/dim for images, bits/vector for points, each number with its
    interval and where the width comes from.
    """

    run: Run
    """A run folder."""
    method: LikelihoodMethod = "bound"
    """bound: the trajectory bound by named terms. ode: the probability-flow ODE. importance: importance-weighted paths.
    """
    data: Path | None = None
    """A folder of images to measure instead of the held-out ones."""
    limit: int | None = None
    """Use at most this many examples."""
    draws: int = 16
    """bound: noise levels drawn for each example, in two independent halves; an even number."""
    steps: int | None = None
    """Steps of the trajectory: those that the model was trained on, if it was; else 100,000 for bound, where a finer
    one is tighter at no further cost, and 256 for importance."""
    continuous: bool = False
    """bound: in continuous time, with infinitely many steps."""
    paths: int = 16
    """importance: paths for each example."""
    probes: int = 4
    """ode: Hutchinson probes for each example and dequantization; of few dimensions the trace is exact."""
    tolerance: float = 1e-4
    """ode: of the adaptive solver; a tenth of it on a few examples tells its error."""
    dequantization: DequantizationName = "uniform"
    """ode: of images, by uniform noise, or by the noise of the clean end, for models that know their levels."""
    solver_steps: int = 0
    """ode: so many fixed Runge-Kutta steps instead."""
    guidance: float = 1.0
    """Strength of the label; 1 is none."""
    float64: bool = False
    """Run the network in float64."""
    compare: bool = True
    """bound: measure as many training examples too, and draw both by noise level."""
    seed: int = 0
    """Of all random numbers."""

    def __call__(self) -> int:
        """Returns the exit code."""
        from diffusion.commands import evaluate

        return evaluate.evaluate(self)


@dataclass(frozen=True)
class Inspect:
    """Look through an image folder, tar shards or a Hugging Face dataset as training would, without training: what is
    in it, what repeats or is damaged, a configuration to start from and what training by it takes here.
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

    def __call__(self) -> int:
        """Returns the exit code."""
        from diffusion.commands.inspect import inspect

        return inspect(self)


@dataclass(frozen=True)
class VerifyResume:
    """Prove on this machine that a run of a configuration, interrupted and started again, ends as if it had not been:
    the same weights, moments and losses to the last bit. Otherwise the exit code is 1.
    """

    config: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")]
    """A TOML file, as in configs/."""
    overrides: Overrides = ()
    """Values that replace those of the file."""
    steps: int = 6
    """Steps of the run, which is interrupted in their middle."""

    def __call__(self) -> int:
        """Returns the exit code."""
        from diffusion import config
        from diffusion.training.verify import verify_resume

        found = verify_resume(config.load(self.config, self.overrides), self.steps)
        resumed = f"resumed from step {self.steps // 2} of {self.steps}"
        print("\n".join([f"{resumed}: not the same", *found]) if found else f"{resumed}: the same to the last bit")
        return int(bool(found))


@dataclass(frozen=True)
class Doctor:
    """Say what a report of a fault should say of this machine, and what is broken on it; then the exit code is 1."""

    def __call__(self) -> int:
        """Returns the exit code."""
        from diffusion.commands import doctor

        findings = doctor.examine()
        print(doctor.report(findings))
        return int(any(finding.broken for finding in findings))


Command = Train | Distill | Sample | Inpaint | Restore | Evaluate | Inspect | VerifyResume | Doctor
DESCRIPTION = "Diffusion models of a folder of images: train, sample, restore damaged images, measure the likelihood."
COMMANDS: dict[str, Callable[..., Command]] = {
    "train": Train,
    "distill": Distill,
    "sample": Sample,
    "inpaint": Inpaint,
    "restore": Restore,
    "evaluate": Evaluate,
    "inspect": Inspect,
    "verify-resume": VerifyResume,
    "doctor": Doctor,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The `diffusion` command: parses, runs, and turns the package's own errors into one line on standard error."""
    command = tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="diffusion", description=DESCRIPTION, args=arguments)
    return run(command)


def main_as(name: str) -> int:
    """One subcommand as a program of its own, for train.py and sample.py."""
    return run(tyro.cli(COMMANDS[name], prog=f"{name}.py"))


def run(command: Command) -> int:
    """Runs a parsed command; mistakes a person can mend give a message and exit code 2, Ctrl-C gives 130."""
    try:
        return command()
    except (InputError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
