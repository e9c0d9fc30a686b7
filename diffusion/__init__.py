"""Diffusion models of a folder of images: train, sample, restore, and measure the likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusion.exchange.loading import load as load
    from diffusion.model import Model as Model

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> object:
    # torch takes seconds to import, and `diffusion --help` does not need it.
    if name == "Model":
        from diffusion.model import Model

        return Model
    if name == "load":
        from diffusion.exchange.loading import load

        return load
    raise AttributeError(f"module 'diffusion' has no attribute {name!r}")
