"""The kinds of jobs, a file each: their options, the command that carries them out, and the files that come of it.

Their options are checked in the page, which must not wait for torch: they import it where they are carried out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from diffusion.errors import InputError, nearest, require_one
from diffusion.page.work.degrade import Degrade
from diffusion.page.work.inpaint import Inpaint
from diffusion.page.work.inspect import Inspect
from diffusion.page.work.interpolate import Interpolate
from diffusion.page.work.kind import File, Kind, Outcome
from diffusion.page.work.likelihood import Likelihood
from diffusion.page.work.neighbors import Nearest
from diffusion.page.work.restore import Restore
from diffusion.page.work.sample import Sample
from diffusion.page.work.vary import Vary

__all__ = ["KINDS", "File", "Kind", "Outcome", "parse"]

KINDS: dict[str, type[Kind]] = {
    "degrade": Degrade,
    "inpaint": Inpaint,
    "inspect": Inspect,
    "interpolate": Interpolate,
    "likelihood": Likelihood,
    "nearest": Nearest,
    "restore": Restore,
    "sample": Sample,
    "vary": Vary,
}
# How the errors of pydantic begin, and ours.
WORDS = {
    "Input should be": "must be",
    "String should": "must",
    "Value error, ": "",
    "match pattern": "be an id, like",
    "Unexpected keyword argument": "is no part of it",
}
# The characters of a value that an error repeats.
SHOWN = 60


def parse(kind: object, options: Mapping[str, Any]) -> Kind:
    """Returns a job of a kind with its options checked. Raises InputError that names the option and its bounds."""
    require_one(kind, "kind", KINDS)
    cls = KINDS[str(kind)]
    try:
        return _adapter(cls).validate_json(json.dumps(options))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(_told(cls, str(kind), first)) from None


@cache
def _adapter(cls: type[Kind]) -> TypeAdapter[Kind]:
    return TypeAdapter(cls)


def _told(cls: type[Kind], kind: str, error: Mapping[str, Any]) -> str:
    """What is wrong with an option, in one line."""
    name, known = ".".join(map(str, error["loc"])) or kind, [field.name for field in fields(cls)]  # type: ignore[arg-type]
    if error["type"] == "unexpected_keyword_argument" and len(error["loc"]) == 1:
        takes = ", ".join(known) or "none"
        return f"{name}: is no option of {kind}{nearest(name, known)}; there are {takes}"
    if error["type"] in ("missing", "missing_argument"):
        return f"{name}: is needed for {kind}"
    value = repr(error["input"])
    value = value if len(value) <= SHOWN else f"{value[: SHOWN - 1]}…"
    said = str(error["msg"])
    for beginning, ours in WORDS.items():
        said = said.replace(beginning, ours)
    return f"{name}: {said}, got {value}"
