"""Images between two, as `diffusion sample --interpolate` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from diffusion.commands.options.common import DrawArguments
from diffusion.page.work.given import CONFIG, Guidance, Image, Label
from diffusion.page.work.kind import File, Kind, Outcome, ended
from diffusion.page.work.place import Place
from diffusion.page.work.sample import drawn
from diffusion.page.work.watching import watched


@dataclass(frozen=True)
class Interpolate(Kind):
    """Make n images from `a` to `b`, both of them among these."""

    __pydantic_config__ = CONFIG

    a: Image
    b: Image
    n: Annotated[int, Field(ge=2, le=64)] = 8
    label: Label | None = None
    guidance: Guidance | None = None

    def check(self, place: Place) -> None:
        """Raises InputError where there are no such images."""
        self.a.path(place, "a")
        self.b.path(place, "b")

    def carry_out(self, place: Place) -> Outcome:
        """Writes the images."""
        from diffusion.commands import options
        from diffusion.commands.sample import sample
        from diffusion.model import load

        draw = DrawArguments(n=self.n, label=self.label, guidance=self.guidance)
        ends = self.a.path(place, "a"), self.b.path(place, "b")
        # How many steps an adaptive solver takes is not known before.
        with watched(load(place.run), "following the flow", "image"):
            ended(sample(options.Sample(place.run, draw, out=place.out, interpolate=ends)))
        return Outcome()

    def files(self, place: Place) -> list[File]:
        """The images and their picture."""
        return drawn(place, "variant")
