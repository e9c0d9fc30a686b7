"""Answers of the page: JSON, files that a browser need not load twice, and errors as one line for a person."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ExceptionHandler

from diffusion.errors import InputError

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
# What is said for the errors of the router, by status.
LINES = {404: "there is nothing at this address", 405: "this address does not take {method}"}
# The longest error that is sent, in characters.
LONGEST = 500
# The bytes of the largest JSON that is read.
LARGEST = 2**20
# A path from the root of the system, up to its last part: at the start of a word, and not after the // of an address.
FOLDERS = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:[/\\]|/)(?:[^/\\\s'\"<>|:]+[/\\])*(?=[^/\\\s])")


class Refusal(Exception):
    """An answer that is not what was asked for: a `status`, and a `line` that says why and what to do."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status
        self.line = line


def answer(content: Mapping[str, Any], status: int = 200) -> Response:
    """Returns JSON without absolute paths; numbers that JSON does not have, such as infinity, are null."""
    return JSONResponse(plain(content), status)


def plain(content: Any) -> Any:  # noqa: ANN401, values as JSON has them
    """Returns nested values as they may leave this machine and as JSON has them."""
    if isinstance(content, str):
        return without_folders(content)
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {plain(str(name)): plain(value) for name, value in content.items()}
    return [plain(value) for value in content] if isinstance(content, list | tuple) else content


def refused(status: int, line: str) -> Response:
    """Returns an error: a status and one line without absolute paths."""
    text = " ".join(without_folders(line).split())
    return JSONResponse({"error": text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"}, status)


def without_folders(text: str) -> str:
    """Returns a text in which files and folders of this machine are called by their last names."""
    return FOLDERS.sub("", text.encode("utf-8", "replace").decode())


def file(request: Request, path: Path, kind: str | None = None) -> Response:
    """Returns a file that a browser keeps until it changes, known by its size and the time of its last change.

    Raises Refusal with 404 where it cannot be read.
    """
    kind = kind or TYPES.get(path.suffix, "application/octet-stream")
    try:
        with path.open("rb") as opened:
            stat = os.fstat(opened.fileno())
            return made(request, opened.read, f"{stat.st_size:x}-{stat.st_mtime_ns:x}", kind)
    except OSError as error:
        raise Refusal(404, f"{path.name}: is not there") from error


def content(request: Request, found: bytes, tag: str, kind: str) -> Response:
    """Returns bytes that a browser keeps as long as their `tag` is the same."""
    return made(request, lambda: found, tag, kind)


def made(request: Request, make: Callable[[], bytes], tag: str, kind: str) -> Response:
    """Returns bytes, which are made only where the browser has none of this `tag`."""
    tag = f'"{tag}"'.replace(" ", "")
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if tag in (known.strip().removeprefix("W/") for known in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return Response(make(), media_type=kind, headers=headers)


async def read_json(request: Request) -> dict[str, Any]:
    """Returns the JSON object in the body of a request. Raises Refusal: 400 for anything else, 413 for a large one."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST:
            raise Refusal(413, f"this is more than the {LARGEST / 2**20:g} MiB of JSON that the page reads")
    try:
        found = json.loads(body or b"{}", parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise Refusal(400, f"the body must be a JSON object, as {{}}, got {type(found).__name__}")
    return found


def number(request: Request, name: str, default: int, least: int, most: int) -> int:
    """Returns a whole number of a query. Raises Refusal with 400 for anything else, and out of its bounds."""
    text = request.query_params.get(name, "")
    value = whole(text) if text else default
    if value is None or not least <= value <= most:
        raise Refusal(400, f"{name}: must be a whole number from {least} to {most:,}, got {text!r}")
    return value


def whole(text: str) -> int | None:
    """Returns the whole number of at most nine digits that a text is, None for anything else."""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return refused(error.status, error.line)


async def _input_error(request: Request, error: Exception) -> Response:
    return refused(422, str(error))


async def _routing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    line = LINES.get(error.status_code, error.detail).format(method=request.method)
    made = refused(error.status_code, line)
    made.headers.update(error.headers or {})
    return made


async def _left(request: Request, error: Exception) -> Response:
    return refused(400, "the body ended too early")


async def _system_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    return refused(500, f"{Path(str(error.filename or 'the system')).name}: {error.strerror or type(error).__name__}")


async def _unforeseen(request: Request, error: Exception) -> Response:
    """The answer to what nobody foresaw; what it was is in the terminal of the page."""
    return refused(500, "the page failed at this; the terminal in which it runs says how")


HANDLERS: dict[Any, ExceptionHandler] = {
    Refusal: _refusal,
    InputError: _input_error,
    HTTPException: _routing,
    ClientDisconnect: _left,
    OSError: _system_error,
    Exception: _unforeseen,
}


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")
