"""Fillings of what a mask hides of an image, as `diffusion inpaint` draws them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusion.errors import InputError
from diffusion.page.work.given import CONFIG, Id, Noise, Pixels
from diffusion.page.work.kind import Outcome, ended
from diffusion.page.work.place import Place
from diffusion.page.work.restoring import Restoring, outcome


@dataclass(frozen=True)
class Inpaint(Restoring):
    """Fill what is black in a `mask` of an upload, or without one what is transparent."""

    __pydantic_config__ = CONFIG

    mask: Id | None = None
    grow: Pixels | None = None
    feather: Pixels = 0
    noise: Noise = 0.0

    def check(self, place: Place) -> None:
        """Raises InputError where there is no such image, or no such mask of it."""
        super().check(place)
        self._mask(place)

    def carry_out(self, place: Place) -> Outcome:
        """Writes the fillings and what is known of them."""
        from diffusion.commands import options
        from diffusion.commands.restore import inpaint

        command = options.Inpaint(
            place.run,
            (self.image(place),),
            mask=self._mask(place),
            grow=self.grow or None,
            feather=self.feather,
            noise=self.noise,
            options=self.restorations(place),
        )
        ended(inpaint(command))
        return outcome(place)

    def _mask(self, place: Place) -> Path | None:
        if self.mask is None:
            return None
        if self.upload is None:
            raise InputError("mask: is one of an upload; hand the image of the job over as one")
        return place.mask(self.upload, self.mask)
