"""What options of jobs may be: values within bounds, and images by their ids. It knows nothing of torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from diffusion.commands.options.common import DrawArguments, SamplerName
from diffusion.errors import InputError
from diffusion.page.choices import PRIVATE
from diffusion.page.work.kind import Kind
from diffusion.page.work.place import Place

# Values of another type are refused, and so are names that no option has.
CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


# The links of a chain of operators, and the largest number in one: a kernel as wide as that takes a while.
LINKS, LARGEST = 8, 360
NUMBER = re.compile(r"=([^,+]*)")


def _bounded(text: str) -> str:
    """Refuses an operator that would read a file of this machine, or that asks for more than it should."""
    if any(part.partition(":")[0].strip().lower() == PRIVATE for part in text.split("+")):
        raise ValueError(f"must not be {PRIVATE}, which reads a file of this machine; use diffusion restore")
    if text.count("+") >= LINKS:
        raise ValueError(f"must have at most {LINKS} parts")
    for value in NUMBER.findall(text):
        try:
            large = not abs(float(value)) <= LARGEST
        except ValueError:
            continue
        if large:
            raise ValueError(f"must not have numbers above {LARGEST}")
    return text


# The seeds that a browser can state: whole numbers that its floats hold.
Seed = Annotated[int, Field(ge=0, le=2**53 - 1)]
Steps = Annotated[int, Field(ge=1, le=1000)]
Guidance = Annotated[float, Field(ge=0, le=100)]
Label = Annotated[str, Field(max_length=200)]
Noise = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=0, le=512)]
Variants = Annotated[int, Field(ge=1, le=64)]
Operator = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_bounded)]
# The id of an upload, of a mask or of a job, and the name of a file of a job.
Id = Annotated[str, Field(pattern=r"\A[0-9a-f]{16}\z")]
FileName = Annotated[str, Field(min_length=1, max_length=200)]


@dataclass(frozen=True)
class Image:
    """An image: an `upload`, or a `file` that another `job` of the same run made."""

    __pydantic_config__ = CONFIG

    upload: Id | None = None
    job: Id | None = None
    file: FileName | None = None

    def path(self, place: Place, field: str) -> Path:
        """Returns its file. Raises InputError where it is not named by one of both, or there is none."""
        if self.upload is not None and self.job is self.file is None:
            return place.upload(self.upload)
        if self.upload is None and self.job is not None and self.file is not None:
            return place.result(self.job, self.file, field)
        raise InputError(f"{field}: must be the id of an upload, or a job with the name of one of its files")


@dataclass(frozen=True)
class Sourced(Kind):
    """A job on one image."""

    upload: Id | None = None
    job: Id | None = None
    file: FileName | None = None

    def image(self, place: Place) -> Path:
        """Returns the file of the image. Raises InputError as `Image.path` does."""
        return Image(self.upload, self.job, self.file).path(place, "upload")

    def check(self, place: Place) -> None:
        """Raises InputError where there is no such image."""
        self.image(place)


@dataclass(frozen=True)
class Drawing(Kind):
    """A job that draws samples."""

    seed: Seed = 0
    label: Label | None = None
    guidance: Guidance | None = None
    steps: Steps | None = None
    sampler: SamplerName | None = None

    def draw(self, n: int) -> DrawArguments:
        """Returns the arguments that draw n samples."""
        return DrawArguments(
            n=n, seed=self.seed, label=self.label, guidance=self.guidance, steps=self.steps, sampler=self.sampler
        )
