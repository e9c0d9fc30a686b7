"""Images with holes, made of whole ones: laws of what is missing, files with alpha, and holes that are filled.

Every image lacks the same share of its pixels. A law is a function of the number of the image.

    boxes     boxes whose sides are 20 % to 50 % of the image's, one after the other until the share is missing
    pixels    random pixels
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from diffusion.data import Dataset, identity
from diffusion.data.dataset import standardized
from diffusion.randomness import example_seed

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.uint8]
Law = Callable[[int, int, int, np.random.Generator], Mask]
# The channels of images that files with alpha have room for.
CHANNELS = (1, 3)
# The streams of the masks of training images and of those held out.
TRAINING, HELD_OUT = 0, 1
# The digits of a hash in the name of a folder.
DIGITS = 6


def boxes(height: int, width: int, missing: int, rng: np.random.Generator) -> Mask:
    """Returns a mask, True where an image is seen, that hides so many pixels by boxes, the last of them in part.

    Boxes may reach beyond the image, so that every pixel is in one about as often.
    """
    seen = np.ones((height, width), dtype=bool)
    while (left := missing - np.count_nonzero(~seen)) > 0:
        sides = [max(1, round(rng.uniform(0.2, 0.5) * side)) for side in (height, width)]
        top, start = (int(rng.integers(1 - own, side)) for own, side in zip(sides, (height, width), strict=True))
        box = np.zeros_like(seen)
        box[max(0, top) : top + sides[0], max(0, start) : start + sides[1]] = True
        seen.flat[np.flatnonzero(box & seen)[:left]] = False
    return seen


def pixels(height: int, width: int, missing: int, rng: np.random.Generator) -> Mask:
    """Returns a mask that hides so many random pixels."""
    return (rng.permutation(height * width) >= missing).reshape(height, width)


LAWS: dict[str, Law] = {"boxes": boxes, "pixels": pixels}


def masks(dataset: Dataset, law: str, share: float, stream: int) -> Values:
    """Returns what is seen of each of the images, (N, 1, H, W), 0 where it is missing."""
    _, height, width = dataset.spec.shape
    missing = round(share * height * width)
    rngs = (np.random.default_rng(example_seed(stream, number)) for number in range(len(dataset)))
    return np.stack([LAWS[law](height, width, missing, rng) for rng in rngs]).astype(np.uint8)[:, None]


def with_holes(dataset: Dataset, seen: Values) -> Dataset:
    """Returns images of which `seen` (N, 1, H, W) was seen; the values elsewhere are there, but mean nothing."""
    return replace(dataset, seen=seen, contents=None)


def write(dataset: Dataset, seen: Values, place: Path) -> Path:
    """Writes images as files that are transparent where they were not seen, in subfolders by class.

    Returns their folder, whose name has a hash of the images. One that was written to its end is left as it is. The
    name of a file is the number of its image.
    """
    contents = identity.digest(identity.hashes_of(with_holes(dataset, seen)))
    folder = place / f"images-{contents[:DIGITS]}"
    done, spec = folder.with_suffix(".done"), dataset.spec
    if done.exists():
        return folder
    for number in tqdm(range(len(dataset)), desc=str(folder), disable=None):
        (values,), label = dataset.batch([number])
        image = np.where(seen[number], values.numpy(), 0)
        bands = np.concatenate([image, 255 * seen[number]]).astype(np.uint8)
        within = folder / (spec.classes[int(label[0])] if label is not None and spec.classes else "")
        within.mkdir(parents=True, exist_ok=True)
        Image.fromarray(bands.transpose(1, 2, 0)).save(within / f"{number:07d}.png")
    done.touch()
    return folder


def number_of(name: str) -> int:
    """Returns the number of the image of a file that `write` wrote."""
    return int(Path(name).stem)


def mean_filled(dataset: Dataset) -> Dataset:
    """Returns images with holes as whole ones, with the mean of what was seen of each channel in the holes."""

    def filled(values: Values, seen: Mask) -> Values:
        means = [channel[seen[0]].mean().round() for channel in values]
        return np.where(seen, values, np.array(means)[:, None, None]).astype(values.dtype)

    return _filled(dataset, filled)


def nearest_filled(dataset: Dataset) -> Dataset:
    """Returns images with holes as whole ones, with the nearest pixel that was seen in each place of the holes."""
    from scipy.ndimage import distance_transform_edt

    def filled(values: Values, seen: Mask) -> Values:
        rows, columns = distance_transform_edt(~seen[0], return_distances=False, return_indices=True)
        return values[:, rows, columns]

    return _filled(dataset, filled)


def _filled(dataset: Dataset, fill: Callable[[Values, Mask], Values]) -> Dataset:
    assert dataset.seen is not None
    found = np.empty(dataset.values.shape, np.uint8)
    for number in range(len(dataset)):
        row = np.array([number])
        found[number] = fill(np.asarray(dataset.values[row])[0], np.asarray(dataset.seen[row])[0] != 0)
    return standardized(replace(dataset, values=found, seen=None, contents=None))
