"""A denoiser that counts its evaluations and its backward passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from diffusion import levels
from diffusion.denoiser import AnyDenoiser, Prediction
from diffusion.schedules import Schedule


@dataclass
class CountingDenoiser:
    """A wrapped denoiser that counts its evaluations, `nfe`, and the backward passes through them, `backward`.

    An evaluation of a batch counts once, whatever the size of the batch. `watch` is called with the time t of each
    before it begins, None for a map, which does not tell it, and `watch_backward` at the beginning of each backward
    pass. `seen` is called with each estimate.
    """

    denoiser: AnyDenoiser
    watch: Callable[[Tensor | None], None] = lambda t: None
    watch_backward: Callable[[], None] = lambda: None
    seen: Callable[[Tensor], None] = lambda mean: None
    nfe: int = 0
    backward: int = 0

    @property
    def schedule(self) -> Schedule:
        """The schedule of the denoiser."""
        return self.denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Evaluates the denoiser and counts it. x_t: (B, C, *); t: () or (B,) or a map; label: (B,)."""
        self.nfe += 1
        self.watch(None if levels.is_map(t, x_t) else t)
        prediction = self.denoiser(x_t, t, label)
        self.seen(prediction.mean)
        if prediction.mean.requires_grad:
            prediction.mean.register_hook(self._count)  # type: ignore[no-untyped-call]
        return prediction

    def _count(self, gradient: Tensor) -> None:
        self.backward += 1
        self.watch_backward()
