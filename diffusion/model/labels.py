"""Labels as a person gives them, one or many, by number or name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion.errors import InputError, require

Label = int | str | Sequence[int] | Tensor


def labels(
    label: Label | None, n: int, classes: Sequence[str], device: torch.device, *, unlabeled: bool = False
) -> Tensor | None:
    """Labels for n examples from one label, a class name, or n labels; None for none: (n,) int64. If it may be
    `unlabeled`, an example of label -1 has none.

    Raises InputError naming the classes when a label does not exist.
    """
    if label is None:
        return None
    value = label.tolist() if isinstance(label, Tensor) else label
    given = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * n
    numbers = [classes.index(v) if isinstance(v, str) and v in classes else v for v in given]
    numbers = [int(v) if isinstance(v, str) and v.isdecimal() else v for v in numbers]
    known = range(-1 if unlabeled else 0, len(classes))
    bad = [v for v in numbers if isinstance(v, bool) or not isinstance(v, int) or v not in known]
    if bad and not classes:
        raise InputError(f"label: this model was trained without labels (data.labels = false), got {value!r}")
    require(len(given) == n, "label", f"one label or {n} of them", given)
    if bad:
        none = "-1 for none, " if unlabeled else ""
        raise InputError(f"label: must be {none}0 to {len(classes) - 1} or one of {', '.join(classes)}, got {bad[0]!r}")
    return torch.tensor(numbers, device=device)
