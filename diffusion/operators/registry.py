"""Operators by name, as `blur:sigma=2`, `downsample:factor=4,filter=bicubic` or `blur:sigma=1+downsample:factor=2`.

A file of this folder that defines operators which a text can name ends with a dict literal `OPERATORS` from names to
classes, so that a new operator is one new file, or a few lines in one.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from diffusion.errors import InputError
from diffusion.operators.blur import KernelBlur
from diffusion.operators.operator import Operator, compose
from diffusion.registries import collect, parse_fields

OPERATORS: dict[str, type[Operator]] = collect("diffusion.operators", "OPERATORS")

# What people call the undoing of some damage, and the damage.
UNDONE = {
    "colorize": "gray",
    "deblock": "jpeg:quality=...",
    "deblur": "blur:sigma=...",
    "denoising": "denoise",
    "grayscale": "gray",
    "noise": "denoise",
    "sr": "downsample:factor=...",
    "superresolution": "downsample:factor=...",
    "super-resolution": "downsample:factor=...",
    "upscale": "downsample:factor=...",
}


def parse(text: str, *, read_kernel: Callable[[str], Tensor] | None = None, happened: bool = False) -> Operator:
    """Returns the operator that a text names: `name:field=value,field=value`, or several joined by `+`, which act from
    left to right.

    `read_kernel` reads the kernel of a blur, (h, w), from the file that `kernel:file=...` names. With `happened` the
    text states damage that an image has already: how strong it was must be said, as nothing here finds it out.

    Raises InputError that quotes the part that is not understood and says what would be.
    """
    first, *others = (_part(part.strip(), read_kernel, happened=happened) for part in text.split("+"))
    for operator in others:
        first = compose(operator, first)
    return first


def _part(text: str, read_kernel: Callable[[str], Tensor] | None, *, happened: bool) -> Operator:
    name = text.partition(":")[0].strip().lower()
    if name in UNDONE:
        raise InputError(f"operator: must name what damaged the image, as in {UNDONE[name]}, got {text!r}")
    if name == "blind":
        raise InputError(
            "operator: must say how the image was damaged, as in blur:sigma=2, got 'blind'; nothing here estimates a "
            "blur: try several, and take the one whose residual is nearest to 1"
        )
    kind, given = parse_fields(text, OPERATORS, "operator")
    if kind.essential and not given.keys() & set(kind.essential) and (happened or kind is KernelBlur):
        examples = " or ".join(f"{name}:{field}=..." for field in kind.essential)
        raise InputError(
            f"operator {name}: must say how strong the damage was, as in {examples}; it is not estimated from the "
            "image: try several, and take the one whose residual is nearest to 1"
        )
    operator = kind(**given)
    if isinstance(operator, KernelBlur):
        if read_kernel is None:
            raise InputError(f"operator kernel: must be given as KernelBlur(values=...) here, got {text!r}")
        return operator.loaded(read_kernel)
    return operator
