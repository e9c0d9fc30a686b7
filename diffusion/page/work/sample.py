"""Samples, as `diffusion sample` draws them, and the way of the first ones from noise as a film of frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from diffusion.page.work.given import CONFIG, Drawing
from diffusion.page.work.kind import File, Outcome, ended, named, numbered
from diffusion.page.work.place import Place

if TYPE_CHECKING:
    from diffusion.commands import options

# The samples of a film, and its frames at most. Their names end with the log-SNR of their noise.
FILMED, FRAMES = 4, 48


@dataclass(frozen=True)
class Sample(Drawing):
    """Draw n samples, with `film` their way from noise too."""

    __pydantic_config__ = CONFIG

    n: Annotated[int, Field(ge=1, le=1024)] = 16
    film: bool = False

    def carry_out(self, place: Place) -> Outcome:
        """Draws the samples into files, and the film."""
        from diffusion.commands import options
        from diffusion.commands.sample import sample

        chosen = options.Sample(place.run, self.draw(self.n), out=place.out)
        ended(sample(chosen))
        if self.film:
            _film(chosen, place)
        return Outcome()

    def files(self, place: Place) -> list[File]:
        """The samples, their picture and the frames."""
        frames = [
            File(path.name, "frame", int(path.stem.split("_")[1]), float(path.stem.split("_")[2]))
            for path in sorted(place.job.glob("frame_*.png"))
        ]
        film = [File(path.name, "film") for path in place.job.glob("film.gif")]
        return [*drawn(place, "sample"), *frames, *film]


def drawn(place: Place, role: str) -> list[File]:
    """Returns the images that `diffusion sample` has written, and the picture of the first ones."""
    images = (path for path in place.out.glob("*.*") if path.stem.isdecimal())
    return [*numbered(place, images, role), *named(place, {"samples.png": "picture"})]


def _film(chosen: options.Sample, place: Place) -> None:
    """Writes the frames of a trajectory from noise to the first samples, and an animation of them."""
    import torch

    from diffusion import figures
    from diffusion.commands.samples.ways import given
    from diffusion.draw import DrawOptions
    from diffusion.model import load
    from diffusion.progress import bar

    model = load(chosen.run)
    rows = min(chosen.draw.n, FILMED)
    steps = chosen.draw.steps or model.film_steps
    part: DrawOptions = {**given(chosen, model, range(rows)), "steps": steps}
    with bar(rows, "filming", "image") as moving:
        path = [(t, x.cpu()) for t, x in model.trajectory(rows, **part)]
        moving.update(rows)
    shown = sorted({round(i) for i in torch.linspace(0, len(path) - 1, min(FRAMES, len(path))).tolist()})
    for number, (t, x) in enumerate(path[i] for i in shown):
        log_snr = float(model.denoiser.schedule.log_snr(torch.tensor(t, dtype=torch.float64)))
        info = {"t": t, "log_snr": log_snr}
        figures.save_png(figures.draw(x), place.job / f"frame_{number:03d}_{log_snr:.4f}.png", info)
    figures.save_animation([path[i][1] for i in shown], place.job / "film.gif")
