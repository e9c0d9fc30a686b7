"""The result of a restoration: n samples of an example given y, in the units of the data, and how they were drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffusion.data import DataSpec
from diffusion.errors import require
from diffusion.files import expanded
from diffusion.model.pictures import save_restorations, to_images
from diffusion.restoration import Method, statistics

# Values that are sorted at a time; torch.quantile takes at most 2^24.
SORTED = 2**22


@dataclass(frozen=True)
class Diagnostics:
    """How restorations were drawn.

    A batch took `nfe` denoiser evaluations and `backward` passes on average, on a grid of `steps`. For one restoration
    they go over `windows` windows, which cover what is to be restored in `parts` separate parts. All batches took
    `seconds`. `residual` is the root mean square of y - A(u), in units of the noise, and thus about 1 for samples of
    the posterior, or in units of the data without noise.

    The rest is None for methods that do not know it. `log_evidence` is log p(y) in nats, the density of y in its own
    units, if all of y was used. `relative_ess` is the least effective sample size at any step as a share of the number
    of particles, (Σw)²/(N Σw²). `ancestors` is the number of initial particles with descendants among the samples.
    """

    method: Method
    nfe: float
    backward: float
    seconds: float
    residual: float
    windows: int = 1
    steps: int = 0
    parts: int = 1
    log_evidence: float | None = None
    relative_ess: float | None = None
    ancestors: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON writes them; `method` is its name, and `options` the method as Python writes it."""
        return {**vars(self), "method": self.method.name, "options": str(self.method)}


@dataclass(frozen=True)
class Restoration:
    """n restorations of one example in the units of the data, on the CPU, and their diagnostics.

    Only what was restored is held n times. `part` (n, M) has the values at the M places where `restored` is True, in
    row-major order; all other values are those of the observed example, `image`, (C, H, W) or (D,). `restored` is bool
    and broadcasts against the image. Where every value was restored, `image` and `restored` are None and `part` is
    (n, *), the restorations themselves.

    Statistics are computed on the part alone. `whole` puts any values of the part in their places. `spec` is that of
    the data, which says how images are written.
    """

    part: Tensor
    diagnostics: Diagnostics
    image: Tensor | None = None
    restored: Tensor | None = None
    spec: DataSpec | None = None

    @property
    def n(self) -> int:
        """The number of restorations."""
        return len(self.part)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one restoration, (C, H, W) or (D,)."""
        return tuple(self.part.shape[1:] if self.image is None else self.image.shape)

    def sample(self, i: int) -> Tensor:
        """The restoration i, whole: (C, H, W) or (D,). Raises IndexError unless 0 <= i < n, or -n <= i < 0."""
        return self.whole(self.part[i])

    @property
    def samples(self) -> Tensor:
        """All restorations, whole: (n, *). They are made on demand and take n times the memory of one."""
        return self.whole(self.part)

    @property
    def mean(self) -> Tensor:
        """The mean of the samples: (C, H, W) or (D,)."""
        return self.whole(self.part.mean(0))

    @property
    def std(self) -> Tensor:
        """The standard deviation of each pixel: (C, H, W) or (D,); 0 for a single sample and wherever all agree."""
        correction = min(1, self.n - 1)
        return self.whole(self._by_columns(lambda part: part.std(0, correction=correction)[None])[0], elsewhere=0.0)

    def interval(self, confidence: float = 0.9) -> tuple[Tensor, Tensor]:
        """The bounds of the central interval with a confidence, pixel by pixel: (C, H, W) or (D,) each.

        With few samples it holds less than the confidence (`restoration.statistics.interval`).
        """
        low, high = self.bounds(confidence)
        return low, high

    def bounds(self, confidence: float = 0.9) -> Iterator[Tensor]:
        """Yields the two bounds of `interval`, each made when it is asked for, as images may be large."""
        parts = self._by_columns(lambda part: torch.stack(statistics.interval(part, confidence=confidence)))
        yield self.whole(parts[0])
        yield self.whole(parts[1])

    def quantile(self, q: float | Sequence[float]) -> Tensor:
        """The quantiles by pixel, (*) for one q in [0, 1] and (Q, *) for several, linear between samples.

        Raises InputError for other q.
        """
        probabilities = torch.as_tensor(q, dtype=self.part.dtype)
        require(((probabilities >= 0) & (probabilities <= 1)).all(), "q", "in [0, 1]", q)
        found = self._by_columns(lambda part: part.quantile(probabilities.reshape(-1), dim=0))
        return self.whole(found if probabilities.ndim else found[0])

    def whole(self, values: Tensor, *, elsewhere: float | None = None) -> Tensor:
        """Whole examples (*, C, H, W) or (*, D) with values of the part, (*, M), in their places.

        All other values are those of the observed example, or `elsewhere`.
        """
        if self.image is None or self.restored is None:
            return values
        around = self.image if elsewhere is None else torch.full_like(self.image, elsewhere)
        return around.expand(*values.shape[:-1], *self.image.shape).masked_scatter(self.restored, values)

    def images(self) -> list[Image.Image]:
        """The restorations as images of Pillow, in the values of files (`pictures.to_images`)."""
        return [image for i in range(self.n) for image in to_images(self.sample(i), self._known_spec)]

    def save(self, folder: str | Path) -> list[Path]:
        """Writes the restorations as restored-0, restored-1, ... and their mean as mean into a folder, and returns the
        paths.

        PNG files carry the diagnostics. Raises InputError for a folder that holds such results already.
        """
        info = {"diagnostics": self.diagnostics.to_dict()}
        samples = (self.sample(i) for i in range(self.n))
        return save_restorations(expanded(folder), samples, self.mean, self._known_spec, info)

    @property
    def _known_spec(self) -> DataSpec:
        require(self.spec is not None, "spec", "that of the data, as Model.solve sets it", self.spec)
        assert self.spec is not None
        return self.spec

    def select(self, x: Tensor) -> Tensor:
        """The values of an example x, shaped as one restoration, where something was restored: as `part[0]`."""
        return x if self.restored is None else x.masked_select(self.restored)

    def _by_columns(self, statistic: Callable[[Tensor], Tensor]) -> Tensor:
        """A statistic (n, M) -> (K, M) of the part, as (K, *), computed for so many columns at a time that sorting them
        takes little memory.
        """
        flat = self.part.flatten(1)
        if not flat.numel():
            return statistic(flat.new_zeros(self.n, 1))[:, :0]
        found = torch.cat([statistic(columns) for columns in torch.split(flat, max(1, SORTED // self.n), dim=1)], 1)
        return found.reshape(-1, *self.part.shape[1:])
