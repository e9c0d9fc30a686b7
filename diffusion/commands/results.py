"""Writes the restorations of one image: pictures, statistics, and the settings that made them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion import figures
from diffusion.files import write_text
from diffusion.model.restoration import Restoration
from diffusion.restoration import statistics

# The confidence of the intervals by pixel, and the files of their bounds.
CONFIDENCE = 0.9
BOUNDS = ("low.png", "high.png")


def write(
    folder: Path,
    image: Path,
    found: Restoration,
    info: dict[str, Any],
    *,
    damaged: Tensor,
    known: Tensor | None,
    original: Tensor | None,
) -> None:
    """Writes restorations, their mean, deviation and bounds, a figure of all and a JSON file into a folder.

    Every picture carries `info`. `damaged` is the image as it is shown, (C, H, W) like `original`; `known` its mask.

    Raises ValueError for numbers that are not finite, before anything is written.
    """
    # The text is made first: numbers that are not finite raise an error here, before any picture is written.
    accuracy = {} if original is None else _accuracy(found, original)
    text = json.dumps({**info, "diagnostics": found.diagnostics.to_dict(), **accuracy}, indent=1, allow_nan=False)
    count = len(found.samples)
    bounds = statistics.interval(found.samples, confidence=CONFIDENCE)
    held = statistics.held_probability(count, confidence=CONFIDENCE)
    std = found.std[: figures.COLORS]
    top = float(std.max())
    _remove_older(folder, image, count, damaged=original is not None)
    for i, restored in enumerate(found.samples):
        figures.save_png(restored, folder / f"restored-{i}.png", {**info, "index": i})
    figures.save_png(found.mean, folder / "mean.png", info)
    for name, bound in zip(BOUNDS, bounds, strict=True):
        figures.save_png(bound, folder / name, {**info, "interval": held})
    figures.save_png(std / max(top, 1e-9), folder / "std.png", {**info, "white": top})
    if original is not None:
        figures.save_png(damaged, folder / "damaged.png", info)
    picture = figures.restoration(damaged, found.samples, found.std, known=known, original=original)
    figures.save_png(picture, folder / "restoration.png", info)
    write_text(folder / "restoration.json", text)
    windows = found.diagnostics.windows
    done = f"{info['image']} restored {info['n']} times by {info['method']}{f' in {windows} windows' * (windows > 1)}"
    filled = f", {info['filled']:.0%} filled" if "filled" in info else ""
    print(f"{folder}: {done}{filled} in {found.diagnostics.seconds:.1f} s, seed {info['seed']}")


def _accuracy(found: Restoration, original: Tensor) -> dict[str, float]:
    """The PSNR of the mean, if it is finite, and the coverage of the intervals, if the samples are enough for them."""
    psnr = float(statistics.psnr(found.mean[None], original[None]))
    numbers = {"psnr_of_mean": psnr} if math.isfinite(psnr) else {}
    if len(found.samples) >= statistics.fewest(CONFIDENCE):
        covered = statistics.coverage(found.samples, original, confidence=CONFIDENCE)
        numbers["coverage_90"] = float(covered.mean())
    return numbers


def _remove_older(folder: Path, image: Path, n: int, *, damaged: bool) -> None:
    """Removes the pictures that an earlier command wrote for an image and that n restorations do not replace."""
    numbered = (path for path in folder.glob("restored-*.png") if re.fullmatch("restored-(0|[1-9][0-9]*)", path.stem))
    older = [path for path in numbered if int(path.stem.removeprefix("restored-")) >= n]
    if not damaged and (folder / "damaged.png").exists():
        older.append(folder / "damaged.png")
    for path in older:
        if _made_of(path) == image.name and not path.samefile(image):
            path.unlink()


def _made_of(path: Path) -> str | None:
    """The name of the image that a picture was made of, None for a picture of anything else."""
    try:
        return figures.read_info(path)["image"]  # type: ignore[no-any-return]
    except (OSError, KeyError, TypeError, ValueError):  # The picture is not one of this command.
        return None
