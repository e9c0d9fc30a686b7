from __future__ import annotations

import os
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from diffusion.errors import InputError
from diffusion.page import answers
from diffusion.page.answers import HANDLERS, Refusal, answer, plain, without_folders
from tests.page.calls import call


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/jane/runs/a: is not there", "a: is not there"),
        ("cannot read '/srv/x/photo.png' now", "cannot read 'photo.png' now"),
        ("C:\\Users\\jane\\a.png is damaged", "a.png is damaged"),
        ("from hf://owner/name, or https://host/a/b", "from hf://owner/name, or https://host/a/b"),
        ("photos/cats and 3/4 of 100 images/s", "photos/cats and 3/4 of 100 images/s"),
    ],
)
def test_files_are_called_by_their_last_names(text: str, expected: str) -> None:
    assert without_folders(text) == expected


def test_json_holds_what_json_has() -> None:
    found = plain({"a": float("inf"), "b": [float("nan"), 1.5, (2, "/x/y/z")], 3: None, "c": "\ud800"})
    assert found == {"a": None, "b": [None, 1.5, [2, "z"]], "3": None, "c": "?"}


def app(endpoint: object) -> Starlette:
    return Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])], exception_handlers=HANDLERS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (Refusal(409, "not\nnow"), 409, "not now"),
        (InputError("/a/b/c: must be d"), 422, "c: must be d"),
        (OSError(28, "No space left on device", "/a/b"), 500, "b: No space left on device"),
    ],
)
def test_errors_are_one_line(error: Exception, status: int, line: str) -> None:
    def endpoint(request: Request) -> Response:
        raise error

    found = call(app(endpoint), "GET", "/")
    assert (found.status, found.error) == (status, line)


def test_what_nobody_foresaw_is_told_in_the_terminal_alone() -> None:
    answered = []

    def endpoint(request: Request) -> Response:
        raise KeyError("/secret/place")

    async def kept(scope: object, receive: object, send: object) -> None:
        try:
            await app(endpoint)(scope, receive, send)  # type: ignore[arg-type]
        except KeyError as error:  # The server prints it.
            answered.append(error)

    found = call(kept, "GET", "/")
    assert found.status == 500 and "secret" not in found.error and len(answered) == 1


def test_a_long_line_is_cut() -> None:
    def endpoint(request: Request) -> Response:
        raise Refusal(400, "long " * 1000)

    assert len(call(app(endpoint), "GET", "/").error) == answers.LONGEST


def test_addresses_and_methods_that_are_none() -> None:
    found = app(lambda request: answer({}))
    assert call(found, "GET", "/x").error == "there is nothing at this address"
    refused = call(found, "PUT", "/")
    assert refused.status == 405 and "PUT" in refused.error and "GET" in refused.headers["allow"]


def test_a_file_is_sent_again_only_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.css"
    path.write_text("one")
    served = app(lambda request: answers.file(request, path))
    first = call(served, "GET", "/")
    assert (first.body, first.headers["content-type"]) == (b"one", "text/css; charset=utf-8")
    again = call(served, "GET", "/", headers={"If-None-Match": f'"x", {first.headers["etag"]}'})
    assert (again.status, again.body) == (304, b"")
    path.write_text("two")
    os.utime(path, ns=(1, 1))
    assert call(served, "GET", "/", headers={"If-None-Match": first.headers["etag"]}).body == b"two"
    path.unlink()
    assert call(served, "GET", "/").status == 404


async def read(request: Request) -> Response:
    return answer({"found": await answers.read_json(request)})


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"3", b'{"a": NaN}', b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    assert call(app(read), "POST", "/", body).status == 400


def test_a_body_is_read_up_to_its_bound() -> None:
    assert call(app(read), "POST", "/", [b'{"a"', b": 1}"]).json == {"found": {"a": 1}}
    assert call(app(read), "POST", "/").json == {"found": {}}
    assert call(app(read), "POST", "/", [b" " * 2**19] * 3).status == 413


@pytest.mark.parametrize(("query", "expected"), [("", 7), ("?n=3", 3), ("?n=0", None), ("?n=x", None), ("?n=99", None)])
def test_numbers_of_a_query_have_bounds(query: str, expected: int | None) -> None:
    found = call(app(lambda request: answer({"n": answers.number(request, "n", 7, 1, 9)})), "GET", f"/{query}")
    assert found.json == {"n": expected} if expected else found.status == 400 and "from 1 to 9" in found.error


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("123456789", 123456789), ("1234567890", None), ("-1", None), ("²", None)]
)
def test_whole_numbers(text: str, value: int | None) -> None:
    assert answers.whole(text) == value
