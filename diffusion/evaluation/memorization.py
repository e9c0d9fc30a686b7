"""Looks for copies of training images among samples: `diffusion evaluate RUN --memorization`.

Each sample is compared with all training images, pixel by pixel and, if asked, by the features of a network. Which of
them are flagged, and how many are copies, says the test of `copies`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion import distributed
from diffusion.data import Dataset
from diffusion.data.images.scan import blamed_on
from diffusion.data.sources import SOURCES
from diffusion.distances.nearest import SHIFT
from diffusion.errors import InputError, require
from diffusion.evaluation import features
from diffusion.evaluation.copies import Verdict, below_third
from diffusion.evaluation.evaluator import Evaluator, Setting
from diffusion.evaluation.finding import Finder
from diffusion.evaluation.memorization_table import PIXELS, SHOWN, Found, MemorizationEvaluation, Near, Pictures
from diffusion.evaluation.proportions import Share
from diffusion.evaluation.sets import stored, units
from diffusion.evaluation.telling import untold
from diffusion.files import expanded
from diffusion.model import Model

# The most held-out examples that the test is calibrated on where no limit is given.
CALIBRATION = 2000
# The largest shift where none is given: training images are shifted by up to `data.margin`.
LARGEST_SHIFT = 4
# The digits of the hash of a place that names results, and of the number of a sample, as in its file.
PLACE, NUMBER = 6, 5
# The letters of a folder that name results.
NAME = 40
# The options of samples that are drawn.
DRAWING = ("samples", "seed")


@dataclass(frozen=True)
class Memorization(Evaluator):
    """The share of `samples` samples that are copies of training images, by a test that flags a share `flagged` of
    honest ones.

    Distances are those of pixels, least over mirror images and shifts by up to `shift` pixels, by default 1 or the
    shift of training (data.margin); and those of the `features` of a network with `weights` too. `images` is a folder
    of samples that were made before, which are tested instead.
    """

    samples: int = 1000
    flagged: float = 0.01
    shift: int | None = None
    features: str | None = None
    weights: Path | None = None
    images: str = ""
    seed: int = 0
    name = "memorization"
    of_examples = False

    def __post_init__(self) -> None:
        require(self.samples >= 1, "samples", "at least 1", self.samples)
        require(0 < self.flagged < 1, "flagged", "between 0 and 1", self.flagged)
        require(self.shift is None or self.shift >= 0, "shift", "0 or more", self.shift)
        features.check_alone(self.features, self.weights)
        for name in DRAWING:
            if self.images and getattr(self, name) != getattr(type(self), name):
                raise InputError(f"{name}: has no effect with images, which are all tested as they are")

    @property
    def settings(self) -> dict[str, Any]:
        """The values of the fields; weights are known by the beginning of the hash of their file, and a folder of
        images by its name and a hash of its place and its files.
        """
        folder = expanded(self.images).resolve()
        return {
            **asdict(self),
            "weights": features.known_by(self.weights),
            "images": f"{folder.name[:NAME]}-{state_of(folder)}" if self.images else "",
        }

    def check(self, model: Model) -> None:
        """Raises InputError for features of what no network takes, and without their weights, and for shifts out of an
        image.
        """
        if self.shift is not None and model.spec.is_image:
            require(self.shift < min(model.spec.shape[1:]), "shift", f"below {min(model.spec.shape[1:])}", self.shift)
        features.check_for(model.spec, self.features, self.weights)

    def __call__(self, model: Model, examples: Dataset, setting: Setting) -> MemorizationEvaluation:
        """Draws samples, finds the nearest training examples of each, and tests them by the held-out `examples`.

        A sample depends on the seed and its number alone. Processes share samples and comparisons.

        Raises InputError where there are no training or no held-out examples, or no two different training ones, where
        a part of them has not been seen, for guidance of samples that were made before, and for weights as
        `features.load` does.
        """
        if setting.dtype != torch.float32:
            raise InputError(f"--float64: has no effect with {self.name}, which samples in the precision of the model")
        if self.images and setting.guidance is not None:
            raise InputError(f"--guidance: has no effect with {self.name}:images, which were made before")
        held_out, training = setting.select(examples, model.spec), self._training(setting)
        held_out = held_out if setting.limit is not None else held_out.evenly(CALIBRATION)
        network = None if self.features is None else features.load(self.features, self.weights, model.device)
        samples, names = self._samples(model, setting)
        shared, progress = setting.shared, setting.progress
        pixels = Finder.of_pixels(training, self.shift_of(model), shared=shared, progress=progress)
        finders = {PIXELS: pixels}
        if network is not None:
            finders[network.name] = Finder.of_features(training, network, shared=shared, progress=progress)
        verdicts = {name: finder.verdict(samples, held_out, self.flagged) for name, finder in finders.items()}
        ours, unseen = (pixels.plain.neighbors(x) for x in (samples, pixels.mine(held_out)))
        shares = shares_of(verdicts) | {"ratio below 1/3": below_third(ours), "below 1/3, unseen": below_third(unseen)}
        ratios = verdicts[PIXELS].neighbors.ratios
        return MemorizationEvaluation(
            self.name,
            "copies of training examples",
            "ratio of distances",
            len(ratios),
            {name: share.estimate for name, share in shares.items()},
            tuple(ratios.tolist()),
            names=names,
            notes=(*self._notes(model, verdicts), *([] if network is None else [network.note])),
            shares=shares,
            found={name: found_in(verdict, training.names) for name, verdict in verdicts.items()},
            training=len(training),
            network={} if network is None else network.to_dict(),
            pictures=self._pictures(verdicts[PIXELS], samples, training, setting.shared),
        )

    def _training(self, setting: Setting) -> Dataset:
        training = setting.training
        if training is None:
            raise InputError(
                "--memorization: needs the training examples of the run, and the images of --data are others; for "
                "samples that were made before, use --method memorization:images=FOLDER"
            )
        require(training.seen is None, "data", f"seen everywhere for {self.name}", "images with holes")
        return training

    def shift_of(self, model: Model) -> int:
        """The pixels by which samples are shifted."""
        margin = model.config.data.margin
        return self.shift if self.shift is not None else max(SHIFT, min(margin, LARGEST_SHIFT))

    def _samples(self, model: Model, setting: Setting) -> tuple[Tensor, tuple[str, ...]]:
        """The samples of this process in units, as files hold them, (B, *), and the names of all."""
        if self.images:
            made = opened(self.images, model)
            mine = distributed.share(len(made)) if setting.shared else range(len(made))
            return units(made, mine), tuple(made.names)
        drawn = model.samples(
            self.samples,
            shared=setting.shared,
            progress=setting.progress,
            seed=self.seed,
            label=model.in_turn(self.samples),
            guidance=setting.guidance,
        )
        parts = [stored(x, model.spec) for _, x in drawn]
        names = tuple(f"{number:0{NUMBER}d}" for number in range(self.samples))
        return torch.cat([torch.zeros(0, *model.spec.shape), *parts]), names

    def _pictures(self, verdict: Verdict, samples: Tensor, training: Dataset, shared: bool) -> Pictures:
        """The samples most like copies, which other processes may have drawn, beside what is near them."""
        if not training.spec.is_image:
            return Pictures()
        ratios = verdict.neighbors.ratios
        numbers = sorted(range(len(ratios)), key=lambda i: float(ratios[i]))[:SHOWN]
        mine = distributed.share(len(ratios)) if shared else range(len(ratios))
        kept = samples[[i - mine.start for i in sorted(numbers) if i in mine]]
        every = dict(zip(sorted(numbers), distributed.gather(kept) if shared else kept, strict=True))
        rows = [torch.cat([every[i][None], units(training, verdict.neighbors.numbers[i].tolist())]) for i in numbers]
        return Pictures(tuple(numbers), torch.stack(rows))

    def _notes(self, model: Model, verdicts: dict[str, Verdict]) -> list[str]:
        """What has to be known to read the numbers."""
        lines = []
        for name, verdict in verdicts.items():
            where = "" if name == PIXELS else f", {name}"
            lines += said_of(verdict, where, self.flagged)
        shift = self.shift_of(model)
        if model.spec.is_image:
            moved = f" and shifts by up to {shift} pixel{'s' if shift > 1 else ''}, edges repeated" if shift else ""
            lines.append(f"distances: root mean square over pixels, least over mirror images{moved}")
        lines.append("ratio below 1/3: the rule of Bonnaire et al. (2025), without calibration or mirror images")
        if self.images:
            return [*lines, f"samples: the images in {self.images}"]
        turn = "; classes in turn, compared with training images of all classes" if model.spec.classes else ""
        return [*lines, f"samples: drawn as the run samples, seed {self.seed}{turn}", *untold(model)]


def opened(folder: str, model: Model) -> Dataset:
    """Opens a folder of samples that were made before, as images of the model.

    Where images have numbers for names, as `diffusion sample` writes them, others are pictures of them and left out,
    which is said.
    Raises FolderError for a folder that cannot be used, InputError for a model of points.
    """
    require(model.spec.is_image, "memorization.images", "left out for a model of points", folder)
    data = replace(model.config.data, source="folder", path=folder, labels=False, masks="", min_images=1)
    with blamed_on("memorization.images"):
        found = SOURCES["folder"](replace(data, condition="", condition_channels=None), distributed.say, model.spec)
    numbered = [i for i, name in enumerate(found.names) if Path(name).stem.isdecimal()]
    if not numbered or len(numbered) == len(found):
        return found
    distributed.say(
        f"{folder}: {len(found) - len(numbered):,} images are left out, whose names are not the number of a sample"
    )
    return found.subset(numbered)


def state_of(folder: Path) -> str:
    """A short hash of the place of a folder and of the names, sizes and times of its files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    facts = [f"{path}\0{path.stat().st_size}\0{path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256(os.fsencode("\n".join([str(folder), *facts]))).hexdigest()[:PLACE]


def shares_of(verdicts: dict[str, Verdict]) -> dict[str, Share]:
    """The shares of all verdicts by name; those of features have the name of the network."""
    return {
        what if name == PIXELS else f"{what}, {name}": share
        for name, verdict in verdicts.items()
        for what, share in verdict.shares.items()
    }


def found_in(verdict: Verdict, names: Sequence[str]) -> Found:
    """What a verdict says of each sample, with the names of training examples."""
    neighbors, ratios = verdict.neighbors, verdict.neighbors.ratios
    rows = zip(neighbors.numbers.tolist(), neighbors.distances.tolist(), ratios.tolist(), strict=True)
    near = tuple(Near((names[a], names[b]), (first, second), ratio) for (a, b), (first, second), ratio in rows)
    p_values, flagged = verdict.test.p_values(ratios).tolist(), verdict.flagged.tolist()
    return Found(near, tuple(p_values), tuple(flagged), verdict.test.threshold, len(verdict.test.held_out))


def said_of(verdict: Verdict, where: str, flagged: float) -> list[str]:
    """The sentences without which a verdict could be misread."""
    test, count = verdict.test, len(verdict.test.held_out)
    lines = [
        f"flagged{where}: samples nearer to one training example than {test.threshold:.4f} times the distance of the "
        f"second nearest, as {test.rank:,} of {count + 1:,} unseen ones are on average, by {count:,} held-out ones",
        f"second nearest{where}: of those farther than {verdict.same:.4g} from the nearest; others are copies of it",
    ]
    if not test.enough:
        lines.append(
            f"few{where}: {count:,} held-out examples cannot tell a share of {flagged:g}; smaller ratios than all "
            f"of theirs are flagged, a share of {test.rate.mean:.4f} of unseen examples"
        )
    if verdict.fewer:
        lines.append(
            f"fewer{where}: even fewer samples are flagged than unseen examples, by more than chance; they differ from "
            "these, as blurred ones do, and the interval of copies ends where that of all flagged samples does"
        )
    return lines


EVALUATORS: dict[str, type[Evaluator]] = {"memorization": Memorization}
