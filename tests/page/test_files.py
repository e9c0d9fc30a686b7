from __future__ import annotations

from pathlib import Path

import pytest

from diffusion.page import files
from diffusion.page.answers import TYPES
from diffusion.page.app import application
from tests.page.calls import call


def listed() -> list[tuple[str, Path]]:
    folders = {"/static": files.STATIC, "/parts": files.PARTS}
    return [
        (f"{address}/{path.relative_to(folder).as_posix()}", path)
        for address, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]


def test_every_file_of_the_front_end_is_served_as_what_it_is(tmp_path: Path) -> None:
    app = application(tmp_path)
    assert call(app, "GET", "/").body == (files.STATIC / "index.html").read_bytes()
    for address, path in listed():
        found = call(app, "GET", address)
        if path.suffix not in TYPES:  # What only the type checker reads.
            assert path.name.endswith(".d.ts") and found.status == 404
            continue
        assert (found.status, found.body) == (200, path.read_bytes()), address
        assert found.headers["content-type"] == TYPES[path.suffix] and found.headers["etag"]


@pytest.mark.parametrize(
    "address",
    [
        "/static/",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//app.js",
        "/parts/../rows.py",
        "/static/app.js%00",
        "/static/views",
    ],
)
def test_nothing_else_is_served(tmp_path: Path, address: str) -> None:
    assert call(application(tmp_path), "GET", address).error == "the page has no such file"
