"""What a search for copies found: shares with intervals as a table, every sample with its nearest images, a figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from PIL import Image
from torch import Tensor

from diffusion import figures
from diffusion.evaluation.evaluator import Evaluation
from diffusion.evaluation.proportions import Share

# Samples in the figure, in how many columns, and the letters of the longest name that is shown whole.
SHOWN, COLUMNS, LETTERS = 12, 2, 24
PIXELS = "pixels"


@dataclass(frozen=True)
class Near:
    """The two training images nearest to a sample: their names and distances, and how much nearer the first is."""

    names: tuple[str, str]
    distances: tuple[float, float]
    ratio: float


@dataclass(frozen=True)
class Found:
    """What was found in one kind of distance: what is near each sample, its conformal p-value, and which are flagged.

    `threshold` is the ratio below which they are, `held_out` the number of images that it was calibrated on.
    """

    near: tuple[Near, ...]
    p_values: tuple[float, ...]
    flagged: tuple[bool, ...]
    threshold: float
    held_out: int


@dataclass(frozen=True)
class Pictures:
    """What the figure shows of some samples, by their numbers, those most like copies first: each beside the nearest
    two training images, (N, 3, C, H, W) in [0, 1].
    """

    numbers: tuple[int, ...] = ()
    images: Tensor | None = None


@dataclass(frozen=True)
class MemorizationEvaluation(Evaluation):
    """The shares of samples that are flagged, and what was `found` of each, in pixels and in features by their name.

    `values` are the ratios in pixels of the samples, `names` their numbers or files; `training` is the number of
    training images, and `network` says by which weights features are.
    """

    foremost: ClassVar[str] = "most like copies"

    shares: dict[str, Share] = field(default_factory=dict)
    found: dict[str, Found] = field(default_factory=dict)
    training: int = 0
    network: dict[str, str] = field(default_factory=dict)
    pictures: Pictures = Pictures()

    @property
    def order(self) -> list[int]:
        """The numbers of the samples, those of the smallest ratios first."""
        return sorted(range(len(self.values)), key=lambda i: self.values[i])

    @property
    def listing(self) -> tuple[list[str], list[list[object]]]:
        """The table of the samples: what is near each, in which ratio, and whether it is flagged."""
        head, columns = ["sample"], ["ratio", "p-value", "flagged", "nearest", "distance", "second nearest", "distance"]
        for name in self.found:
            head += columns if name == PIXELS else [f"{name}: {column}" for column in columns]
        return head, [[self.names[i], *self._columns(i)] for i in self.order]

    def _columns(self, i: int) -> list[object]:
        cells: list[object] = []
        for found in self.found.values():
            near = found.near[i]
            cells += [near.ratio, found.p_values[i], "yes" if found.flagged[i] else "no"]
            cells += [near.names[0], near.distances[0], near.names[1], near.distances[1]]
        return cells

    def table(self, examples: str = "held-out") -> str:
        """One line per share, with its 95 % interval, and the notes below."""
        head = f"{self.method}: {self.kind}, {self.examples:,} samples against {self.training:,} training examples"
        width = max(16, *map(len, self.shares))
        lines = [head, f"{'':{width}s}{'share':>12s}{'95 % interval':>24s}"]
        for name, share in self.shares.items():
            lines.append(f"{name:{width}s}{share.value:12.4f}{f'{share.low:.4f} to {share.high:.4f}':>24s}")
        return "\n".join([*lines, *self.footers])

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values for JSON, without the pictures."""
        return {key: value for key, value in super().to_dict().items() if key != "pictures"}

    def draw(self, path: Path, examples: str, compared: Self | None = None) -> None:
        """Draws the samples that are most like copies, each beside the nearest two training images, into a PNG.

        Points have a histogram of their ratios.
        """
        if self.pictures.images is None:
            super().draw(path, "sampled")
            return
        found = self.found[PIXELS]
        rows = [
            _row(self.names[i], found.near[i], found.flagged[i], images)
            for i, images in zip(self.pictures.numbers, self.pictures.images, strict=True)
        ]
        each = -(-len(rows) // COLUMNS)
        columns = [("", figures.stack(rows[start : start + each])) for start in range(0, len(rows), each)]
        picture = figures.captioned([(self._title, figures.captioned(columns))])
        figures.save_png(picture, path, self._info())

    @property
    def _title(self) -> str:
        found, unseen = self.found[PIXELS], self.shares["flagged, unseen"]
        return (
            f"{sum(found.flagged):,} of {self.examples:,} samples are flagged, {self.shares['flagged'].value:.2%}; of "
            f"unseen images {unseen.value:.2%} are, with a ratio below {found.threshold:.3f}"
        )

    def _info(self) -> Mapping[str, Any]:
        plain, numbers = self.to_dict(), self.pictures.numbers
        shown = [{"sample": self.names[i], **plain["found"][PIXELS]["near"][i]} for i in numbers]
        threshold = self.found[PIXELS].threshold
        return {"title": self._title, "shares": plain["shares"], "threshold": threshold, "shown": shown}


def _row(name: str, near: Near, flagged: bool, images: Tensor) -> Image.Image:
    """A sample beside the nearest two training images, with what they are and how far."""
    captions = (
        (f"sample {_end(name)}", f"ratio {near.ratio:.3f}{', flagged' if flagged else ''}"),
        (f"nearest {_end(near.names[0])}", f"distance {near.distances[0]:.4f}"),
        (f"second {_end(near.names[1])}", f"distance {near.distances[1]:.4f}"),
    )
    panels = [
        (first, figures.captioned([(second, figures.to_image(figures.tile(x[None])))]))
        for (first, second), x in zip(captions, images, strict=True)
    ]
    return figures.captioned(panels)


def _end(name: str) -> str:
    """The end of a name, which tells files apart."""
    return name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}"
