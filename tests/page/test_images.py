from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffusion.page.app import application
from tests.page.calls import call, make_run

RUN = "/api/v1/runs/a"


def test_grids_and_pictures_are_the_files(tmp_path: Path) -> None:
    run, app = make_run(tmp_path / "a"), application(tmp_path)
    for address, path in (
        (f"{RUN}/grids/10", run / "samples" / "step-00000010.png"),
        (f"{RUN}/pictures/film.png", run / "film.png"),
    ):
        found = call(app, "GET", address)
        assert (found.body, found.headers["content-type"]) == (path.read_bytes(), "image/png")
        assert found.headers["cache-control"] == "no-cache"
        assert call(app, "GET", address, headers={"If-None-Match": found.headers["etag"]}).status == 304


@pytest.mark.parametrize(
    "address",
    [
        *("grids/11", "grids/-10", "grids/1e1", f"grids/{'9' * 5000}", "grids/²", "grids/"),
        *(
            "pictures/config.json",
            "pictures/samples.png",
            "pictures/..%2Fconfig.json",
            "pictures/film.png%00",
            "pictures/",
        ),
    ],
)
def test_what_is_not_listed_is_not_there(tmp_path: Path, address: str) -> None:
    make_run(tmp_path / "a")
    found = call(application(tmp_path), "GET", f"{RUN}/{address}")
    assert found.status == 404 and found.error


def test_links_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "root" / "a")
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    for path in (run / "film.png", run / "samples" / "step-00000010.png"):
        path.unlink()
        os.symlink(secret, path)
    app = application(tmp_path / "root")
    assert call(app, "GET", f"{RUN}/pictures/film.png").status == call(app, "GET", f"{RUN}/grids/10").status == 404
