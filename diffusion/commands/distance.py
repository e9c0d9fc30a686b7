"""`diffusion distance`: how far the images of one folder are from those of another, beside how far these are from each
other.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from diffusion import distributed
from diffusion.commands.options import Distance
from diffusion.data import Dataset, identity
from diffusion.data.images import ranges
from diffusion.data.images.scan import Scan, blamed_on, scan
from diffusion.data.sources import SOURCES, DataOptions
from diffusion.errors import InputError, require
from diffusion.evaluation import features
from diffusion.evaluation.comparing import Comparing, Sets
from diffusion.evaluation.quality_table import SHOWN, Pictures, QualityEvaluation, notes, picture, terms
from diffusion.evaluation.sets import Examples
from diffusion.files import write_text

# What results can be written as.
SUFFIXES = (".json", ".csv", ".png")
# The sizes of images that an error lists.
SHOWN_SIZES = 3
# The numbers of a row of a CSV table.
HEAD = ("distance", "size", *(f"{part}{end}" for part in ("value", "floor", "excess") for end in ("", "_low", "_high")))


def distance(options: Distance) -> int:
    """Prints a table of distances, and writes it where it is asked for."""
    out = options.out
    require(out is None or out.suffix in SUFFIXES, "--out", f"a file with one of {', '.join(SUFFIXES)}", out)
    require(out is None or out.parent.is_dir(), "--out", "in a folder that exists", out)
    if options.features is None and (options.weights is not None or options.device is not None):
        given = "--weights" if options.weights is not None else "--device"
        raise InputError(f"{given}: has no effect without --features, whose network alone has weights and a device")
    require(options.limit is None or options.limit >= 1, "limit", "at least 1", options.limit)
    distributed.join()
    with distributed.main_first():
        samples, real = opened(options)
    samples, real, shared = apart(samples, real)
    if options.limit is not None:
        samples, real = samples.evenly(options.limit), real.evenly(options.limit)
    result = measured(samples, real, options)
    if not distributed.is_main():
        return 0
    line = f"{shared:,} images lie in both folders; each was taken from one of them alone, by turns"
    print("\n".join([result.table(), *([line] if shared else [])]))
    if out is not None:
        write(result, out)
        print(f"{out}: {len(result.distances)} distances")
    return 0


def opened(options: Distance) -> tuple[Dataset, Dataset]:
    """Opens both folders at one size, in gray if all images are gray.

    Raises InputError for a folder that does not exist or has no images, images of several sizes without --size, images
    of several numbers of bands, values of which black and white are not known without --range, whole numbers against
    fractions, and features of what no network takes.
    """
    folders = {"SAMPLES": options.samples, "REAL": options.real}
    found = []
    for field, folder in folders.items():
        with blamed_on(field):
            found.append(scan(folder, labels=False, progress=distributed.is_main()))
    channels = {ranges.channels_of(mode) for each in found for mode in each.entries.modes}
    rule = f"images of as many bands as those of {options.real}"
    require(len(channels) == 1 or channels == {1, features.COLORS}, str(options.samples), rule, sorted(channels))
    if options.features is not None:
        features.check(options.features, options.weights, max(channels))
    size = sides_of(found) if options.size is None else (options.size, options.size)
    taken = DataOptions(size=size, channels=max(channels), range=options.range, min_images=1)
    images = []
    for field, folder in folders.items():
        with asking_for_ranges(), blamed_on(field):
            images.append(SOURCES["folder"](replace(taken, path=str(folder)), distributed.say, None))
    first, second = images
    rule = f"images of whole numbers as those of {options.real}, or both of fractions"
    require(first.spec.levels == second.spec.levels, str(options.samples), rule, first.spec.levels)
    return first, second


@contextmanager
def asking_for_ranges() -> Iterator[None]:
    """Lets errors about values of files name --range, which is data.range here."""
    try:
        yield
    except InputError as error:
        asked = re.sub(r"set data\.range=\[(\S+), (\S+)\]", r"give --range \1 \2", str(error))
        raise InputError(asked.replace("data.range", "--range")) from None


def sides_of(found: list[Scan]) -> tuple[int, int]:
    """The height and width of all images. Raises InputError where they have several, which a distance would see."""
    rows = [each.entries.rows for each in found]
    sizes = np.concatenate([np.stack([each["height"], each["width"]], 1) for each in rows])
    distinct, counts = np.unique(sizes, axis=0, return_counts=True)
    most = np.argsort(-counts)[:SHOWN_SIZES]
    listed = ", ".join(f"{distinct[i, 1]}x{distinct[i, 0]} ({counts[i]:,})" for i in most)
    more = ", ..." if len(distinct) > len(most) else ""
    if len(distinct) > 1:
        raise InputError(
            f"--size: must be given for images of several sizes, {listed}{more}; "
            "all are then resized to cover a square of that side, and cropped"
        )
    return int(distinct[0, 0]), int(distinct[0, 1])


def apart(samples: Dataset, real: Dataset) -> tuple[Dataset, Dataset, int]:
    """Returns two sets of which no image of one is a copy of one of the other, and how many were in both.

    Of those in both, every other one stays in the first set, by the order of their hashes, and the others in the
    second. Copies would make the distance of the sets smaller than that of any two sets of different images.
    """
    ours, theirs = identity.hashes_of(samples), identity.hashes_of(real)
    shared = np.intersect1d(ours, theirs)
    first = samples.subset(np.flatnonzero(~np.isin(ours, shared[1::2])))
    return first, real.subset(np.flatnonzero(~np.isin(theirs, shared[::2]))), len(shared)


def measured(samples: Dataset, real: Dataset, options: Distance) -> QualityEvaluation:
    """Measures the distances of two sets of images; all processes have to call it.

    Raises InputError for too few images, and for weights as `features.load` does.
    """
    name, progress = options.features, distributed.is_main()
    network = None if name is None else features.load(name, options.weights, distributed.device())
    comparing = Comparing(samples.spec.shape, network, options.seed, shared=True, progress=progress)
    comparing.check(len(samples), len(real), str(options.samples), str(options.real))
    ours, theirs = Examples((samples,)), Examples((real,))
    described = [comparing.describe(each.batches(shared=True, progress=progress)) for each in (ours, theirs)]
    distances = comparing.compare(Sets(*described))
    result = QualityEvaluation(
        "distance",
        f"{len(samples):,} images of {options.samples} against {len(real):,} of {options.real}",
        "distance",
        len(real),
        terms(distances),
        distances=distances,
        samples=len(samples),
        real=len(real),
        network={} if network is None else network.to_dict(),
        pictures=Pictures(ours.some(SHOWN), theirs.some(SHOWN)),
    )
    return result.with_notes(notes(comparing, result))


def write(result: QualityEvaluation, path: Path) -> None:
    """Writes a result as JSON, as a CSV table or as a picture, by the suffix of the path."""
    if path.suffix == ".png":
        picture(result, path, "real")
        return
    write_text(path, json.dumps(result.to_dict(), indent=1) if path.suffix == ".json" else as_csv(result))


def as_csv(result: QualityEvaluation) -> str:
    """Returns the distances as a CSV table with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*HEAD, "all"])
    for row in result.distances.values():
        found = row.comparison
        intervals = [number for each in (found.value, found.floor, found.excess) for number in asdict(each).values()]
        writer.writerow([row.name, found.size, *intervals, row.whole])
    return text.getvalue()
