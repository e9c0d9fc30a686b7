"""The pictures and numbers that a run shows: samples from fixed noise, the bound on held-out examples, the loss by
log-SNR, and the final pictures and numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from diffusion import distributed, figures, plots
from diffusion.config import Config
from diffusion.data import Dataset, identity
from diffusion.evaluation import BoundEstimator, LikelihoodEvaluation, Setting, evaluate, results
from diffusion.evaluation.known import box
from diffusion.model import Model, clocks, told
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.reporting.html import REPORT, write_report
from diffusion.reporting.names import GAP_PICTURE, LAST, PREFIX, REAL, SAMPLES
from diffusion.reporting.state import State
from diffusion.training.generalization import Gap, key_unit
from diffusion.training.metrics import STANDARD_ERROR, TOTAL, TRAINING
from diffusion.training.monitor import LossByLogSNR

# Samples in a film of images and of points.
FILM_ROWS = 4
FILM_POINTS = 1000
# The most held-out examples that the last number is measured on; `diffusion evaluate` takes them all.
FINAL_IMAGES = 1024


@dataclass(frozen=True)
class Validation:
    """A validation: its `numbers`, as rows of metrics.jsonl have them, and the bound of each example, `values`.

    Both are empty where nothing can be measured. `gap` compares them with training examples, None where these are not
    measured.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    values: tuple[float, ...] = ()
    gap: Gap | None = None


