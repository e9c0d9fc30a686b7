"""The quality of samples: how far they are from real examples, beside how far real examples are from each other.

Samples are drawn by the sampling settings of the model. Their labels are those of real examples, because otherwise a
difference could be one of labels alone. Real examples are held-out ones. Where these are fewer than twice the samples,
training examples join them, at most as many, and sets of as many members as there are held-out examples are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.data import Dataset
from diffusion.errors import InputError, require
from diffusion.evaluation import features
from diffusion.evaluation.comparing import Comparing, Sets
from diffusion.evaluation.evaluator import Evaluator, Setting
from diffusion.evaluation.quality_table import Pictures, QualityEvaluation, notes, terms
from diffusion.evaluation.sets import Examples, Scale
from diffusion.evaluation.telling import untold
from diffusion.model import Model
from diffusion.samplers import SAMPLERS

# The smallest n of a class.
SMALLEST_CLASS = 10
CHANCE = "classes: by chance alone one interval in twenty does not hold 0"


@dataclass(frozen=True)
class Quality(Evaluator):
    """The distances of `samples` samples from real examples, by the `features` of a network with `weights` too."""

    samples: int = 1000
    features: str | None = None
    weights: Path | None = None
    seed: int = 0
    name = "quality"
    of_examples = False

    def __post_init__(self) -> None:
        require(self.samples >= 4, "samples", "at least 4", self.samples)
        features.check_alone(self.features, self.weights)

    @property
    def settings(self) -> dict[str, Any]:
        """The values of the fields; weights are known by the beginning of the hash of their file."""
        return {**asdict(self), "weights": features.known_by(self.weights)}

    def check(self, model: Model) -> None:
        """Raises InputError for features of what no network takes, and without their weights."""
        features.check_for(model.spec, self.features, self.weights)

    def __call__(self, model: Model, examples: Dataset, setting: Setting) -> QualityEvaluation:
        """Draws samples and compares them with held-out examples, and with training ones where these are few.

        A sample depends on the seed and its number alone, and its label on these and the real examples. Processes share
        samples, features and distances.

        Raises InputError where there are no examples, too few, or of another kind than the model's, and for weights as
        `features.load` does.
        """
        if setting.dtype != torch.float32:
            raise InputError(f"--float64: has no effect with {self.name}, which samples in the precision of the model")
        real = Examples.real(setting.select(examples, model.spec), setting.training, self.samples)
        require(all(part.seen is None for part in real.parts), "data", f"seen everywhere for {self.name}", "holes")
        network = None if self.features is None else features.load(self.features, self.weights, model.device)
        comparing = Comparing(model.spec.shape, network, self.seed, setting.shared, setting.progress)
        few = "data.held_out" if setting.limit is None else "--limit"
        comparing.check(self.samples, len(real), "--samples", few if setting.training is not None else "--data")
        drawing = Drawing(model, self, setting, Scale.of(real), labels(model, real, self.samples, self.seed))
        sets = Sets(
            comparing.describe(drawing.batches()),
            comparing.describe(map(drawing.scale, real.batches(shared=setting.shared, progress=setting.progress))),
        )
        distances = comparing.compare(sets)
        result = QualityEvaluation(
            self.name,
            f"{self.samples:,} samples against real examples",
            "distance",
            len(real.parts[0]),
            terms(distances),
            distances=distances,
            samples=self.samples,
            real=len(real),
            network={} if network is None else network.to_dict(),
            pictures=Pictures(drawing.shown, drawing.scale(real.some(Pictures.most(model.spec)))),
        )
        result = result.with_notes(
            [said_of(real, setting.training), drawing.note, *notes(comparing, result), *drawing.notes]
        )
        return result if drawing.label is None else by_class(result, comparing, sets, drawing.label, real)


def labels(model: Model, real: Examples, count: int, seed: int) -> list[int] | None:
    """Labels for so many samples: those of the real examples in a random order, again and again, or the classes in
    turn where they have none; None for a model without classes.
    """
    theirs = real.labels
    if not model.spec.classes or theirs is None:
        return model.in_turn(count)
    order = torch.randperm(len(theirs), generator=torch.Generator().manual_seed(seed))
    return [int(theirs[order[i % len(order)]]) for i in range(count)]


def said_of(real: Examples, training: Dataset | None) -> str:
    """Which real examples are compared with."""
    held_out, *others = real.parts
    if training is None:
        return f"real: {len(held_out):,} examples that were given; whether the model learned from them is not known"
    line = f"real: {len(held_out):,} examples that were not trained on"
    if not others:
        return line
    return (
        f"{line} and, as these are few, {len(others[0]):,} that were; samples that copy these have a smaller distance "
        "(--memorization looks for copies)"
    )


@dataclass(frozen=True)
class Drawing:
    """Draws the samples of an evaluation, with a `label` each. `kept` has the first of this process."""

    model: Model
    quality: Quality
    setting: Setting
    scale: Scale
    label: list[int] | None
    kept: list[Tensor] = field(default_factory=list)

    def batches(self) -> Iterator[Tensor]:
        """Yields the samples of this process as distances take them, (B, *)."""
        most = Pictures.most(self.model.spec)
        for numbers, x in self.model.samples(
            self.quality.samples,
            shared=self.setting.shared,
            progress=self.setting.progress,
            seed=self.quality.seed,
            label=self.label,
            guidance=self.setting.guidance,
        ):
            scaled = self.scale(x)
            self.kept.extend(scaled[: max(0, most - numbers.start)])
            yield scaled

    @property
    def shown(self) -> Tensor:
        """The first samples, in the main process those that a picture shows."""
        return torch.stack(self.kept) if self.kept else torch.zeros(0, *self.model.spec.shape)

    @property
    def note(self) -> str:
        """How the samples were drawn."""
        config = self.model.config
        sampler = next((name for name, kind in SAMPLERS.items() if type(config.sampler) is kind), "")
        scale = config.sampling.guidance if self.setting.guidance is None else self.setting.guidance
        guided = f", guidance {scale:g}" if scale != 1 else ""
        return f"samples: {sampler} in {config.sampling.steps} steps{guided}, seed {self.quality.seed}"

    @property
    def notes(self) -> list[str]:
        """What else has to be known of the samples."""
        return [*filter(None, [self.scale.note]), *untold(self.model)]


def by_class(
    result: QualityEvaluation, comparing: Comparing, sets: Sets, label: list[int], real: Examples
) -> QualityEvaluation:
    """Adds the distances of each class of which there are enough examples."""
    theirs, names = real.labels, real.spec.classes
    if theirs is None or len(names) < 2:
        return result
    ours, parts, small = torch.tensor(label), {}, []
    for number, name in enumerate(names):
        part = sets.of(ours == number, theirs == number)
        if comparing.size(*part.counts) >= SMALLEST_CLASS:
            parts[name] = part
        else:
            small.append(f"{name} ({part.counts[0]:,} and {part.counts[1]:,})")
    result = replace(result, classes=comparing.by_class(parts)).with_notes([CHANCE] if parts else [])
    rule = f"fewer than {SMALLEST_CLASS} samples or {2 * SMALLEST_CLASS} real examples"
    return result.with_notes([f"classes left out, {rule}: {', '.join(small)}"] if small else [])


EVALUATORS: dict[str, type[Evaluator]] = {"quality": Quality}
