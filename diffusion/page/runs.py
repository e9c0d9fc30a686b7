"""What the page says of runs: the list, each run, its curves; and what it asks of one that trains."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from diffusion.errors import InputError
from diffusion.page import answers
from diffusion.page.answers import Refusal, answer
from diffusion.page.choices import choices
from diffusion.page.site import run_of, site_of
from diffusion.reporting.requests import REQUESTS, ask
from diffusion.reporting.summary import curves, summary


def listed(request: Request) -> Response:
    """Returns the summaries of all runs, the last that changed first."""
    found = sorted(site_of(request).summaries().values(), key=lambda one: -(one["updated"] or 0))
    return answer({"runs": found})


def shown(request: Request) -> Response:
    """Returns all that is known of a run, and what can be chosen where it is sampled from."""
    run = run_of(request)
    return answer(
        {
            **summary(run),
            "name": request.path_params["name"],
            "config": run.config,
            "grid_steps": run.grids,
            "pictures": run.pictures,
            "evaluation": run.evaluation,
            "sources": run.sources,
            "incident_lines": run.incidents,
            "machine": run.machine,
            **choices(),
            "sampling": {
                "sampler": run.option("sampler", "name"),
                "steps": run.option("sampling", "steps"),
                "guidance": run.option("sampling", "guidance"),
            },
        }
    )


def drawn(request: Request) -> Response:
    """Returns the curves of a run."""
    return answer(curves(run_of(request)))


async def asked(request: Request) -> Response:
    """Asks a training for a grid of samples, or to save and stop.

    Raises Refusal: 400 for anything else, 409 where nothing trains.
    """
    what = (await answers.read_json(request)).get("do")
    if what not in REQUESTS:
        raise Refusal(400, f'the body must be {{"do": "sample"}} or {{"do": "stop"}}, got {str(what)[:40]!r} for "do"')
    run = await run_in_threadpool(run_of, request)
    try:
        await run_in_threadpool(ask, run, what)
    except InputError as error:
        raise Refusal(409, str(error)) from error
    return answer({"do": what}, 202)
