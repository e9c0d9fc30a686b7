"""The sources of examples among which an experiment chooses: a folder, the bundled digits, or a synthetic source."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from diffusion.data.dataset import Dataset, standardized
from diffusion.data.images.decoding import PixelFormat
from diffusion.data.images.mask_folder import is_folder
from diffusion.data.images.open_folder import open_folder
from diffusion.data.images.pages import FIRST, PAGES
from diffusion.data.images.pairs import with_pairs
from diffusion.data.images.scan import FolderError
from diffusion.data.spec import MAX_CHANNELS, DataSpec
from diffusion.data.synthetic.dead_leaves import NOISE as LEAVES_NOISE
from diffusion.data.synthetic.dead_leaves import R_MAX, R_MIN, Leaves, dead_leaves
from diffusion.data.synthetic.digits import write_digits
from diffusion.data.synthetic.points import MODE_NOISE, ROLL_NOISE, lattice, mixture, swiss_roll
from diffusion.data.synthetic.texture import texture
from diffusion.errors import require, require_one

Log = Callable[[str], None]
# The words for yes and no that configurations may write as texts.
BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
# The sources that read files.
FROM_FILES = ("folder", "digits", "texture")
# The sources of points, which are no images.
POINTS = ("swiss_roll", "mixture", "lattice")


@dataclass(frozen=True)
class DataOptions:
    """The source of the examples of an experiment, and how they are prepared.

    `source` is folder, digits, texture, dead_leaves, swiss_roll, mixture or lattice.
    `path` is an image folder, tar or zip files, a folder in them, or hf://OWNER/NAME:SPLIT; for digits it is the folder
    they are written to, for a texture an image file or a folder.
    `size` is (height, width) in pixels, or one number for both; images are resized to cover it and cropped, while
    textures are only cropped.
    `channels` is 1 for gray, 3 for RGB, 4 for RGB with alpha, or any number up to 16 for as many bands.
    `range` has the values of files that become black and white, as [0, 4095] for 12 bits, or is "measured": the lowest
    and the highest value of all images. Without it they are those of each file's own depth, to 8 bits.
    `labels` takes the classes from the first subfolder on each path, the .cls files of shards, the dataset.json of
    StyleGAN, the ClassLabel column of a Hugging Face dataset or the modes of a mixture. It may also be a table, CSV,
    TSV, JSON or JSON lines within the folder or beside it, or "prefix": the text before the number of a name.
    `pages` is "first", or "all" to take every page of a TIFF stack and every frame of an animation as an image.
    `masks` says which pixels nobody has seen, which have no part in anything that is learned: "alpha" stands for those
    that are not fully opaque, "#ff00ff" for those that are painted in that color, and else it is a folder of masks with
    the names of the images, in which white is seen.
    `background` is the RGB color on which transparent pixels are composited, unless `channels` is 4.
    `condition` is a folder, or whatever `path` may be, that holds for each image one of the same name that shows what
    is known of it, such as a sketch; the network is told it.
    `condition_channels` is the number of their channels, by default that of the images.
    `centered` takes black as -1 and white as 1, as models of diffusers do, which those that are to be exported to them
    need; by default images have zero mean and unit variance.
    `flip` mirrors half of the training examples at random.
    `margin` is the random crop padding: training crops are shifted by up to this number of pixels in each direction.
    `held_out` is the share of the examples that is kept from training.
    `min_images` is the smallest number of usable images that a folder must hold.
    `max_bad` is the largest share of the files of a folder that may be unusable; a few of them never stop a run.
    `count` is the number of examples of the synthetic sources: crops of a texture, dead leaves or points.
    `seed` determines the examples of the synthetic sources and the split.
    `hole` is the side, in pixels, of a square in the middle of each image of a texture that no crop touches.
    `radii` are the smallest and the largest radius of dead leaves, in pixels.
    `noise` is the standard deviation of the noise, of a Swiss roll in units of its spiral, of a lattice in units of its
    spacing, of dead leaves in units of the standard deviation of their pixels; None stands for the default of the
    distribution.

    Raises InputError for an option that is out of its range.
    """

    source: str = "folder"
    path: str = ""
    size: int | tuple[int, int] = 64
    channels: int = 3
    range: Literal["measured"] | tuple[float, float] | None = None
    labels: bool | str = False
    pages: str = FIRST
    masks: str = ""
    condition: str = ""
    condition_channels: int | None = None
    background: tuple[int, int, int] = (255, 255, 255)
    centered: bool = False
    flip: bool = False
    margin: int = 0
    held_out: float = 0.1
    min_images: int = 8
    max_bad: float = 0.01
    count: int = 20_000
    seed: int = 0
    hole: int = 0
    radii: tuple[float, float] = (R_MIN, R_MAX)
    noise: float | None = None

    def __post_init__(self) -> None:
        require_one(self.source, "source", SOURCES)
        if isinstance(self.labels, str) and self.labels.strip().lower() in BOOLEANS:
            object.__setattr__(self, "labels", BOOLEANS[self.labels.strip().lower()])
        files = isinstance(self.labels, bool) or self.source == "folder"
        require(files, "labels", f"true or false for {self.source}", repr(self.labels))
        require_one(self.pages, "pages", PAGES)
        require(not self.masks or self.source == "folder", "masks", f"unset for {self.source}", repr(self.masks))
        require(not self.condition or self.source == "folder", "condition", f"unset for {self.source}", self.condition)
        channels = self.condition_channels
        fits = channels is None or (bool(self.condition) and 1 <= channels <= MAX_CHANNELS)
        require(fits, "condition_channels", f"1 to {MAX_CHANNELS}, with data.condition", channels)
        painted = not self.masks.startswith("#") or re.fullmatch("#[0-9a-fA-F]{6}", self.masks)
        require(bool(painted), "masks", "alpha, a folder, or a color such as #ff00ff", repr(self.masks))
        require(min(self.shape) >= 1, "size", "positive", self.size)
        require(1 <= self.channels <= MAX_CHANNELS, "channels", f"1 to {MAX_CHANNELS}", self.channels)
        if isinstance(self.range, tuple):
            increasing = self.range[0] < self.range[1] and all(map(math.isfinite, self.range))
            require(increasing, "range", "an increasing pair, or 'measured'", list(self.range))
        made = self.range is not None and self.source not in FROM_FILES
        require(not made, "range", f"unset for {self.source}, which reads no files", self.range)
        files = self.source in FROM_FILES
        require(files or not self.centered, "centered", f"false for {self.source}, which reads no files", "true")
        gray = self.source != "dead_leaves" or self.channels == 1
        require(gray, "channels", "1 for dead_leaves", self.channels)
        require(all(0 <= v <= 255 for v in self.background), "background", "three values of 0 to 255", self.background)
        require(self.margin >= 0, "margin", "0 or more", self.margin)
        require(0 <= self.held_out <= 0.5, "held_out", "in [0, 0.5]", self.held_out)
        require(self.min_images >= 1, "min_images", "at least 1", self.min_images)
        require(0 <= self.max_bad <= 1, "max_bad", "in [0, 1]", self.max_bad)
        require(self.count >= 2, "count", "at least 2", self.count)
        require(self.hole >= 0, "hole", "0 or more", self.hole)
        require(0 < self.radii[0] < self.radii[1], "radii", "an increasing pair of positive numbers", self.radii)
        require(self.noise is None or 0 < self.noise < 1, "noise", "between 0 and 1", self.noise)

    @property
    def shape(self) -> tuple[int, int]:
        """The height and width of an example."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def paired_channels(self) -> int:
        """The number of channels of the images of `condition`."""
        return self.condition_channels or self.channels

    @property
    def mask_folder(self) -> str:
        """The folder of masks that `masks` names; empty where it names none."""
        return self.masks if is_folder(self.masks) else ""

    @property
    def pixel_format(self) -> PixelFormat:
        """The form that image files are decoded to."""
        return PixelFormat(self.channels, self.background)


