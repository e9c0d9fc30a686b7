"""What the page says of the data of a run: its held-out examples, and what `diffusion inspect` found."""

from __future__ import annotations

import hashlib

from starlette.requests import Request
from starlette.responses import Response

from diffusion.page import answers
from diffusion.page.answers import Refusal, answer
from diffusion.page.job import jobs_in
from diffusion.page.site import run_of

# The examples of one answer.
MOST = 1000


def listed(request: Request) -> Response:
    """Lists some of the held-out examples, by number."""
    from diffusion.page.examples import held_out

    first, n = answers.number(request, "first", 0, 0, 10**9 - 1), answers.number(request, "n", 48, 1, MOST)
    found = held_out(run_of(request))
    numbers = range(min(first, len(found)), min(first + n, len(found)))
    shown = [{"id": str(number), "label": found.label(number)} for number in numbers]
    return answer({"total": len(found), "examples": shown})


def example(request: Request) -> Response:
    """Returns a picture of an example."""
    from diffusion.page import looks
    from diffusion.page.examples import held_out

    run, number = run_of(request), answers.whole(request.path_params["number"])
    if number is None:
        raise Refusal(404, "examples have numbers, from 0")
    found = held_out(run)
    content = looks.example_picture(found.stored(number), found.examples.spec)
    return answers.content(request, content, hashlib.sha256(content).hexdigest()[:32], "image/png")


def inspected(request: Request) -> Response:
    """Returns what the newest job of kind "inspect" found. Raises Refusal with 404 where there was none."""
    jobs = (job for job in jobs_in(run_of(request).path) if job.kind == "inspect" and job.state == "done")
    newest = max(jobs, key=lambda job: job.made, default=None)
    if newest is None:
        raise Refusal(404, 'the data of this run were not looked through yet; queue a job of kind "inspect"')
    return answer(newest.numbers)
