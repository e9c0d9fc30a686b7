"""The application: its addresses, and who answers at each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Route

from diffusion.page import data_api, events, files, images, jobs_api, runs, uploads
from diffusion.page.answers import HANDLERS
from diffusion.page.queue import Queue
from diffusion.page.site import Site

API = "/api/v1"
# The name of a run, which may have slashes: it lies in folders. So the address of a run itself comes last.
RUN = f"{API}/runs/{{name:path}}"

ROUTES = [
    Route("/", files.index),
    Route("/static/{file:path}", files.static),
    Route("/parts/{file:path}", files.part),
    Route(f"{API}/events", events.events),
    Route(f"{API}/runs", runs.listed),
    *jobs_api.routes(API, RUN),
    Route(f"{RUN}/curves", runs.drawn),
    Route(f"{RUN}/grids/{{step}}", images.grid),
    Route(f"{RUN}/pictures/{{file}}", images.picture),
    Route(f"{RUN}/requests", runs.asked, methods=["POST"]),
    Route(f"{RUN}/examples", data_api.listed),
    Route(f"{RUN}/examples/{{number}}", data_api.example),
    Route(f"{RUN}/data", data_api.inspected),
    Route(f"{RUN}/uploads", uploads.add, methods=["POST"]),
    Route(f"{RUN}/uploads/{{upload}}", uploads.shown),
    Route(f"{RUN}/uploads/{{upload}}/view", uploads.view),
    Route(f"{RUN}/uploads/{{upload}}/alpha", uploads.alpha),
    Route(f"{RUN}/uploads/{{upload}}/masks", uploads.add_mask, methods=["POST"]),
    Route(f"{RUN}/uploads/{{upload}}/masks/{{mask}}", uploads.mask),
    Route(RUN, runs.shown),
]


def application(root: Path, address: str = "") -> Starlette:
    """Returns the application of the runs in a folder, or of one run: `state.site` shows them, `state.queue` works.

    `address` is what another page calls it by that would carry out jobs of the same runs.
    """
    site = Site(root)
    queue = Queue(site.folders(), lambda job: site.events.tell("job", job), address)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(site.events.watch(site.summaries))
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await asyncio.to_thread(queue.close)

    app = Starlette(routes=ROUTES, exception_handlers=HANDLERS, lifespan=lifespan)
    app.state.site = site
    app.state.queue = queue
    return app
