"""What the commands that use a trained model do: files in, files out."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from diffusion import config, distributed, figures
from diffusion.data import Dataset, open_source
from diffusion.data.sources import SOURCES
from diffusion.errors import InputError, require
from diffusion.evaluation import BoundEstimator, Evaluation, FlowEstimator, ImportanceEstimator
from diffusion.evaluation import evaluate as evaluate_model
from diffusion.files import write_text
from diffusion.likelihood.importance import PathWeights
from diffusion.model import Model, load

if TYPE_CHECKING:
    from diffusion.cli import Evaluate, Sample

FILM_ROWS = 4
STRIP_FRAMES = 9
ANIMATION_FRAMES = 25


def sample(options: Sample) -> int:
    """Writes a grid, single PNGs and, for a film, the trajectory of the first few samples."""
    distributed.join()
    model = load(options.run)
    if options.tune:
        model = model.tuned()
    out = options.out or options.run / f"samples-{options.seed}"
    # A model with classes is best at each of them: without a label they take turns.
    label = options.label or model.in_turn(options.n)
    info = {
        "run": options.run.name,
        "step": model.step,
        "steps": options.steps or model.config.sampling.steps,
        "sampler": options.sampler or config.to_dict(model.config)["sampler"],
        "seed": options.seed,
        "label": options.label or ("in turn" if label else None),
        "guidance": model.config.sampling.guidance if options.guidance is None else options.guidance,
        "grid": config.to_dict(model.config)["grid"],
    }
    start = time.perf_counter()
    x = model.sample(
        options.n,
        steps=options.steps,
        sampler=options.sampler,
        seed=options.seed,
        label=label,
        guidance=options.guidance,
        batch=options.batch,
        shared=True,
        progress=distributed.is_main(),
    )
    seconds = time.perf_counter() - start
    if not distributed.is_main():
        return 0
    figures.save_png(figures.draw(x), out / "samples.png", info)
    if model.spec.is_image:
        for i, image in enumerate(x):
            figures.save_png(image, out / f"{i:05d}.png", {**info, "index": i})
    else:
        write_text(out / "points.json", json.dumps(x.tolist()))
    if options.film:
        rows = min(options.n, FILM_ROWS if model.spec.is_image else options.n)
        steps = options.steps or model.film_steps
        frames = model.film(
            rows,
            frames=ANIMATION_FRAMES,
            steps=steps,
            sampler=options.sampler,
            seed=options.seed,
            label=label[:rows] if isinstance(label, list) else label,
            guidance=options.guidance,
        )
        strip = torch.linspace(0, len(frames) - 1, min(STRIP_FRAMES, len(frames))).round().long().tolist()
        figures.save_png(figures.film([frames[i] for i in strip]), out / "film.png", {**info, "steps": steps})
        figures.save_animation(frames, out / "film.gif")
    print(f"{out}: {options.n} samples of step {model.step} in {seconds:.1f} s, seed {options.seed}")
    return 0


def evaluate(options: Evaluate) -> int:
    """Prints the error budget of the likelihood and writes it and a figure into the run folder."""
    distributed.join()
    model = load(options.run)
    with distributed.main_first():
        training, examples = open_examples(model, options.data)
    method = likelihood_method(options)

    def measure(dataset: Dataset) -> Evaluation:
        return evaluate_model(
            model,
            dataset,
            method=method,
            limit=options.limit,
            shared=True,
            guidance=options.guidance,
            dtype=torch.float64 if options.float64 else torch.float32,
            progress=distributed.is_main(),
        )

    result = measure(examples)
    compared = None
    if training is not None and options.compare and isinstance(method, BoundEstimator):
        compared = measure(training.evenly(result.examples))
    if not distributed.is_main():
        return 0
    of = "held-out" if options.data is None else options.data.resolve().name
    print(result.table(of))
    written = result.to_dict()
    if compared is not None:
        print(f"{'of training':16s}{compared.mean['total']:12.4f}{compared.terms['total'].half_width or 0:12.4f}")
        written["training"] = compared.to_dict()
    parts = ("evaluation", *([] if method.name == "bound" else [method.name]), *([] if options.data is None else [of]))
    stem = "-".join(parts)
    draw_evaluation(result, compared, options.run / f"{stem}.png", of)
    write_text(options.run / f"{stem}.json", json.dumps(written, indent=1, allow_nan=False))
    print(f"{options.run}: {stem}.json, {stem}.png")
    return 0


def likelihood_method(options: Evaluate) -> BoundEstimator | FlowEstimator | ImportanceEstimator:
    """The method that the options name."""
    require(options.steps is None or options.steps >= 1, "steps", "at least 1", options.steps)
    seed = options.seed
    if options.method == "ode":
        return FlowEstimator(
            options.probes,
            tolerance=options.tolerance,
            solver_steps=options.solver_steps,
            seed=seed,
            dequantization=options.dequantization,
        )
    if options.method == "importance":
        return ImportanceEstimator(options.steps, options.paths, seed)
    return BoundEstimator(options.draws, options.steps, options.continuous, seed)


def open_examples(model: Model, folder: Path | None) -> tuple[Dataset | None, Dataset]:
    """The training examples of a model, None for another folder's images, and the examples to measure.

    Raises InputError when there are classes that the model does not know, FolderError for a folder that cannot be used.
    """
    options, classes = model.config.data, model.spec.classes
    if folder is None:
        examples = relabel(open_source(options, distributed.say), classes, "data.path")
        return examples.split(options.held_out, options.seed)
    if not model.spec.is_image:
        raise InputError(f"--data: this model was trained on points, got the folder {folder}")
    # As stored, without statistics of its own: the model has its own, and a folder of one color has a likelihood too.
    chosen = replace(options, source="folder", path=str(folder), labels=bool(classes), min_images=1)
    return None, relabel(SOURCES["folder"](chosen, distributed.say), classes, "--data")


def relabel(examples: Dataset, classes: tuple[str, ...], field: str) -> Dataset:
    """Examples labeled by the places of their classes among those of a model, which may not be those among the folders
    of today. For a model without classes they stay as they are.

    Raises InputError that names the field for a class that is not among them.
    """
    if examples.labels is None or not classes:
        return examples
    strange = [name for name in examples.spec.classes if name not in classes]
    if strange:
        raise InputError(f"{field}: must have the classes {', '.join(classes)}, got {', '.join(strange)}")
    place = np.array([classes.index(name) for name in examples.spec.classes], dtype=np.int64)
    return replace(examples, labels=place[examples.labels], spec=replace(examples.spec, classes=classes))


def draw_evaluation(result: Evaluation, compared: Evaluation | None, path: Path, of: str) -> None:
    """The figure of a method: the KL by noise level, the works, or the likelihoods of all examples."""
    if result.by_log_snr:
        curves = {of: result.by_log_snr}
        figures.by_log_snr(
            curves if compared is None else {**curves, "training": compared.by_log_snr}, path, result.unit
        )
    elif result.log_weights:
        excess = PathWeights(torch.tensor(result.log_weights)).excess.flatten().tolist()
        figures.histogram(excess, path, label="log p by all paths - log w, nats", title="work dissipated on each path")
    else:
        figures.histogram(result.values, path, label=result.unit, title=f"{result.kind}, {of} examples")
