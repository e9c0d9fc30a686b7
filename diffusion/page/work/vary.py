"""Variations of an image, as `diffusion sample --vary` draws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from diffusion.page.work.given import CONFIG, Drawing, Sourced, Variants
from diffusion.page.work.kind import File, Outcome, ended
from diffusion.page.work.place import Place
from diffusion.page.work.sample import drawn


@dataclass(frozen=True)
class Vary(Sourced, Drawing):
    """Draw n variations of an image, which go as far as `level` says, from 0, the image itself, to 1, new samples."""

    __pydantic_config__ = CONFIG

    level: Annotated[float, Field(ge=0, le=1)] = 0.5
    n: Variants = 8

    def carry_out(self, place: Place) -> Outcome:
        """Writes the variations."""
        from diffusion.commands import options
        from diffusion.commands.sample import sample

        image, draw = self.image(place), self.draw(self.n)
        ended(sample(options.Sample(place.run, draw, out=place.out, vary=image, level=self.level)))
        return Outcome()

    def files(self, place: Place) -> list[File]:
        """The variations and their picture."""
        return drawn(place, "variant")