class Opener(Protocol):
    """Opens the examples of a source; `spec` is that of a model which was trained on them, if there is one."""

    def __call__(self, options: DataOptions, log: Log, spec: DataSpec | None = None) -> Dataset: ...  # noqa: D102


def open_source(options: DataOptions, log: Log, spec: DataSpec | None = None) -> Dataset:
    """Opens all examples of an experiment, training and held-out ones together; `log` receives each line of the report.

    Files are read in the range and the levels of `spec`, that of a model which was trained on them, if it is given:
    they may have changed since, and would be measured as others.

    The mean and std of the spec are those of the training examples alone, the first part of
    `split(options.held_out, options.seed)`, or with `options.centered` both are half of white.

    Raises FolderError for a folder that cannot be used, InputError for examples whose values are all the same.
    """
    dataset = SOURCES[options.source](options, log, spec)
    dataset = standardized(dataset, held_out=options.held_out, seed=options.seed)
    middle = dataset.spec.top / 2
    return replace(dataset, spec=replace(dataset.spec, mean=middle, std=middle)) if options.centered else dataset


def _format(options: DataOptions, spec: DataSpec | None) -> PixelFormat:
    return options.pixel_format if spec is None else PixelFormat.of(spec, options.background)


def _folder(options: DataOptions, log: Log, spec: DataSpec | None = None) -> Dataset:
    if not options.path:
        raise FolderError("data.path: is not set; name your image folder, as in data.path=FOLDER")
    dataset = open_folder(
        options.path,
        size=options.shape,
        pixel_format=_format(options, spec),
        value_range=options.range,
        labels=options.labels,
        pages=options.pages,
        masks=options.masks,
        margin=options.margin,
        min_images=options.min_images,
        max_bad=options.max_bad,
        log=log,
    )
    if not options.condition:
        return dataset
    return with_pairs(
        dataset,
        options.path,
        options.condition,
        channels=options.paired_channels,
        pages=options.pages,
        background=options.background,
        log=log,
    )


