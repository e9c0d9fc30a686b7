"""The files of the front end: those of the page, and the parts that it shares with reports."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

import diffusion
from diffusion.page import answers
from diffusion.page.answers import TYPES, Refusal

STATIC = Path(__file__).parent / "static"
PARTS = Path(diffusion.__file__).parent / "reporting" / "parts"


def index(request: Request) -> Response:
    """Returns the page itself."""
    return answers.file(request, STATIC / "index.html")


def static(request: Request) -> Response:
    """Returns a file of the page."""
    return _listed(request, STATIC)


def part(request: Request) -> Response:
    """Returns a part that pages and reports share."""
    return _listed(request, PARTS)


def _listed(request: Request, folder: Path) -> Response:
    """Returns a file by a name that is in the listing of a folder. Raises Refusal with 404 for others."""
    name = request.path_params["file"]
    for path in folder.rglob("*"):
        if path.suffix in TYPES and path.is_file() and path.relative_to(folder).as_posix() == name:
            return answers.file(request, path)
    raise Refusal(404, "the page has no such file")
