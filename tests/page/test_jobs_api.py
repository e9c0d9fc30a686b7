"""What the page answers about jobs."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette

from diffusion.page import worker
from diffusion.page.app import application
from tests.page.bench import give, until
from tests.page.calls import Answer, call, make_run
from tests.page.pretended_worker import WORKS

JOBS = "/api/v1/jobs"


@dataclass
class Page:
    app: Starlette
    run: Path

    def add(self, body: object, name: str = "digits") -> Answer:
        return call(self.app, "POST", f"/api/v1/runs/{name}/jobs", json.dumps(body).encode())

    def get(self, address: str) -> Answer:
        return call(self.app, "GET", f"{JOBS}{address}")

    def job(self, number: str) -> Any:  # noqa: ANN401, JSON
        return self.get(f"/{number}").json

    def done(self, **options: object) -> str:
        number = str(self.add({"kind": "sample", **options}).json["id"])
        until(lambda: self.job(number)["state"] == "done")
        return number


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.setattr(worker, "PROGRAM", "tests.page.pretended_worker")
    run = make_run(tmp_path / "runs" / "digits")
    made = Page(application(tmp_path / "runs"), run)
    yield made
    made.app.state.queue.close()


def test_a_job_is_queued_shown_and_its_files_are_served(page: Page) -> None:
    answer = page.add({"kind": "sample", "n": 2})
    assert answer.status == 201 and {*answer.json} == {"id"}
    number = answer.json["id"]
    until(lambda: page.job(number)["state"] == "done")
    job = page.job(number)
    assert {*job} == {
        *("id", "run", "kind", "options", "state", "done", "total", "unit", "title", "lines", "error"),
        *("files", "numbers", "made", "preview"),
    }
    assert (job["run"], job["kind"], job["options"]) == ("digits", "sample", {"n": 2})
    assert job["files"] == [{"name": "result/00000.png", "role": "sample", "index": 0}]
    served = page.get(f"/{number}/files/result/00000.png")
    assert (served.status, served.body, served.headers["content-type"]) == (200, b"whole", "image/png")
    assert [one["id"] for one in page.get("").json["jobs"]] == [number]


def test_several_files_can_be_had_as_one(page: Page) -> None:
    number = page.done()
    folder = page.run / "page" / "jobs" / number
    (folder / "result" / "00001.png").write_bytes(b"another")
    page.app.state.queue.close()
    record = json.loads((folder / "job.json").read_text())
    (folder / "job.json").write_text(json.dumps({**record, "state": "running"}))
    again = Page(application(page.run.parent), page.run)
    assert again.job(number)["files"][-1] == {"name": "all.zip", "role": "archive"}
    served = again.get(f"/{number}/files/all.zip")
    size = (folder / "all.zip").stat().st_size
    assert (served.status, served.headers["content-length"]) == (200, str(size)) and size > 100
    assert b"another" in (folder / "all.zip").read_bytes()


def test_previews_are_served_once_there_are_some(page: Page) -> None:
    number = page.done()
    assert page.get(f"/{number}/preview").status == 404
    Image.new("L", (4, 4)).save(page.run / "page" / "jobs" / number / "preview.png")
    page.app.state.queue._set(number, preview=1)
    assert page.get(f"/{number}/preview").body[:4] == b"\x89PNG"


def test_a_tiff_is_shown_as_a_png_and_handed_over_as_it_is(page: Page) -> None:
    number = page.done()
    path = page.run / "page" / "jobs" / number / "result" / "restored-0.tif"
    values = np.linspace(0, 65535, 16 * 40).round().astype(np.uint16).reshape(16, 40)
    Image.fromarray(values).save(path)
    page.app.state.queue._set(number, files=({"name": "result/restored-0.tif", "role": "variant"},))
    address = f"/{number}/files/result/restored-0.tif"
    assert page.get(address).body == path.read_bytes()
    assert page.get(address).headers["content-type"] == "image/tiff"
    shown = page.get(f"{address}?side=2048")
    assert shown.headers["content-type"] == "image/png"
    picture = np.array(Image.open(io.BytesIO(shown.body)).convert("L"))
    assert np.abs(picture - values / 257).max() <= 0.5
    assert Image.open(io.BytesIO(page.get(f"{address}?side=20").body)).size == (20, 8)
    assert page.get(f"{address}?side=x").status == 400


def test_a_job_that_has_ended_stays_so_when_it_is_cancelled(page: Page) -> None:
    number = page.add({"kind": "sample", "seed": WORKS}).json["id"]
    until(lambda: page.job(number)["state"] == "running")
    assert call(page.app, "DELETE", f"{JOBS}/{number}").status == 200
    until(lambda: page.job(number)["state"] == "cancelled")
    assert page.job(number)["files"], "what it made is kept"
    done = page.done()
    for ended, state in ((number, "cancelled"), (done, "done")):
        before = page.job(ended)
        again = call(page.app, "DELETE", f"{JOBS}/{ended}")
        assert again.status == 200 and again.json == before == page.job(ended) and before["state"] == state


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "kind: must be one of degrade, inpaint"),
        ({"kind": "rm"}, 422, "kind: must be one of"),
        ({"kind": "sample", "n": 10**9}, 422, "n: must be less than or equal to 1024, got 1000000000"),
        ({"kind": "sample", "out": "/tmp/x"}, 422, "out: is no option of sample"),
        ({"kind": "inpaint", "upload": "../../config"}, 422, "upload: must be an id"),
        ({"kind": "inpaint", "upload": "0" * 16}, 422, "upload: this run was given no image"),
        ({"kind": "vary", "job": "0" * 16, "file": "/etc/passwd"}, 422, "upload: job 0000000000000000 of this run has"),
        ({"kind": "restore", "operator": "kernel:file=/etc/passwd"}, 422, "operator: must not be kernel"),
        ([], 400, "the body must be a JSON object"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_line_and_nothing_is_queued(
    page: Page, body: object, status: int, said: str
) -> None:
    answer = page.add(body)
    assert answer.status == status and answer.error.startswith(said)
    assert page.get("").json == {"jobs": []} and not [*page.run.glob("page/jobs/*")]


def test_there_is_nothing_beside_jobs_and_their_files(page: Page, tmp_path: Path) -> None:
    number = page.done()
    for name in ("job.json", "..%2fjob.json", "../../../config.json", "result", "%2fetc%2fpasswd", "result%2f..", "x"):
        assert page.get(f"/{number}/files/{name}").status == 404
    for other in ("0" * 16, "..", "%2e%2e", f"{number}x"):
        assert page.get(f"/{other}").status == 404
        assert call(page.app, "DELETE", f"{JOBS}/{other}").status in (404, 405)
    assert page.add({"kind": "sample"}, "other").status == 404
    assert page.add({"kind": "sample"}, "..%2fdigits").status == 404


def test_jobs_are_not_written_through_a_link_out_of_the_runs(page: Page, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (page.run / "page").symlink_to(tmp_path / "elsewhere")
    assert page.add({"kind": "sample"}).status == 404
    assert not [*(tmp_path / "elsewhere").rglob("job.json")]


def test_uploads_of_one_run_are_not_those_of_another(page: Page, tmp_path: Path) -> None:
    other = make_run(page.run.parent / "other")
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    upload = give(other, tmp_path / "x.png")
    body = {"kind": "likelihood", "upload": upload}
    assert page.add(body).status == 422 and page.add(body, "other").status == 201
