"""Operators A of observations y = A(x) + noise: masks, blurs, downsampling and other damage to an image."""

from diffusion.operators.blur import Blur, BoxBlur, GaussianBlur, KernelBlur, MotionBlur
from diffusion.operators.downsample import Downsample
from diffusion.operators.jpeg import JPEG
from diffusion.operators.linear import Crop, Grayscale, Identity, Mask, Matrix, Selection
from diffusion.operators.operator import Chain, Composition, Linear, Operator, Tangent, compose, conjugate_gradients
from diffusion.operators.registry import OPERATORS, parse
from diffusion.operators.standardize import Standardized, standardized

__all__ = [
    "JPEG",
    "OPERATORS",
    "Blur",
    "BoxBlur",
    "Chain",
    "Composition",
    "Crop",
    "Downsample",
    "GaussianBlur",
    "Grayscale",
    "Identity",
    "KernelBlur",
    "Linear",
    "Mask",
    "Matrix",
    "MotionBlur",
    "Operator",
    "Selection",
    "Standardized",
    "Tangent",
    "compose",
    "conjugate_gradients",
    "parse",
    "standardized",
]
