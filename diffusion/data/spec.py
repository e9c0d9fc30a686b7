"""The specification of examples: their shape, gray levels and classes, and the maps between stored and model values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion.errors import InputError, nearest, require
from diffusion.transfers import to_device

Label = int | str | Sequence[int] | Tensor

# The most gray levels of quantized data, those of 16 bits, and the most channels of images.
MAX_LEVELS = 1 << 16
MAX_CHANNELS = 16


@dataclass(frozen=True)
class DataSpec:
    """The kind of data a model is trained on; it is saved with the model, so that samples become images again.

    `shape` is (C, H, W) for images and (D,) for points. `levels` is the number of gray levels of quantized data, such
    as 256 for 8-bit images, and None for continuous data. `classes` names the labels 0, 1, ...; it is empty for data
    without labels. `mean` and `std` are those of the stored values, so that the model's data have zero mean and unit
    variance. `value_range` has the values of image files that are 0 and 1 in units; None stands for 0 and the largest
    value of each file's own depth.

    An example has three forms. Stored values are gray levels for quantized data, uint8 for up to 256 of them and
    integers of more bits otherwise, and floats for continuous data.
    Units are what users see: quantized data divided by `top`, so that they lie in [0, 1], and continuous data as they
    are stored. Model values are the stored values minus `mean`, divided by `std`.

    Raises ValueError for a shape of another rank, an empty axis, levels that do not fit into 16 bits, a range that is
    not an increasing pair, or a standard deviation that is not positive.
    """

    shape: tuple[int, ...]
    levels: int | None
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if len(self.shape) not in (1, 3) or min(self.shape) < 1:
            raise ValueError(f"spec.shape: must be (C, H, W) or (D,) with positive sizes, got {self.shape}")
        if self.levels is not None and not 2 <= self.levels <= MAX_LEVELS:
            raise ValueError(f"spec.levels: must be None or lie in 2..{MAX_LEVELS}, got {self.levels}")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"spec.value_range: must be an increasing pair, got {self.value_range}")
        if not self.std > 0:
            raise ValueError(f"spec.std: must be positive, got {self.std}")

    @property
    def is_image(self) -> bool:
        """Whether examples are images rather than points."""
        return len(self.shape) == 3

    @property
    def dim(self) -> int:
        """The number of scalars in one example."""
        return math.prod(self.shape)

    @property
    def top(self) -> int:
        """The stored value that becomes 1 in units. Continuous data are stored in units, so that it is 1."""
        return 1 if self.levels is None else self.levels - 1

    @property
    def spacing(self) -> float | None:
        """The distance between neighboring gray levels in model values; None for continuous data."""
        return None if self.levels is None else 1 / self.std

    def encode(self, values: Tensor) -> Tensor:
        """Maps stored values (*) to model values (*): (values - mean) / std, in float32."""
        # GPUs divide by a Python number by multiplying with its rounded reciprocal, and by a tensor as the CPU does.
        std = torch.full((), self.std, dtype=torch.float32, device=values.device)
        return (values.to(torch.float32) - self.mean).div_(std)

    def decode(self, x: Tensor) -> Tensor:
        """Maps model values (*) to units (*): (x std + mean) / top, clamped to [0, 1] for quantized data.

        Continuous data are not clamped, since their distribution may reach beyond [0, 1], as that of dead leaves does.
        """
        units = (x * self.std + self.mean) / self.top
        return units if self.levels is None else units.clamp(0, 1)

    def standardize(self, units: Tensor) -> Tensor:
        """Maps units (*) to model values (*): the inverse of `decode`, where that does not clamp."""
        return self.encode(units * self.top)

    def quantize(self, units: Tensor) -> Tensor:
        """Rounds units (*) to the nearest stored gray levels (*), as uint8 for up to 256 of them, else as int32.

        Raises ValueError for continuous data.
        """
        if self.levels is None:
            raise ValueError("spec.levels: continuous data have no gray levels to round to")
        return (units * self.top).round().clamp(0, self.top).to(torch.uint8 if self.levels <= 256 else torch.int32)

    def label_numbers(
        self, label: Label | None, n: int, *, unlabeled: bool = False, device: torch.device | None = None
    ) -> Tensor | None:
        """Returns the numbers of n labels, (n,) int64, from one label for all or n of them, by number or class name.

        A text that is no class name may be a number, unless the name of any class is a number: it would not say which
        of the two it is. No label gives None. With `unlabeled` the number -1 stands for an example without a label.

        Raises InputError that names the classes for a label that does not exist.
        """
        if label is None:
            return None
        classes = self.classes
        value = label.tolist() if isinstance(label, Tensor) else label
        given = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * n
        numbers = [classes.index(v) if isinstance(v, str) and v in classes else v for v in given]
        named_by_numbers = any(map(_is_number, classes))
        if not named_by_numbers:
            numbers = [int(v) if isinstance(v, str) and v.isdecimal() else v for v in numbers]
        known = range(-1 if unlabeled else 0, len(classes))
        bad = [v for v in numbers if isinstance(v, bool) or not isinstance(v, int) or v not in known]
        if bad and not classes:
            raise InputError(f"label: this model was trained without labels (data.labels = false), got {value!r}")
        require(len(given) == n, "label", f"one label or {n} of them", given)
        if bad:
            none, names = "-1 for none, " if unlabeled else "", f"one of {', '.join(classes)}"
            written, number = isinstance(bad[0], str), isinstance(bad[0], str) and _is_number(bad[0])
            if written and named_by_numbers:
                names += ", which are names and not counted from 0" if number else ""
            else:
                names = f"0 to {len(classes) - 1} or {names}"
            hint = nearest(bad[0], classes) if written and not number else ""
            raise InputError(f"label: must be {none}{names}, got {bad[0]!r}{hint}")
        return to_device(torch.tensor(numbers), torch.device("cpu") if device is None else torch.device(device))

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields in a form that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> DataSpec:
        """Returns the specification with the fields of `to_dict`, which may have been through JSON."""
        ends = fields.get("value_range")
        return cls(
            **{
                **fields,
                "shape": tuple(fields["shape"]),
                "classes": tuple(fields["classes"]),
                "value_range": None if ends is None else tuple(ends),
            }
        )


def _is_number(name: str) -> bool:
    """Whether the name of a class could be taken for a number."""
    try:
        float(name)
    except ValueError:
        return False
    return True