class Reporter:
    """Makes pictures and numbers on all processes, which must call its methods together, and writes them into the run
    folder on the main one.

    With `remembers` the training examples are as the held-out ones are, so that both may be compared.
    """

    def __init__(
        self,
        config: Config,
        run: Path,
        train: Dataset,
        held_out: Dataset,
        say: Callable[[str], None],
        *,
        remembers: bool = True,
    ) -> None:
        self.config, self.run, self.train, self.held_out, self.say = config, run, train, held_out, say
        self.remembers = remembers
        self._said = False

    @property
    def has_samples(self) -> bool:
        """Whether an earlier part of this run left a picture of samples."""
        return any((self.run / SAMPLES).glob(f"{PREFIX}*.png"))

    def has_shown(self, step: int) -> bool:
        """Whether there is a picture of samples of `step`."""
        return self.picture(step).exists()

    @property
    def measures(self) -> bool:
        """Whether there are held-out examples and the model, unlike a student, has a likelihood and restores."""
        return len(self.held_out) > 0 and not self.config.distillation.teacher

    def page(self, state: State = "training") -> None:
        """Writes report.html as the run folder is now, on the main process.

        It is for looking only: what keeps it from being written is said once, and the run goes on.
        """
        if not distributed.is_main():
            return
        try:
            write_report(self.run, state=state)
        except Exception as error:
            if not self._said:
                self.say(f"{self.run / REPORT}: cannot be written ({error}); the run goes on without it")
            self._said = True

    def samples(self, model: Model) -> None:
        """Writes a picture of samples, and once a picture of real examples beside it.

        The noise is the same every time, so that pictures of different steps compare.
        """
        folder, count = self.run / SAMPLES, self.config.report.pictures
        x = model.sample(count, label=model.in_turn(count), shared=True)
        if not distributed.is_main():
            return
        if not (folder / REAL).exists():
            real, _ = shown_examples(model, self.train, count)
            figures.save_png(figures.draw(real), folder / REAL, {})
            if shown := _shown(model):
                self.say(f"pictures show {shown['shown']}")
        info = {"seed": 0, "step": model.step, "sampling": asdict(self.config.sampling), **_shown(model)}
        figures.save_png(figures.draw(x), self.picture(model.step), info)

    def picture(self, step: int) -> Path:
        """Returns the file of the picture of a step."""
        return self.run / SAMPLES / f"{PREFIX}{step:08d}.png"

    def validation(self, model: Model, losses: LossByLogSNR) -> Validation:
        """Plots the loss by log-SNR, measures the bound on held-out examples and prints it with its 95 % interval.

        The numbers are the bound and its terms, with the standard error of the bound. The gap to training examples
        follows, if it is measured.
        """
        if distributed.is_main() and (seen := losses.rows()):
            plots.loss_by_log_snr(seen, self.run / "loss_by_log_snr.png", model.step, clocks.marks(self.run))
        if not self.measures:
            return Validation()
        due = self.config.report
        method = BoundEstimator(draws=due.draws)
        result = evaluate(model, self.held_out, method=method, limit=due.images, shared=True)
        terms = ", ".join(f"{term} {result.mean[term]:.3f}" for term in ("prior", "diffusion", "decoder"))
        unit = key_unit(result.unit)
        numbers = {f"held_out/{term}_{unit}": value for term, value in result.mean.items()}
        numbers[f"{TOTAL}{unit}{STANDARD_ERROR}"] = result.standard_error["total"]
        said = f"step {model.step}: held-out {result.terms['total']} {result.unit} at 95 % ({terms})"
        # The training examples are spaced evenly, always the same, and not augmented.
        count = min(due.training_images, result.examples) if self.remembers else 0
        if not count:
            self.say(said)
            return Validation(numbers, result.values)
        training = evaluate(model, self.train, method=method, limit=count, shared=True)
        numbers[f"{TRAINING}{unit}"] = training.mean["total"]
        numbers[f"{TRAINING}{unit}{STANDARD_ERROR}"] = training.standard_error["total"]
        gap = self._gap(training, result)
        self.say(f"{said}, {gap.total} above training examples")
        return Validation({**numbers, **gap.numbers}, result.values, gap)

    def _gap(self, training: LikelihoodEvaluation, held_out: LikelihoodEvaluation) -> Gap:
        """Compares training and held-out examples, and plots both by log-SNR."""
        gap = Gap.of(training, held_out, self._compared)
        if distributed.is_main():
            curves = {"held-out": held_out.by_log_snr, "training": training.by_log_snr, "difference": gap.by_log_snr}
            plots.by_log_snr(curves, self.run / GAP_PICTURE, held_out.unit, clocks.marks(self.run))
        return gap

    @cached_property
    def validated(self) -> str:
        """The digest of the examples of a validation, by which two validations are known to be of the same ones."""
        return identity.digest(identity.hashes_of(self.held_out.evenly(self.config.report.images)))

    @cached_property
    def _compared(self) -> str:
        """The digests of the held-out and of the training examples of a validation."""
        training = self.train.evenly(self.config.report.training_images)
        return f"{self.validated} {identity.digest(identity.hashes_of(training))}"

    def finished(self, step: int) -> bool:
        """Whether `finish` ran to its end for `step`."""
        last = self.run / LAST
        return last.exists() and figures.read_info(last).get("step") == step

    def finish(self, model: Model) -> None:
        """Writes the last pictures and numbers: film.png, restoration.png, the evaluation and, last, samples.png."""
        classes, count = len(model.spec.classes), self.config.report.pictures
        label = [i * classes // count for i in range(count)] if classes else None
        x = model.sample(count, label=label, shared=True)
        shows = self.config.report.restored > 0 and model.spec.is_image and self.measures
        restored = restorations(model, self.held_out, self.config.report.restored) if shows else None
        result = evaluate(model, self.held_out, limit=FINAL_IMAGES, shared=True) if self.measures else None
        if not distributed.is_main():
            return
        info = {"seed": 0, "step": model.step, "sampling": asdict(self.config.sampling), **_shown(model)}
        rows = FILM_ROWS if model.spec.is_image else FILM_POINTS
        frames = model.film(rows, label=model.in_turn(rows))
        figures.save_png(figures.film(frames), self.run / "film.png", info)
        written = ["film.png"]
        if restored is not None:
            figures.save_png(restored, self.run / "restoration.png", info)
            written.append("restoration.png")
        if result is not None:
            setting = Setting(FINAL_IMAGES)
            made = results.Made.of(
                BoundEstimator(), setting, self.held_out, self.config.data, model.step, results.HELD_OUT
            )
            named = results.named(result, self.held_out, setting, model.spec)
            *kept, _ = results.write(self.run, named, made, stem="evaluation", figure=False)
            written += ["evaluation.json", "evaluation.csv"]
            self.say("\n".join([result.table(), *kept]))
        figures.save_png(figures.draw(x), self.run / LAST, info)
        self.page("finished")
        self.say(f"{self.run}: {', '.join([*written, LAST])}")


def _shown(model: Model) -> dict[str, str]:
    """Says which bands the pictures of a model show, as an entry of their metadata; empty where they show all."""
    bands = figures.shown_bands(model.spec.shape[0]) if model.spec.is_image else ""
    return {"shown": bands} if bands else {}


def display_examples(dataset: Dataset, count: int) -> Tensor:
    """Returns at most `count` stored examples, evenly spaced: (B, *)."""
    some = dataset.evenly(count)
    values, _ = some.batch(range(len(some)))
    return some.center(values) if some.spec.is_image else values


def shown_examples(model: Model, dataset: Dataset, count: int) -> tuple[Tensor, Tensor | None]:
    """Returns at most `count` examples as pictures show them, evenly spaced, and which pixels of images were seen.

    They are (B, *) in [0, 1] and (B, 1, H, W), None for all. What nobody has seen is a gray checkerboard.
    """
    x = model.spec.decode(model.spec.encode(display_examples(dataset, count)))
    some = dataset.evenly(count)
    seen = some.seen_pixels(range(len(some)))
    return (x, None) if seen is None else (figures.checkered(x, seen), seen)


def restorations(model: Model, held_out: Dataset, count: int) -> Image.Image | None:
    """Draws `count` held-out images, one row each: their middle is cut out and restored several times.

    Of damaged images, what nobody has seen is restored too; those of which nothing is left are passed over. Of a model
    whose network is told observations and takes no maps, they are samples given those of the images.
    """
    if model.config.conditioned and not model.config.mapped:
        return given_observations(model, held_out, count)
    images, seen = shown_examples(model, held_out, count)
    _, height, width = model.spec.shape
    around = box((height, width), 0)[None]
    rows = []
    for i, image in enumerate(images):
        known = around if seen is None else around & seen[i]
        if not known.any():
            continue
        result = model.inpaint(image, known, n=4, shared=True)
        damaged = torch.where(around, image, 0.5)
        rows.append(figures.restoration(damaged, result.samples, result.std, known=known, original=image))
    return figures.stack(rows) if rows else None


def given_observations(model: Model, held_out: Dataset, count: int) -> Image.Image:
    """Draws `count` held-out images, one row each: what the network is told of it, and samples given that.

    The operator has its options, and its noise, in the middle of their ranges.
    """
    some, rows = held_out.evenly(count), []
    images, _ = shown_examples(model, held_out, count)
    (_, label), (_, pairs) = some.batch(range(len(some))), some.beside(range(len(some)))
    for number, image in enumerate(images):
        if model.config.data.condition:
            assert pairs is not None
            shown = some.center(pairs[number]).float() / model.spec.top
            given = model.given(shown)
        else:
            operator, noise = told.middle(model.config.condition)
            y = operator(image[None])
            shown = (y + noise * ExampleNoise([example_seed(0, Stream.DAMAGE, number)])(y))[0]
            given = model.given(shown, operator, noise=noise)
        x = given.sample(4, label=None if label is None else int(label[number]), shared=True)
        rows.append(figures.restoration(shown, x, x.std(0), original=image))
    return figures.stack(rows)
