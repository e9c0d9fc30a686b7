"""What the page answers about jobs: queue one, list them, look at one and its files, cancel one."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from diffusion.page import answers, archive, images
from diffusion.page.answers import Refusal, answer
from diffusion.page.job import FOLDER, Job
from diffusion.page.queue import Queue
from diffusion.page.site import run_of, site_of
from diffusion.reporting.run_folder import stamp


def routes(api: str, run: str) -> list[Route]:
    """Returns the routes of jobs; `run` is the address of a run."""
    one = f"{api}/jobs/{{job}}"
    return [
        Route(f"{run}/jobs", add, methods=["POST"]),
        Route(f"{api}/jobs", listed),
        Route(one, shown),
        Route(one, cancel, methods=["DELETE"]),
        Route(f"{one}/preview", preview),
        Route(f"{one}/files/{{file:path}}", file),
    ]


def queue_of(request: Request) -> Queue:
    """Returns the queue of the application that a request came to."""
    queue: Queue = request.app.state.queue
    return queue


async def add(request: Request) -> Response:
    """Queues a job for a run."""
    run = await run_in_threadpool(run_of, request)
    asked = await answers.read_json(request)
    await run_in_threadpool(site_of(request).workplace, run, FOLDER)
    kind = asked.pop("kind", None)
    job = await run_in_threadpool(queue_of(request).add, request.path_params["name"], run.path, kind, asked)
    return answer({"id": job.id}, 201)


def listed(request: Request) -> Response:
    """Lists all jobs, the newest first."""
    return answer({"jobs": [job.to_dict() for job in queue_of(request).jobs()]})


def shown(request: Request) -> Response:
    """Returns a job."""
    return answer(_job(request).to_dict())


def cancel(request: Request) -> Response:
    """Cancels a job and returns it.

    One that has ended is returned as it ended, for whoever cancels a job cannot know that it ends at that moment.
    """
    job = _job(request)
    return answer((queue_of(request).cancel(job.id) or job).to_dict())


def file(request: Request) -> Response:
    """Returns a file that a job has listed; where a browser does not show it and `side` is asked for, as a PNG."""
    job = _job(request)
    path = queue_of(request).file(job.id, request.path_params["file"])
    if path is None:
        raise Refusal(404, f"job {job.id} has no such file")
    if path.name == archive.NAME:
        return FileResponse(path, media_type="application/zip")
    if "side" in request.query_params and path.suffix == TIFF:
        seen = stamp(path)
        return images.view(request, site_of(request).run(job.run), path, "-".join(map(str, seen or ())))
    return answers.file(request, path, KINDS.get(path.suffix))


def preview(request: Request) -> Response:
    """Returns the last picture of what a job makes."""
    job = _job(request)
    path = queue_of(request).preview(job.id)
    if path is None:
        raise Refusal(404, f"job {job.id} has shown nothing yet")
    return answers.file(request, path, "image/png")


# The types of files that jobs make, besides PNG.
TIFF = ".tif"
KINDS = {".gif": "image/gif", TIFF: "image/tiff", ".json": "application/json"}


def _job(request: Request) -> Job:
    """The job that the address of a request names. Raises Refusal with 404 if there is none."""
    job = queue_of(request).job(request.path_params["job"])
    if job is None:
        raise Refusal(404, "there is no such job; it may have been made by another page")
    return job
