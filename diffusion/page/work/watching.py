"""Progress of work whose own bars move only at its end, by what its network is asked meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from diffusion.progress import bar

if TYPE_CHECKING:
    from torch import Tensor, nn

    from diffusion.model import Model


@contextmanager
def watched(model: Model, title: str, unit: str, total: int | None = None) -> Iterator[None]:
    """Tells how many examples the network of a model has seen, of `total` if their number is known before."""
    with bar(total, title, unit) as moving:

        def count(network: nn.Module, given: tuple[Tensor, ...], found: object) -> None:
            moving.update(len(given[0]))

        network = cast("nn.Module", model.denoiser.backbone)
        hook = network.register_forward_hook(count)
        try:
            yield
        finally:
            hook.remove()
