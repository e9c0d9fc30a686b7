"""Where examples come from, as one experiment chooses it: a folder, the bundled digits or a point set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from diffusion.data.dataset import Dataset, standardized
from diffusion.data.digits import write_digits
from diffusion.data.folder import open_folder
from diffusion.data.folders import FolderError
from diffusion.data.points import mixture, swiss_roll
from diffusion.errors import require

Log = Callable[[str], None]


@dataclass(frozen=True)
class DataOptions:
    """The data of an experiment and what is done to them.

    `source` is folder, digits, swiss_roll or mixture; `path` the image folder, tar shards or hf://OWNER/NAME:SPLIT, for
    digits the folder they are written to. `size` is height and width, or one number for both; images are resized to
    cover it and cropped. `labels` takes classes from the first level of subfolders, the .cls files of shards or the
    ClassLabel column of a dataset. Transparent pixels are composited on `background` unless `channels` is
    4. `flip` mirrors half of the examples, `margin` is the number of pixels by which crops wander. `held_out` is the
    share kept from training, `count` the size of point sets, `seed` that of the split and of point sets.
    """

    source: str = "folder"
    path: str = ""
    size: int | tuple[int, int] = 64
    channels: int = 3
    labels: bool = False
    background: tuple[int, int, int] = (255, 255, 255)
    flip: bool = False
    margin: int = 0
    held_out: float = 0.1
    min_images: int = 8
    count: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.source in SOURCES, "source", f"one of {', '.join(SOURCES)}", repr(self.source))
        require(min(self.shape) >= 1, "size", "positive", self.size)
        require(self.channels in (1, 3, 4), "channels", "1, 3 or 4", self.channels)
        require(all(0 <= v <= 255 for v in self.background), "background", "three values of 0 to 255", self.background)
        require(self.margin >= 0, "margin", "0 or more", self.margin)
        require(0 <= self.held_out <= 0.5, "held_out", "in [0, 0.5]", self.held_out)
        require(self.min_images >= 1, "min_images", "at least 1", self.min_images)
        require(self.count >= 2, "count", "at least 2", self.count)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


def open_source(options: DataOptions, log: Log) -> Dataset:
    """All examples of an experiment, standardized to zero mean and unit variance in the model's units.

    Raises FolderError for a folder that cannot be used.
    """
    return standardized(SOURCES[options.source](options, log))


def _folder(options: DataOptions, log: Log) -> Dataset:
    if not options.path:
        raise FolderError("data.path: is not set; name your image folder, as in data.path=FOLDER")
    return open_folder(
        options.path,
        size=options.shape,
        channels=options.channels,
        labels=options.labels,
        background=options.background,
        margin=options.margin,
        min_images=options.min_images,
        log=log,
    )


def _digits(options: DataOptions, log: Log) -> Dataset:
    path = write_digits(Path(options.path or "digits"))
    return _folder(replace(options, path=str(path)), log)


SOURCES: dict[str, Callable[[DataOptions, Log], Dataset]] = {
    "folder": _folder,
    "digits": _digits,
    "swiss_roll": lambda options, log: swiss_roll(options.count, options.seed),
    "mixture": lambda options, log: mixture(options.count, options.seed, labels=options.labels),
}