def _digits(options: DataOptions, log: Log, spec: DataSpec | None = None) -> Dataset:
    path = write_digits(Path(options.path or "digits"))
    return _folder(replace(options, path=str(path)), log, spec)


def _texture(options: DataOptions, log: Log, spec: DataSpec | None = None) -> Dataset:
    if not options.path:
        raise FolderError("data.path: is not set; name an image file or a folder, as in data.path=FILE")
    return texture(
        options.path,
        options.count,
        options.seed,
        size=options.shape,
        pixel_format=_format(options, spec),
        value_range=options.range,
        hole=options.hole,
        log=log,
    )


def _dead_leaves(options: DataOptions, log: Log, spec: DataSpec | None = None) -> Dataset:
    leaves = Leaves(*options.radii, LEAVES_NOISE if options.noise is None else options.noise)
    return dead_leaves(options.count, options.seed, options.shape, leaves)


def _swiss_roll(options: DataOptions, log: Log, spec: DataSpec | None = None) -> Dataset:
    return swiss_roll(options.count, options.seed, ROLL_NOISE if options.noise is None else options.noise)


def _mixture(options: DataOptions, log: Log, spec: DataSpec | None = None) -> Dataset:
    return mixture(options.count, options.seed, labels=bool(options.labels))


def _lattice(options: DataOptions, log: Log, spec: DataSpec | None = None) -> Dataset:
    return lattice(options.count, options.seed, MODE_NOISE if options.noise is None else options.noise)


SOURCES: dict[str, Opener] = {
    "folder": _folder,
    "digits": _digits,
    "texture": _texture,
    "dead_leaves": _dead_leaves,
    "swiss_roll": _swiss_roll,
    "mixture": _mixture,
    "lattice": _lattice,
}
