"""A model that somebody else trained, as an experiment of this package with weights, and as a run folder.

    RUN/config.json                 the experiment, as far as a model says anything of it
    RUN/checkpoints/step-00000000/  the weights, in float32
    RUN/import.json                 where they come from, by content, and what was dropped or changed

An image v of 0 to 255 is x = v/127.5 - 1 to these models, so that the description of the data is exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion import checkpoint, config
from diffusion.backbones import UNet2DConfig
from diffusion.checkpoint import Part, Retention
from diffusion.config import Config, ModelConfig, SamplingConfig, TrainingConfig
from diffusion.data import DataOptions, DataSpec
from diffusion.denoiser import X0, EDMPrecond, V
from diffusion.errors import InputError
from diffusion.exchange.schedulers import Process
from diffusion.files import new_folder
from diffusion.grids import Karras
from diffusion.model.loading import build, describe
from diffusion.model.origin import RESOLVED
from diffusion.noise_levels import Uniform
from diffusion.objectives import EDMError, Simple, VError, Weighting, X0Error
from diffusion.schedules import DiscreteBetas

RECORD = "import.json"
# Values of 0 to 255 become -1 to 1.
LEVELS, MIDDLE = 256, 127.5
# The weight of the bound in training that learns a variance too (Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 16).
HYBRID = 0.001
# The learning rate of most models of this kind, and the steps in which a solver of second order samples them well.
LR, STEPS = 1e-4, 50
# The steps of noise that are sampled, in units of data of standard deviation ½; they are cut to those of the schedule.
GRID = Karras(sigma_min=0.015, sigma_max=80.0)
OUTPUT = ("conv_out.weight", "conv_out.bias")


@dataclass(frozen=True)
class Imported:
    """A model: its network, its forward process, the shape (C, H, W) of its images, the number of its classes, and its
    weights by their names in `UNet2DModel`.

    `origin` says where it comes from, in a form that JSON can hold. `changes` are lines about what was dropped or
    changed.
    """

    backbone: UNet2DConfig
    process: Process
    shape: tuple[int, int, int]
    classes: int
    tensors: Mapping[str, Tensor]
    origin: Mapping[str, Any]
    changes: tuple[str, ...] = ()

    @property
    def spec(self) -> DataSpec:
        """The description of its images, whose classes have their numbers as names."""
        return DataSpec(self.shape, LEVELS, tuple(map(str, range(self.classes))), MIDDLE, MIDDLE)

    @property
    def experiment(self) -> Config:
        """The experiment: the model's own network and process, and otherwise what suits models of this kind."""
        channels, *size = self.shape
        learned, process = self.process.learned_variance, self.process
        return Config(
            data=DataOptions(size=(size[0], size[1]), channels=channels, labels=self.classes > 0),
            backbone=replace(self.backbone, time=process.time, steps=process.steps),
            model=ModelConfig(learned, "linear") if learned else ModelConfig(),
            schedule=process.schedule,
            parameterization=process.parameterization,
            noise_levels=Uniform(),
            weighting=_weighting(process),
            training=TrainingConfig(lr=LR, label_dropout=0.0, hybrid=HYBRID if learned else 0.0),
            grid=GRID,
            sampling=SamplingConfig(steps=STEPS),
        )

    @property
    def lines(self) -> list[str]:
        """Lines about the model, and about what was dropped or changed."""
        kind, count = self.process, sum(value.numel() for value in self.tensors.values())
        size = "x".join(map(str, self.shape))
        labels = f", {self.classes} classes" * (self.classes > 0)
        what = f"{type(kind.parameterization).__name__}, {type(kind.schedule).__name__}"
        return [f"{count:,} weights, images of {size}{labels}; {what}", *self.changes, *kind.changes]

    def weights(self) -> dict[str, Tensor]:
        """The weights under the names of this package's network, in float32.

        Raises InputError, which names some, for tensors that are missing, left over, of another shape or not finite.
        """
        with torch.device("meta"):
            expected = build(self.experiment, self.spec).state_dict()
        own = {name: value for name, value in expected.items() if name.endswith(".log_snrs")}
        tensors = {name: value.float() for name, value in self.tensors.items()}
        _check({name: value for name, value in expected.items() if name not in own}, tensors)
        if self.process.negated:
            tensors |= {name: -tensors[name] for name in OUTPUT}
        if isinstance(self.process.schedule, DiscreteBetas):
            tensors |= {name: self.process.schedule.table.to(value.dtype) for name, value in own.items()}
        return tensors


def _weighting(process: Process) -> Weighting:
    """The squared error of what the network predicts."""
    kind = process.parameterization
    if isinstance(kind, EDMPrecond):
        return EDMError(kind.sigma_data)
    return X0Error() if isinstance(kind, X0) else VError() if isinstance(kind, V) else Simple()


def _check(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raises InputError unless tensors have the names and shapes that are expected, and finite values."""
    for what, names in (("missing", expected.keys() - found.keys()), ("left over", found.keys() - expected.keys())):
        if names:
            listed = f"{_few(sorted(names))} {'is' if len(names) == 1 else 'are'} {what}"
            raise InputError(f"weights: {listed}: they are those of another network than its configuration says")
    for name, value in found.items():
        if value.shape != expected[name].shape:
            shape, own = tuple(value.shape), tuple(expected[name].shape)
            raise InputError(f"weights: {name}: must be of shape {own} by the configuration, got {shape}")
        if not value.isfinite().all():
            raise InputError(f"weights: {name}: has values that are not finite; another variant may not (--variant)")


def _few(names: Sequence[str]) -> str:
    listed = ", ".join(ascii(name)[1:-1][:80] for name in names[:3])
    return listed + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def write(model: Imported, run: Path) -> None:
    """Writes the run folder of a model, which is whole or not there.

    Raises InputError for weights that do not fit, where something lies at `run`, and where it cannot be written.
    """
    weights, experiment = model.weights(), model.experiment
    with new_folder(run) as folder:
        part = Part(weights, describe(experiment, model.spec, 0))
        checkpoint.write(folder, 0, {"model": part}, keep=Retention(1))
        (folder / RESOLVED).write_text(json.dumps(config.to_dict(experiment), indent=1), encoding="utf-8")
        record = {**model.origin, "model": model.lines[0], "changes": model.lines[1:]}
        (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
