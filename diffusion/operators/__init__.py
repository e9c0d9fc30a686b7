"""What damaged an image: operators A of y = A(x) + noise."""

from diffusion.operators.base import Chain, Composition, Linear, Operator, Tangent, compose, conjugate_gradients
from diffusion.operators.pointwise import Grayscale, Identity, Mask, Matrix

__all__ = [
    "Chain",
    "Composition",
    "Grayscale",
    "Identity",
    "Linear",
    "Mask",
    "Matrix",
    "Operator",
    "Tangent",
    "compose",
    "conjugate_gradients",
]
