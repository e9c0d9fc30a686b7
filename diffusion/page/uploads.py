"""Photographs and masks that are handed to the page: they come in a stream, bounded, and stay as they are."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from diffusion.errors import InputError
from diffusion.files import TEMPORARY
from diffusion.page import answers, images, kept
from diffusion.page.answers import Refusal, answer
from diffusion.page.kept import Upload
from diffusion.page.site import run_of, site_of
from diffusion.reporting.run_folder import RunFolder

PNG = b"\x89PNG\r\n\x1a\n"


async def add(request: Request) -> Response:
    """Keeps a photograph, or one made of a held-out example that JSON names."""
    run = await run_in_threadpool(run_of, request)
    folder = await run_in_threadpool(site_of(request).workplace, run, kept.FOLDER)
    with _temporary(folder) as place:
        if request.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
            asked = await answers.read_json(request)
            path = await run_in_threadpool(_example, run, asked, place)
        else:
            path = place / kept.cleaned(unquote(request.headers.get("x-name", "")))
            await _receive(request, path)
        upload = await run_in_threadpool(_keep, path, place, folder)
    return answer(upload.to_dict(), 201)


def _example(run: RunFolder, asked: dict[str, object], place: Path) -> Path:
    """Writes the held-out example that is asked for."""
    from diffusion.page.examples import held_out

    number = answers.whole(str(asked.get("example")))
    if {*asked} != {"example"} or number is None:
        raise Refusal(400, 'the body must be {"example": ID}, with the id of a held-out example')
    return held_out(run).write(number, place)


def _keep(path: Path, place: Path, folder: Path) -> Upload:
    """Makes a received file a photograph of the run; one that it has already stays."""
    from diffusion.page import looks

    with path.open("rb") as file:
        number = hashlib.file_digest(file, "sha256").hexdigest()[: kept.DIGITS]
    run = folder.parents[1]
    if (run / kept.FOLDER / number / kept.RECORD).is_file():
        return kept.read(run, number)
    upload = looks.described(path, number, path.name)
    made = place / number
    (made / kept.ORIGINAL).mkdir(parents=True)
    path.rename(made / kept.ORIGINAL / path.name)
    upload.write(made)
    try:
        made.rename(folder / number)
    except OSError:  # Another request kept the same bytes meanwhile.
        return kept.read(run, number)
    return upload


def shown(request: Request) -> Response:
    """Returns what is known of a photograph."""
    return answer(_upload(request)[1].to_dict())


def view(request: Request) -> Response:
    """Returns a photograph as a person sees it."""
    run, upload = _upload(request)
    return images.view(request, run, _original(request, run, upload), upload.id)


def alpha(request: Request) -> Response:
    """Returns the mask that the transparency of a photograph is: black where it is to be filled."""
    from diffusion.page import looks

    run, upload = _upload(request)
    found = looks.opaque(_original(request, run, upload)) if upload.has_alpha else None
    if found is None:
        raise Refusal(404, f"nothing of {upload.name} is transparent")
    return answers.content(request, found, f"{upload.id}-alpha", "image/png")


async def add_mask(request: Request) -> Response:
    """Keeps a mask of a photograph, and says how many pixels it hides."""
    run, upload = await run_in_threadpool(_upload, request)
    folder = await run_in_threadpool(site_of(request).workplace, run, f"{kept.FOLDER}/{upload.id}/{kept.MASKS}")
    with _temporary(folder) as place:
        path = place / "mask.png"
        await _receive(request, path)
        return answer(await run_in_threadpool(_keep_mask, path, folder, _original(request, run, upload), upload), 201)


def _keep_mask(path: Path, folder: Path, image: Path, upload: Upload) -> dict[str, object]:
    """Makes a received file a mask. Raises Refusal with 415 for anything but a PNG, InputError for no mask."""
    from diffusion.page import looks

    content = path.read_bytes()
    if not content.startswith(PNG):
        raise Refusal(415, "a mask must be a PNG, white where the image is known and black where it is to be filled")
    hidden = looks.hidden_by(path, image, (upload.height, upload.width))
    number = hashlib.sha256(content).hexdigest()[: kept.DIGITS]
    path.replace(folder / f"{number}.png")
    return {"mask": number, "hidden": hidden}


def mask(request: Request) -> Response:
    """Returns a mask of a photograph."""
    run, upload = _upload(request)
    try:
        path = kept.mask(run.path, upload.id, request.path_params["mask"])
    except InputError as error:
        raise Refusal(404, str(error)) from error
    if not site_of(request).holds(path):
        raise Refusal(404, "there is no such mask")
    return answers.file(request, path, "image/png")


def _upload(request: Request) -> tuple[RunFolder, Upload]:
    """The run and the photograph that an address names. Raises Refusal with 404 where there is none."""
    run = run_of(request)
    try:
        upload = kept.read(run.path, request.path_params["upload"])
    except InputError as error:
        raise Refusal(404, str(error)) from error
    if not site_of(request).holds(kept.folder_of(run.path, upload.id)):
        raise Refusal(404, f"{upload.name}: leads out of the runs that this page shows")
    return run, upload


def _original(request: Request, run: RunFolder, upload: Upload) -> Path:
    path = kept.original(run.path, upload.id)
    if not site_of(request).holds(path):
        raise Refusal(404, f"{upload.name}: is not there any more; hand it over again")
    return path


async def _receive(request: Request, path: Path) -> None:
    """Writes a body into a file as it comes. Raises Refusal with 400 for an empty one."""
    size = 0
    with path.open("wb") as file:
        async for chunk in request.stream():
            size += len(chunk)
            await asyncio.to_thread(file.write, chunk)
    if not size:
        raise Refusal(400, "the body is empty; send the bytes of the file")


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A folder beside what is kept, which is gone afterwards."""
    made = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
