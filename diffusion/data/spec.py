"""What an example is: its shape, levels and classes, and the way between stored and model values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class DataSpec:
    """The kind of data a model is trained on; saved with the model, so that samples become images again.

    `shape` is (C, H, W) for images and (D,) for points. `levels` is 256 for 8-bit images and None for
    continuous data. `classes` names the labels 0, 1, ...; it is empty for data without labels. `mean` and `std`
    are those of all stored values, so that the model's data have zero mean and unit variance.

    An example has three forms: stored (uint8 levels, or points), in units (images float in [0, 1], points as
    they are: what users see) and the model's (standardized).

    Raises ValueError for another rank of shape, an empty axis, levels that do not fit into 8 bits, or a
    standard deviation that is not positive.
    """

    shape: tuple[int, ...]
    levels: int | None
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if len(self.shape) not in (1, 3) or min(self.shape) < 1:
            raise ValueError(f"spec.shape: must be (C, H, W) or (D,) with positive sizes, got {self.shape}")
        if self.levels is not None and not 2 <= self.levels <= 256:
            raise ValueError(f"spec.levels: must be None or lie in 2..256, got {self.levels}")
        if not self.std > 0:
            raise ValueError(f"spec.std: must be positive, got {self.std}")

    @property
    def is_image(self) -> bool:
        """Whether an example is an image rather than a point."""
        return len(self.shape) == 3

    @property
    def dim(self) -> int:
        """Number of scalars in one example."""
        return math.prod(self.shape)

    @property
    def top(self) -> int:
        """The stored value that is 1 in units; for continuous data stored values and units are the same."""
        return 1 if self.levels is None else self.levels - 1

    @property
    def spacing(self) -> float | None:
        """The distance between neighboring levels in the model's values, None for continuous data."""
        return None if self.levels is None else 1 / self.std

    def encode(self, values: Tensor) -> Tensor:
        """Stored values (*) to the model's (*)."""
        # By a number GPUs divide as if multiplying with its rounded reciprocal; by a tensor, as the CPU does.
        std = torch.full((), self.std, dtype=torch.float32, device=values.device)
        return (values.to(torch.float32) - self.mean).div_(std)

    def decode(self, x: Tensor) -> Tensor:
        """The model's values (*) to units (*): images clamped to 0..1."""
        units = (x * self.std + self.mean) / self.top
        return units.clamp(0, 1) if self.is_image else units

    def standardize(self, units: Tensor) -> Tensor:
        """Units (*) to the model's values (*): the inverse of `decode`."""
        return self.encode(units * self.top)

    def quantize(self, units: Tensor) -> Tensor:
        """Units (*) to the nearest stored levels (*), as uint8.

        Raises ValueError for data without levels.
        """
        if self.levels is None:
            raise ValueError("spec.levels: continuous data has no levels to round to")
        return (units * self.top).round().clamp(0, self.top).to(torch.uint8)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> DataSpec:
        """The inverse of `to_dict`, which JSON may have been through."""
        return cls(**{**fields, "shape": tuple(fields["shape"]), "classes": tuple(fields["classes"])})
