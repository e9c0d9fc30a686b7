"""The pictures of runs: grids of samples by step, others by name, and images of any kind as a person sees them."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from diffusion.page import answers
from diffusion.page.answers import Refusal
from diffusion.page.site import run_of, site_of
from diffusion.reporting.run_folder import RunFolder

# The longer side of a view, in pixels.
SIDE, SIDES = 2048, (16, 8192)


def grid(request: Request) -> Response:
    """Returns the grid of a step."""
    run, step = run_of(request), answers.whole(request.path_params["step"])
    return _picture(request, None if step is None else run.grid(step), "there is no grid of this step")


def picture(request: Request) -> Response:
    """Returns a picture by a name that the run lists."""
    name = request.path_params["file"]
    return _picture(request, run_of(request).picture(name), f"this run has no picture {name!r}")


def _picture(request: Request, path: Path | None, otherwise: str) -> Response:
    """Returns a file. Raises Refusal with 404 where there is none, or it is a link that leads out of the runs."""
    if path is None or not site_of(request).holds(path):
        raise Refusal(404, otherwise)
    return answers.file(request, path, "image/png")


def view(request: Request, run: RunFolder, path: Path, tag: str) -> Response:
    """Returns an image file as a person sees it: a PNG, whose black and white are those of the data of a run."""
    from diffusion.page import looks

    side, ends = answers.number(request, "side", SIDE, *SIDES), run.spec.get("value_range")
    low_high = (float(ends[0]), float(ends[1])) if ends else None
    return answers.made(request, lambda: looks.view(path, side, low_high), f"{tag}-{side}-{low_high}", "image/png")
