"""`diffusion compare`: how near images are to their originals, by PSNR, SSIM and, with weights, LPIPS; or runs side by
side (`commands.compare_runs`).
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffusion import distributed
from diffusion.commands.compare_runs import are_runs, compare_runs
from diffusion.commands.options import Compare
from diffusion.commands.photographs.own_results import RECORD
from diffusion.data import PixelFormat, decode, read_header
from diffusion.data.images.decoding import SUFFIXES, to_tensor
from diffusion.data.images.folder import natural
from diffusion.data.images.junk import junk
from diffusion.errors import InputError
from diffusion.evaluation import lpips
from diffusion.evaluation.intervals import estimate
from diffusion.files import write_text
from diffusion.progress import track
from diffusion.restoration.similarity import SIDE, ssim
from diffusion.restoration.statistics import psnr

# The files of which one stands for an image in a folder that `diffusion restore` or `inpaint` made for it.
MEANS = ("mean.png", "mean.tif")
# Modes of Pillow without color.
GRAY = ("1", "L", "LA", "I", "F")


@dataclass(frozen=True)
class Comparison:
    """The numbers of one image: its name, PSNR in dB (infinite for equal images), SSIM and LPIPS where they exist."""

    name: str
    psnr: float
    ssim: float | None
    lpips: float | None


def compare(options: Compare) -> int:
    """Prints a line for each image and the means, or writes the page of runs; returns 1 if an image could not be
    compared.
    """
    if are_runs((options.images, options.originals, *options.more)):
        return compare_runs(options)
    if options.more:
        raise InputError(f"{options.more[0]}: images have one place of originals; only runs may be more")
    if options.device is not None and options.lpips is None:
        raise InputError("--device: has no effect without --lpips, whose network alone runs on a device")
    distance = None if options.lpips is None else lpips.load(options.lpips, distributed.device())
    first, second = images_at(options.images), images_at(options.originals)
    if options.images.samefile(options.originals):
        raise InputError(f"{options.originals}: must hold the originals of {options.images}, got the same place twice")
    if options.images.is_file() and options.originals.is_file():
        second = dict(zip(first, second.values(), strict=True))  # Two files belong together whatever their names.
    paired = {name: (path, second[name]) for name, path in first.items() if name in second}
    if not paired:
        shown = ", ".join([*first][:3]) or "no images"
        raise InputError(
            f"{options.images}: must hold images of the names of those in {options.originals}, got {shown}"
        )
    found, problems = [], [f"{name}: has no original" for name in first if name not in paired]
    for name in track(natural(paired), len(paired), "comparing", "image", show=len(paired) > 1):
        try:
            found.append(compared(name, *paired[name], distance))
        except InputError as error:
            problems.append(str(error))
    print("\n".join(table(found)))
    for problem in problems:
        print(f"left out  {problem}")
    if options.out is not None:
        write_text(options.out, as_csv(found))
        print(f"{options.out}: {len(found)} rows")
    return int(bool(problems))


def images_at(path: Path) -> dict[str, Path]:
    """Returns the images at a path by name: the path within the folder, without the suffix.

    A folder that `diffusion restore` made for an image stands for it by the mean of its restorations.

    Raises InputError for a path that does not exist, and for two images of one name.
    """
    if not path.exists():
        raise InputError(f"{path}: does not exist")
    if path.is_file():
        return {path.stem: path}
    found: dict[str, Path] = {}
    made = {record.parent for record in path.rglob(RECORD)}
    # A folder without a mean keeps the name of one, which is then said to be missing.
    files = [next(filter(Path.exists, (folder / name for name in MEANS)), folder / MEANS[0]) for folder in made]
    for file in path.rglob("*"):
        meant = not any(map(junk, file.relative_to(path).parts))
        if file.suffix.lower() in SUFFIXES and file.parent not in made and meant:
            files.append(file)
    for file in sorted(files):
        restored = file.parent in made and file.parent != path
        name = (file.parent if restored else file.with_suffix("")).relative_to(path).as_posix()
        if name in found:
            raise InputError(f"{file}: must have a name of its own, got that of {found[name]}")
        found[name] = file
    return found


def compared(name: str, image: Path, original: Path, distance: lpips.LPIPS | None) -> Comparison:
    """Compares two files. Raises InputError for those that cannot be read, or are of two sizes."""
    x, truth = read(image, original)
    if x.shape != truth.shape:
        sizes = (f"{tensor.shape[-1]}x{tensor.shape[-2]}" for tensor in (x, truth))
        raise InputError(f"{image}: must have the size of its original, {'; its size is '.join(reversed([*sizes]))}")
    small = min(x.shape[-2:])
    return Comparison(
        name,
        float(psnr(x, truth)),
        float(ssim(x, truth)) if small >= SIDE else None,
        float(distance(x.float(), truth.float())) if distance is not None and small >= lpips.SMALLEST else None,
    )


def read(*paths: Path) -> list[Tensor]:
    """Reads images, (1, C, H, W) float64 in [0, 1] each: gray ones if all are gray, else colors."""
    gray = all(read_header(path).mode.partition(";")[0] in GRAY for path in paths)
    pixel_format = PixelFormat(1 if gray else 3)
    return [to_tensor(decode(path, pixel_format))[None].double() for path in paths]


def table(found: list[Comparison]) -> list[str]:
    """Returns the lines of a table: the images, and the means with their 95 % intervals, over those that have one."""
    columns = [("PSNR (dB)", "psnr"), ("SSIM", "ssim"), ("LPIPS", "lpips")]
    shown = [(title, key) for title, key in columns if any(getattr(row, key) is not None for row in found)]
    width = max([len(row.name) for row in found] + [4]) + 2
    lines = [" " * width + "".join(f"{title:>20}" for title, _ in shown)]
    lines += [
        f"{row.name:{width}}" + "".join(f"{_written(getattr(row, key)):>20}" for _, key in shown) for row in found
    ]
    if len(found) > 1:
        lines.append(
            f"{'mean':{width}}" + "".join(f"{_mean([getattr(row, key) for row in found]):>20}" for _, key in shown)
        )
    equal = sum(math.isinf(row.psnr) for row in found)
    if equal:
        lines.append(f"{equal:,} equal their originals; the mean PSNR is that of the others")
    return lines


def as_csv(found: list[Comparison]) -> str:
    """Returns the rows as a CSV table with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "psnr", "ssim", "lpips"])
    writer.writerows([row.name, row.psnr, row.ssim, row.lpips] for row in found)
    return text.getvalue()


def _written(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _mean(values: list[float | None]) -> str:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return str(estimate(torch.tensor(finite, dtype=torch.float64), {})) if finite else "-"
