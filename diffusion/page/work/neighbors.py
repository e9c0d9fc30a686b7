"""The two training images nearest to an image, as `diffusion evaluate --memorization` finds them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion.errors import require
from diffusion.page.work.given import CONFIG, Sourced
from diffusion.page.work.kind import File, Outcome, numbered
from diffusion.page.work.place import Place

# The results of a search for copies, of which one of the plain settings comes first.
MEASURED = "evaluation-memorization*.json"


@dataclass(frozen=True)
class Nearest(Sourced):
    """Find the training images nearest to an image."""

    __pydantic_config__ = CONFIG

    def carry_out(self, place: Place) -> Outcome:
        """Writes both training images; the numbers say how far they are, and which ratios were taken for copies."""
        from diffusion import figures
        from diffusion.commands.measured import data_options, open_examples
        from diffusion.commands.options import Evaluate
        from diffusion.evaluation.finding import Finder
        from diffusion.evaluation.memorization import Memorization
        from diffusion.evaluation.sets import units
        from diffusion.model import load

        model = load(place.run)
        require(model.spec.is_image, "nearest", "left out for a model of points", place.run.name)
        options = data_options(Evaluate(place.run), model)
        training, held_out = open_examples(model, options, place.run)
        _, image = open_examples(model, options, place.run, self.image(place))
        assert training is not None
        finder = Finder.of_pixels(training, Memorization().shift_of(model), shared=False, progress=True)
        found = finder.neighbors(units(image, range(1)), finder.same(held_out) if len(held_out) else 0.0)
        numbers, distances = found.numbers[0].tolist(), found.distances[0].tolist()
        for i, x in enumerate(units(training, numbers)):
            figures.save_png(x, place.job / f"nearest-{i}.png", {"training": training.names[numbers[i]]})
        near = [{"name": training.names[n], "distance": far} for n, far in zip(numbers, distances, strict=True)]
        return Outcome({"near": near, "ratio": float(found.ratios[0]), **_measured(place.run, model.step)})

    def files(self, place: Place) -> list[File]:
        """The training images, the nearest first."""
        return numbered(place, place.job.glob("nearest-*.png"), "nearest")


def _measured(run: Path, step: int) -> dict[str, Any]:
    """The ratio below which a search for copies among samples of this step flagged them, and the share of unseen images
    that it flags; empty without one.
    """
    for path in sorted(run.glob(MEASURED), key=lambda path: len(path.name)):
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["step"] == step:
                threshold, unseen = stored["found"]["pixels"]["threshold"], stored["shares"]["flagged, unseen"]["value"]
                return {"threshold": float(threshold), "unseen": float(unseen)}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
    return {}
