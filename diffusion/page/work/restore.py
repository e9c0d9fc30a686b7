"""Restorations of a damaged image, as `diffusion restore` draws them."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion.errors import InputError
from diffusion.page.work.given import CONFIG, Noise, Operator
from diffusion.page.work.kind import Outcome, ended
from diffusion.page.work.place import Place
from diffusion.page.work.restoring import Restoring, outcome


@dataclass(frozen=True)
class Restore(Restoring):
    """Undo what an operator did to an image, or with `damage` damage a whole image by it first."""

    __pydantic_config__ = CONFIG

    operator: Operator | None = None
    noise: Noise | None = None
    damage: bool = False

    def check(self, place: Place) -> None:
        """Raises InputError where there is no such image, or no operator."""
        super().check(place)
        self._operator()

    def carry_out(self, place: Place) -> Outcome:
        """Writes the restorations and what is known of them."""
        from diffusion.commands import options
        from diffusion.commands.restore import restore

        command = options.Restore(
            place.run,
            (self.image(place),),
            self._operator(),
            noise=self.noise,
            damage=self.damage,
            options=self.restorations(place),
        )
        ended(restore(command))
        return outcome(place)

    def _operator(self) -> str:
        if self.operator is None:
            raise InputError("operator: is needed for restore, as in blur:sigma=2")
        return self.operator
