"""Writes the restorations of one image: pictures, statistics, and the settings that made them, or one file alone."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from diffusion import figures
from diffusion.commands.photographs.canvas import Canvas
from diffusion.commands.photographs.own_results import RECORD, RECORDS
from diffusion.commands.photographs.writing import PNG, Encoding, write_image
from diffusion.files import TEMPORARY, numbered, sync, write_text
from diffusion.model.restoration import Restoration
from diffusion.restoration import statistics

# The confidence of the intervals by pixel, and the files of their bounds.
CONFIDENCE = 0.9
BOUNDS = ("low", "high")


@dataclass(frozen=True)
class Shown:
    """An image as the figure of its restorations shows it: as it was given, (C, H, W), its mask (1 or C, H, W), and
    the image before it was damaged, where there are such.
    """

    damaged: Tensor
    known: Tensor | None = None
    original: Tensor | None = None


def write(
    folder: Path,
    found: Restoration,
    canvas: Canvas,
    info: dict[str, Any],
    record: dict[str, Any],
    shown: Shown,
    *,
    replaces: bool = False,
) -> Path:
    """Writes restorations, their mean, deviation and bounds, a figure of all and a JSON file into a folder.

    Restorations, mean and bounds are written in the values of the photograph, with what stands beside its pixels. Every
    picture carries `info`; the JSON file has the `record` too. All are written beside the folder first, and the JSON
    file is moved last: where it is, the others are complete. Unless it `replaces` what is there, a folder in which
    another command has written meanwhile stays as it is. Returns the folder, or the one with the next number.

    Raises ValueError for numbers that are not finite, before anything is written.
    """
    # The text is made first: numbers that are not finite raise an error here, before any picture is written.
    accuracy = {} if shown.original is None else _accuracy(found, shown.original)
    numbers = {"diagnostics": found.diagnostics.to_dict(), **accuracy}
    text = json.dumps({**info, **record, **numbers}, indent=1, allow_nan=False)
    encoding = PNG if not PNG.refuses(canvas.dtype, canvas.bands, alpha=canvas.alpha) else Encoding("TIFF")
    suffix = ".png" if encoding is PNG else ".tif"
    with _staged(folder) as stage:

        def save(name: str, x: Tensor, **more: object) -> None:
            write_image(
                canvas.values(x),
                stage / f"{name}{suffix}",
                encoding,
                canvas.metadata,
                alpha=canvas.alpha,
                info={**info, **more},
            )

        for i in range(found.n):
            save(f"restored-{i}", found.sample(i), index=i)
        save("mean", found.mean)
        held = statistics.held_probability(found.n, confidence=CONFIDENCE)
        for name, bound in zip(BOUNDS, found.bounds(CONFIDENCE), strict=True):
            save(name, bound, interval=held)
            del bound  # One large image at a time is held.
        std = found.std
        top = float(std[: figures.COLORS].max())
        figures.save_png(std[: figures.COLORS] / max(top, 1e-9), stage / "std.png", {**info, "white": top})
        if shown.original is not None:
            figures.save_png(shown.damaged, stage / "damaged.png", info)
        figures.save_png(_figure(found, std, shown), stage / "restoration.png", info)
        write_text(stage / RECORD, text)
        return _moved(stage, folder, replaces=replaces)


def write_one(
    path: Path, found: Restoration, canvas: Canvas, encoding: Encoding, info: dict[str, Any], *, mean: bool
) -> None:
    """Writes the first of restorations, or their mean, to a file in an encoding."""
    x = found.mean if mean else found.sample(0)
    write_image(canvas.values(x), path, encoding, canvas.metadata, alpha=canvas.alpha, info=info)


def note(root: Path, result: Path, info: dict[str, Any], record: dict[str, Any], found: Restoration) -> None:
    """Records a file below a root, which is about to be written, among the results there."""
    entry = {"result": result.relative_to(root).as_posix(), **info, **record}
    line = json.dumps({**entry, "diagnostics": found.diagnostics.to_dict()}, allow_nan=False)
    path = root / RECORDS
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        cut = file.read(1) not in (b"", b"\n")  # A line that an interruption cut off is ended first.
        file.write(("\n" if cut else "").encode() + f"{line}\n".encode())
    sync(path)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Yields a folder beside another one, which is gone at the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = folder.with_name(f"{TEMPORARY}{folder.name}-{os.getpid()}")
    stage.mkdir(exist_ok=True)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _moved(stage: Path, folder: Path, *, replaces: bool) -> Path:
    """Moves the files of a stage to a folder, or to the next number of it that has none of their names."""
    names = {path.name for path in stage.iterdir()}
    for place in numbered(folder):
        try:
            stage.rename(place)  # In one step, if the place is free.
            break
        except OSError:
            if not place.is_dir():
                raise
        if replaces or not names & {path.name for path in place.iterdir()}:
            (place / RECORD).unlink(missing_ok=True)
            for path in sorted(stage.iterdir(), key=lambda path: path.name == RECORD):
                path.replace(place / path.name)
            sync(place)
            break
    sync(place.parent)
    return place


def _figure(found: Restoration, std: Tensor, shown: Shown) -> Image.Image:
    """The figure of restorations, of which some are shown; large ones are made smaller one at a time."""
    factor = math.ceil(max(found.shape[-2:]) / figures.LARGEST_PANEL)

    def small(x: Tensor) -> Tensor:
        return F.avg_pool2d(x.float()[None], min(factor, *x.shape[-2:]))[0] if factor > 1 else x

    samples = torch.stack([small(found.sample(i)) for i in range(min(found.n, figures.SHOWN_SAMPLES))])
    return figures.restoration(
        small(shown.damaged),
        samples,
        small(std),
        mean=small(found.mean),
        known=None if shown.known is None else small(shown.known.float()),
        original=None if shown.original is None else small(shown.original),
    )


def _accuracy(found: Restoration, original: Tensor) -> dict[str, float]:
    """The PSNR of the mean, if it is finite, and the coverage of the intervals, if the samples are enough for them."""
    psnr = float(statistics.psnr(found.mean[None], original[None]))
    numbers = {"psnr_of_mean": psnr} if math.isfinite(psnr) else {}
    if found.n >= statistics.fewest(CONFIDENCE):
        truth = found.select(original)
        covered = statistics.coverage(found.part, truth, confidence=CONFIDENCE)
        numbers["coverage_90"] = float(covered.mean())
    return numbers
