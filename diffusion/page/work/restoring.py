"""What the kinds of jobs that restore an image share: the options of drawing, and the files and numbers of results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from PIL import Image

from diffusion.commands.options import Restorations
from diffusion.commands.options.common import MethodName
from diffusion.page.work.given import Drawing, Sourced, Variants
from diffusion.page.work.kind import File, Outcome, named, numbered
from diffusion.page.work.place import Place

# The files of results by their names without suffix, and what they show.
ROLES = {
    "mean": "mean",
    "std": "deviation",
    "low": "low",
    "high": "high",
    "restoration": "picture",
    "damaged": "damaged",
}
RECORD, DEVIATION = "restoration.json", "std.png"
# What is said in numbers of results, as far as it is known.
DIAGNOSTICS = ("method", "steps", "seconds", "residual", "nfe", "windows", "parts", "relative_ess", "log_evidence")
NOTED = ("seed", "noise", "filled", "psnr_of_mean", "coverage_90")


@dataclass(frozen=True)
class Restoring(Sourced, Drawing):
    """A job that draws n restorations of an image."""

    n: Variants = 4
    method: MethodName = "auto"
    resize: bool = False

    def restorations(self, place: Place) -> Restorations:
        """Returns the options of the command that restores into the folder of the job."""
        return Restorations(self.draw(self.n), self.method, place.out, self.resize)

    def files(self, place: Place) -> list[File]:
        """The variants, their statistics, and their picture."""
        variants = place.out.glob("restored-*.*")
        there = {f"{stem}{suffix}": role for stem, role in ROLES.items() for suffix in (".png", ".tif")}
        return [*numbered(place, variants, "variant"), *named(place, there)]


def outcome(place: Place) -> Outcome:
    """Returns the numbers of results that are written: of their drawing, and what white is in their deviation."""
    record = json.loads((place.out / RECORD).read_text(encoding="utf-8"))
    numbers: dict[str, Any] = {name: record["diagnostics"].get(name) for name in DIAGNOSTICS}
    numbers |= {name: record.get(name) for name in NOTED}
    with Image.open(place.out / DEVIATION) as picture:
        numbers["white"] = json.loads(picture.info["diffusion"])["white"]
    return Outcome({name: value for name, value in numbers.items() if value is not None})
