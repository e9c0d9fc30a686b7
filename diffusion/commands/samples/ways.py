"""The ways in which `diffusion sample` makes images: new ones, variations, images between two, or from given noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffusion import checkpoint, config, distributed
from diffusion.commands.measured import data_options, open_own
from diffusion.commands.options import Evaluate, Sample
from diffusion.commands.photographs.places import content
from diffusion.commands.samples.sized import parse_size, read_pair, read_sized
from diffusion.data import DataSpec
from diffusion.data.images.encoding import suffix
from diffusion.draw import DrawOptions, SampleOptions
from diffusion.errors import InputError, require
from diffusion.model import Model
from diffusion.model.completing import known_of
from diffusion.model.latents import spherical
from diffusion.model.origin import weights_hash
from diffusion.randomness import Stream, example_seed

LEVEL = 0.5


@dataclass(frozen=True)
class Way:
    """A way of making n images: the name of its default folder, how it draws those of some numbers with a model whose
    network sees so many examples at once, and what it adds to the settings. `notices` are lines to print before the
    work, and `together` says how many images are drawn at a time for such a batch of the network.
    """

    name: str
    n: int
    draw: Callable[[Model, range, int], Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    kind: str = "samples"
    notices: tuple[str, ...] = ()
    together: Callable[[int], int] = lambda batch: batch


def way_of(options: Sample, model: Model) -> Way:
    """Returns the way that options ask for. Raises InputError for files and values that cannot be used."""
    if options.vary is not None:
        return _variations(options, model, options.vary)
    if options.interpolate is not None:
        return _between(options, model, *options.interpolate)
    if options.noise_file is not None:
        return _from_noise(options, model, options.noise_file)
    return _new(options, model)


def told_of(options: Sample, model: Model) -> tuple[Model, Callable[[Way], Way]]:
    """Returns the model, told the image that is known of each sample if one is given, and what adds that to a way.

    Raises InputError for a file that cannot be used, and for a model that was not trained on pairs.
    """
    path = options.given
    if path is None:
        return model, lambda way: way
    pair, notice = read_pair(path, model)
    known = {"given": path.name, "given_sha256": content(path)}

    def add(way: Way) -> Way:
        settings, notices = {**way.settings, **known}, (notice, *way.notices)
        return replace(way, name=f"{way.name}-{path.stem}", settings=settings, notices=notices)

    return model.given(pair), add


def settings_of(options: Sample, model: Model) -> dict[str, Any]:
    """Returns what all samples of a folder have in common. Raises InputError for values that cannot be used."""
    draw, resolved = options.draw, config.to_dict(model.config)
    number = model.labels(draw.label, 1)
    label = None if number is None else model.spec.classes[int(number)]
    found = {
        **identity(model),
        "label": "in turn" if label is None and _in_turn(options, model) else label,
        "format": file_suffix(options.format, model.spec),
    }
    if options.interpolate is not None:
        return {**found, "guidance": 1.0 if draw.guidance is None else draw.guidance}
    model.trajectory(1, **given(options, model, range(1)))  # It refuses what cannot be used, and draws nothing yet.
    steps = model.config.sampling.steps if draw.steps is None else draw.steps
    return {
        **found,
        "guidance": model.config.sampling.guidance if draw.guidance is None else draw.guidance,
        "steps": model.steps_of_grid(steps),
        "sampler": {"name": draw.sampler} if draw.sampler else resolved["sampler"],
        "seed": draw.seed,
        "tuned": options.tune,
        "grid": None if options.tune else resolved["grid"],
    }


def given(options: Sample, model: Model, numbers: range) -> DrawOptions:
    """Returns how the samples of some numbers are drawn."""
    draw, label = options.draw, options.draw.label
    turns = model.in_turn(len(numbers), first=numbers.start) if not label and _in_turn(options, model) else label
    return {
        "steps": draw.steps,
        "sampler": draw.sampler,
        "seed": draw.seed,
        "label": turns,
        "guidance": draw.guidance,
        "batch": len(numbers),
    }


def larger_of(options: Sample, model: Model) -> SampleOptions:
    """Returns how samples larger than the images of the model are drawn.

    Raises InputError for a size of another form, and for an image that cannot be read.
    """
    around = None if options.around is None else model.border.arranged(options.around, "--around")
    size = parse_size(options.size)
    return {"size": size, "tiles": options.tiles, "overlap": options.overlap, "around": around, "place": options.place}


def holes_of(options: Sample, model: Model) -> Callable[[range], Tensor | None]:
    """Returns what says through which holes the samples of some numbers are drawn, (B, 1, *); None for none.

    The holes of a sample are those of an image of the run, which depends on the seed and the number of the sample
    alone. Raises InputError for a run whose images have none, and as `open_own` does.
    """
    if not options.through_holes:
        return lambda some: None
    data = data_options(Evaluate(options.run, data_path=options.data_path), model)
    require(data.masks, "--through-holes", "left out for a run on images without holes (data.masks)", options.run)
    run = checkpoint.run_of(options.run)
    images = open_own(model, data, run, others="to sample without their holes, leave out --through-holes")

    def seen(some: range) -> Tensor:
        seeds = [example_seed(options.draw.seed, Stream.HOLES, number) for number in some]
        return known_of(images, [seed % len(images) for seed in seeds])

    return seen


def identity(model: Model) -> dict[str, Any]:
    """Returns what tells a model from others: its step, and the hash of its weights."""
    backbone = model.denoiser.backbone
    assert isinstance(backbone, torch.nn.Module)
    return {"step": model.step, "model": weights_hash(backbone.state_dict())}


def file_suffix(chosen: str | None, spec: DataSpec) -> str:
    """Returns the suffix of the files of samples. Raises InputError for a format of images where there are points."""
    if spec.is_image:
        return suffix(spec) if chosen is None else f".{chosen}"
    require(chosen in (None, "npy"), "--format", "npy for points", chosen)
    return ".npy"


def read_latents(path: Path, spec: DataSpec) -> npt.NDArray[Any]:
    """Opens a .npy file of latents, (N, *) like the data, without reading it.

    Raises InputError for a file of anything else.
    """
    try:
        z: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a .npy file of latents ({error})") from error
    if not (isinstance(z, np.ndarray) and z.shape[1:] == spec.shape and len(z) and z.dtype.kind == "f"):
        found = f"{z.dtype} {z.shape}" if isinstance(z, np.ndarray) else "several arrays"
        raise InputError(f"{path}: must hold floats (N, {', '.join(map(str, spec.shape))}), got {found}")
    return z


def rows(z: npt.NDArray[Any], some: range) -> Tensor:
    """Returns some rows of an array of latents that is not in memory."""
    return torch.from_numpy(np.array(z[some.start : some.stop]))


def _new(options: Sample, model: Model) -> Way:
    how, name, n = larger_of(options, model), f"samples-{options.draw.seed}", options.draw.n
    larger, through = model.larger(**how), holes_of(options, model)
    if larger is None:

        def plain(model: Model, some: range, _: int) -> Tensor:
            own = given(options, model, some)
            return model.sample(len(some), first=some.start, through=through(some), **own)

        if options.through_holes:
            return Way(f"{name}-through-holes", n, plain, {"through_holes": True})
        return Way(name, n, plain)

    def draw(model: Model, some: range, batch: int) -> Tensor:
        drawn: SampleOptions = {**given(options, model, some), **how, "batch": batch}
        return model.sample(len(some), first=some.start, progress=distributed.is_main(), **drawn)

    known: dict[str, Any] = {
        "size": "x".join(map(str, larger.image)),
        "tiles": options.tiles,
        "overlap": larger.overlap,
    }
    if path := options.around:
        known |= {"around": path.name, "around_sha256": content(path), "place": "x".join(map(str, larger.place))}
        name = f"{name}-around-{path.stem}"
    return Way(name, n, draw, known, together=larger.together)


def _variations(options: Sample, model: Model, path: Path) -> Way:
    level = LEVEL if options.level is None else options.level
    require(0 <= level <= 1, "--level", "in [0, 1]: 0 the image itself, 1 new samples", level)
    image, notice = read_sized(path, model)
    model.vary(image, 0.0, n=1)  # It refuses a model that cannot vary images.

    def draw(model: Model, some: range, _: int) -> Tensor:
        return model.vary(image, level, n=len(some), first=some.start, **given(options, model, some))

    known = {"vary": path.name, "vary_sha256": content(path), "level": level}
    return Way(f"variations-{path.stem}-{options.draw.seed}", options.draw.n, draw, known, "variations", (notice,))


def _between(options: Sample, model: Model, a: Path, b: Path) -> Way:
    draw = options.draw
    require(draw.n >= 2, "n", "at least 2, the two images themselves", draw.n)
    scale, label = 1.0 if draw.guidance is None else draw.guidance, draw.label
    (first, one), (last, other) = read_sized(a, model), read_sized(b, model)
    ends = model.encode(torch.stack([first, last]), label=label, guidance=scale)
    path = spherical(ends[0], ends[1], draw.n)

    def between(model: Model, some: range, _: int) -> Tensor:
        return model.decode(path[some.start : some.stop], label=label, guidance=scale, batch=len(some))

    known = {"interpolate": [a.name, b.name], "interpolate_sha256": [content(a), content(b)], "count": draw.n}
    return Way(f"between-{a.stem}-{b.stem}", draw.n, between, known, "images", (one, other))


def _from_noise(options: Sample, model: Model, path: Path) -> Way:
    noise = read_latents(path, model.spec)
    left = len(noise) - options.first
    require(left > 0, "--first", f"below {len(noise)}, the number of rows of {path}", options.first)
    n = min(options.draw.n, left)
    notice = f"{path.name}: {n} of its {len(noise)} rows are used; --n says how many" if n < left else ""

    def draw(model: Model, some: range, _: int) -> Tensor:
        return model.sample(noise=rows(noise, some), first=some.start, **given(options, model, some))

    known = {"noise_file": path.name, "noise_sha256": content(path)}
    return Way(f"samples-of-{path.stem}-{options.draw.seed}", n, draw, known, notices=(notice,))


def _in_turn(options: Sample, model: Model) -> bool:
    """Whether the classes take turns: a model that has some is best at each of them. Images that are given have one."""
    given = options.vary, options.interpolate, options.around
    return bool(model.spec.classes) and all(image is None for image in given)
