from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette

from diffusion import config
from diffusion.page.app import application
from diffusion.page.examples import held_out
from diffusion.page.job import Job, folder_of
from diffusion.reporting.run_folder import RunFolder
from tests.conftest import tiny
from tests.page.calls import call, make_run

RUN = "/api/v1/runs/a"


@pytest.fixture
def app(shapes: Path, tmp_path: Path) -> Starlette:
    make_run(tmp_path / "a", **config.to_dict(tiny(shapes)))
    return application(tmp_path)


def test_examples_by_page(app: Starlette, tmp_path: Path) -> None:
    found = held_out(RunFolder(tmp_path / "a"))
    everything = call(app, "GET", f"{RUN}/examples").json
    assert everything["total"] == len(everything["examples"]) == len(found)
    assert everything["examples"][0] == {"id": "0", "label": found.label(0)}
    page = call(app, "GET", f"{RUN}/examples?first=3&n=2").json
    assert page["examples"] == everything["examples"][3:5]
    assert call(app, "GET", f"{RUN}/examples?first=999999999&n=1000").json == {"total": len(found), "examples": []}
    for query in ("n=0", "n=1001", "first=-1", "first=x"):
        assert call(app, "GET", f"{RUN}/examples?{query}").status == 400


def test_the_picture_of_an_example_is_its_values(app: Starlette, tmp_path: Path) -> None:
    stored = held_out(RunFolder(tmp_path / "a")).stored(1).permute(1, 2, 0).numpy()
    found = call(app, "GET", f"{RUN}/examples/1")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found.body))), stored)
    assert call(app, "GET", f"{RUN}/examples/1", headers={"If-None-Match": found.headers["etag"]}).status == 304
    for number in ("999", "x", "-1", "1" * 5000):
        assert call(app, "GET", f"{RUN}/examples/{number}").status == 404


def test_what_was_found_in_the_data_is_that_of_the_newest_job(app: Starlette, tmp_path: Path) -> None:
    found = call(app, "GET", f"{RUN}/data")
    assert found.status == 404 and 'kind "inspect"' in found.error
    for made, state in enumerate(("done", "done", "failed")):
        job = Job(f"{made:016x}", "a", "inspect", {}, made=float(made), state=state, numbers={"images": made})  # type: ignore[arg-type]
        folder_of(tmp_path / "a", job.id).mkdir(parents=True)
        job.write(folder_of(tmp_path / "a", job.id))
    assert call(app, "GET", f"{RUN}/data").json == {"images": 1}
