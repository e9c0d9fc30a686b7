"""What a chain of operators does to an image, link by link, as `diffusion restore --damage` does it."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion.errors import InputError
from diffusion.page.work.given import CONFIG, Noise, Operator, Seed, Sourced
from diffusion.page.work.kind import File, Outcome, numbered
from diffusion.page.work.place import Place


@dataclass(frozen=True)
class Degrade(Sourced):
    """Damage an image by an operator, and add noise."""

    __pydantic_config__ = CONFIG

    operator: Operator | None = None
    noise: Noise | None = None
    seed: Seed = 0
    resize: bool = False

    def check(self, place: Place) -> None:
        """Raises InputError where there is no such image, or no operator."""
        super().check(place)
        if self.operator is None:
            raise InputError("operator: is needed for degrade, as in blur:sigma=2")

    def carry_out(self, place: Place) -> Outcome:
        """Writes the image after each link of the chain, the last with the noise."""
        from diffusion import figures
        from diffusion.commands import options
        from diffusion.commands.options.common import DrawArguments
        from diffusion.commands.photographs import tasks
        from diffusion.commands.photographs.listing import list_images
        from diffusion.model import load

        assert self.operator is not None
        model, (file,) = load(place.run), list_images([self.image(place)])
        links = self.operator.split("+")
        drawn = options.Restorations(DrawArguments(seed=self.seed), resize=self.resize)
        for number in range(len(links)):
            last = number == len(links) - 1
            chain, noise = "+".join(links[: number + 1]), self.noise if last else 0.0
            command = options.Restore(place.run, (file.path,), chain, noise=noise, damage=True, options=drawn)
            task = tasks.damaged(model, command, 0, file)
            info = {"operator": chain, "noise": noise, "seed": self.seed}
            figures.save_png(task.damaged, place.job / f"damaged-{number}.png", info)
        return Outcome({"links": links})

    def files(self, place: Place) -> list[File]:
        """The image after each link; the whole chain comes first."""
        return numbered(place, place.job.glob("damaged-*.png"), "damaged")[::-1]
