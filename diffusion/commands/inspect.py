"""`diffusion inspect`: reports on images without training, or on a run (`run_report.py`).

The report lists what there is, what repeats and what is damaged, a configuration to start from, and the cost of
training by it on this machine.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from diffusion import config, distributed, model
from diffusion.commands import capacity, clocks_report, run_report
from diffusion.commands.cache import summed
from diffusion.commands.options import Inspect
from diffusion.commands.suggestion import suggest, toml
from diffusion.config import Config
from diffusion.data import DataSpec, PixelFormat, Scan, scan, table
from diffusion.data.images import depth, inventory, ranges
from diffusion.data.images.container import Container
from diffusion.data.images.coverage import cover
from diffusion.data.images.decoding import printable
from diffusion.data.images.duplicates import check_pixels, copies, pair_lines
from diffusion.data.images.report import LINES, crop_line, enlarged_line, listing
from diffusion.data.images.scan import blamed_on, cache_folder, open_container
from diffusion.errors import InputError
from diffusion.files import write_text
from diffusion.objectives import Batch
from diffusion.precision import in_precision, name_of, network_dtype
from diffusion.progress import duration

# With fewer images than this a network of the suggested size memorizes them.
FEW = 5000
# The timed part of a step has at most this many positions, such as pixels. It is repeated until it has taken ENOUGH_S
# seconds, at most REPEATS times.
POSITIONS, ENOUGH_S, REPEATS = {"cpu": 2**14, "cuda": 2**19, "mps": 2**17}, 2.0, 5


@dataclass(frozen=True)
class Cost:
    """The cost of training by a configuration: the number of parameters, and the seconds per image.

    `seconds` is the time of the forward and backward pass for one image, measured with `images` at once on the `device`
    in a `precision`; None without measurement.
    """

    parameters: int
    device: str
    precision: str
    images: int
    seconds: float | None


def inspect(options: Inspect) -> int:
    """Prints the report on images, and writes the suggested configuration where `--out` says so, or that on a run."""
    if run := run_report.run_at(options.path):
        print("\n".join(run_report.lines(run)))
        return 0
    with blamed_on("PATH"):
        container = open_container(options.path)
        cache = cache_folder(None, container.root)
        found, labels = labeled(options, container, cache)
    print(table(found))
    if found.masks:
        print(f"masks     {found.masks}")
    print(cached(cache))
    print("\n".join(repeated(found, decode=options.decode)))
    measured, modes = depth.measure(found, cache) if options.decode else None, found.entries.modes
    keys = ranges.suggestion(modes, measured)
    if measured is not None:
        print("\n".join(ranges.lines(measured, PixelFormat(keys["channels"]), None, modes)) or "depth     8 bits")
    tree = suggest(found, options.path, labels=labels, masks=options.masks, keys=keys)
    experiment = config.from_dict(tree)
    for line in (*enlarged_line(found, experiment.data.shape), *crop_line(found, experiment.data.shape)):
        print(line)
    if found.masking and options.decode:
        print("\n".join(cover(found, experiment.data.shape).lines(experiment.data.shape)))
    if options.decode:
        print("\n".join(clocks_report.of_images(found, experiment, measured, cache)))
    text = toml(tree)
    print(f"\nA configuration to start from\n\n{text}")
    if len(found.entries) < FEW:
        print(
            f"{len(found.entries):,} images are few, and may be memorized: training.patience = 5 ends a run whose "
            "held-out bound no longer improves\n"
        )
    spent = cost(experiment, len(found.classes), measure=options.measure)
    print("\n".join(costs(experiment, spent, len(found.entries))))
    if room := capacity.capacity(experiment, spent.parameters, distributed.device()):
        print("\n".join(capacity.lines(experiment, room)))
    if options.out is not None:
        write_text(options.out, text)
        print(f"{options.out}: written; train with: diffusion train {options.out}")
    return 0


def cached(cache: Path) -> str:
    """Returns a line about what lies in the cache of decoded images, of all folders together."""
    return f"cache     {summed(inventory.entries(cache))} in {printable(cache)}, as diffusion cache lists"


def labeled(options: Inspect, container: Container, cache: Path) -> tuple[Scan, bool | str]:
    """Returns the scan of a container with labels, and the value of data.labels that gives them.

    These are the labels that the options ask for, or else those of a table that lies in the container and names classes
    of most images.
    """
    asked = options.labels_from or options.labels
    found = scan(container, labels=asked, pages=options.pages, masks=options.masks, cache=cache)
    for path in found.entries.content["tables"] if not asked else ():
        name = container.inside(path)
        try:
            with_table = scan(container, labels=name, pages=options.pages, masks=options.masks, cache=cache)
        except InputError:
            continue
        if len(with_table.classes) > 1:
            return with_table, name
    return found, asked


def repeated(found: Scan, *, decode: bool) -> list[str]:
    """Lines about files that repeat another and, with `decode`, about near duplicates and damaged files."""
    exact = copies(found)
    same = list(pair_lines(found, exact, "repeats"))
    lines = [f"copies    {len(exact):,} repeat the bytes of another", *_indented(listing(same))]
    if decode:
        check = check_pixels(found)
        alike = list(pair_lines(found, check.near[:LINES], "looks like"))
        lines += [
            f"alike     {len(check.near):,} look like another: copies that were resized or compressed again",
            *_indented(listing(alike, len(check.near))),
            f"damaged   {len(check.damaged):,} with an intact header",
            *_indented(listing(check.damaged)),
        ]
    return lines


def _indented(lines: list[str]) -> list[str]:
    return [f"{'':10s}{line}" for line in lines]


def cost(experiment: Config, classes: int, *, measure: bool) -> Cost:
    """The cost of training an experiment on this machine, with `measure` including its time per image."""
    device, data = distributed.device(), experiment.data
    spec = DataSpec((data.channels, *data.shape), 256, tuple(map(str, range(classes))))
    with torch.device(device if measure else "meta"):
        network = model.build(experiment, spec)
    parameters = sum(p.numel() for p in network.parameters())
    dtype = network_dtype(experiment.training.precision, device)
    most = POSITIONS.get(device.type, POSITIONS["cpu"]) // math.prod(data.shape)
    images = max(1, min(experiment.training.batch, most))
    seconds = timed(experiment, spec, network, images, dtype) / images if measure else None
    return Cost(parameters, device.type, name_of(dtype), images, seconds)


def timed(experiment: Config, spec: DataSpec, network: nn.Module, images: int, dtype: torch.dtype) -> float:
    """The seconds of a forward and backward pass of the training objective with a batch of `images` images of noise.

    It is the fastest of several passes after a first one that does not count.
    """
    # It imports accelerate, which takes about a second that a report without measurement need not wait for.
    from diffusion.training import objective

    network.to(memory_format=torch.channels_last)
    device = next(network.parameters()).device
    denoiser = model.assemble(experiment, in_precision(network, dtype))
    loss = objective.from_data(experiment).loss
    x, noise = (torch.randn(images, *spec.shape, device=device) for _ in range(2))
    batch = Batch(x, ((torch.arange(images) + 0.5) / images).to(device), noise)
    seconds: list[float] = []
    while len(seconds) < 2 or (sum(seconds) < ENOUGH_S and len(seconds) < REPEATS):
        start = time.perf_counter()
        torch.autograd.backward(loss(denoiser, batch).mean())
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def costs(experiment: Config, spent: Cost, images: int) -> list[str]:
    """Lines about the cost of training an experiment on a number of images, and the source of each number."""
    data, training, report = experiment.data, experiment.training, experiment.report
    packed = images * data.channels * math.prod(side + 2 * data.margin for side in data.shape)
    # A checkpoint has the weights, their average and two moments; memory holds the gradient too. All are float32.
    saved, held = 16 * spent.parameters, 20 * spent.parameters
    kept = report.keep + report.keep_best
    lines = [
        f"network   {spent.parameters / 1e6:.1f} M parameters; {held / 1e9:.2f} GB of memory beside the activations",
        f"disk      {packed / 1e9:.2f} GB for the packed images, {saved / 1e9:.2f} GB for each of {kept} checkpoints",
    ]
    if spent.seconds is None:
        return lines
    step = spent.seconds * training.batch
    return [
        *lines,
        f"time      {1 / spent.seconds:.3g} images/s forward and backward, measured with "
        f"{spent.images} at once on this {spent.device} in {spent.precision}",
        f"          a step of {training.batch}: about {step:.2g} s; {training.steps:,} steps: about "
        f"{duration(step * training.steps)}, without samples and evaluation",
    ]
