from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette

from diffusion import config
from diffusion.page import kept
from diffusion.page.app import application
from diffusion.page.examples import held_out
from diffusion.page.guard import Guard
from diffusion.reporting.run_folder import RunFolder
from tests.conftest import tiny
from tests.page.calls import call, make_run

UPLOADS = "/api/v1/runs/a/uploads"
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
PIXELS[:, :, 3] = 255
PIXELS[:4, :, 3] = 0


def png(values: np.ndarray) -> bytes:  # type: ignore[type-arg]
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG")
    return buffer.getvalue()


PHOTO = png(PIXELS)
ID = hashlib.sha256(PHOTO).hexdigest()[:16]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "root" / "a")


@pytest.fixture
def app(run: Path) -> Starlette:
    return application(run.parent)


def left(run: Path) -> set[str]:
    """The files that requests left in a run folder."""
    return {path.relative_to(run / kept.FOLDER).as_posix() for path in (run / kept.FOLDER).rglob("*") if path.is_file()}


def test_a_photograph_stays_byte_for_byte(app: Starlette, run: Path) -> None:
    found = call(app, "POST", UPLOADS, [PHOTO[:100], PHOTO[100:]], {"X-Name": "..%2Fmy%20caf%C3%A9.png"})
    expected = {"id": ID, "name": "my café.png", "width": 30, "height": 20, "has_alpha": True, "notices": []}
    assert (found.status, found.json) == (201, {**expected, "bands": "RGB and alpha, 8 bits"})
    assert kept.original(run, ID).read_bytes() == PHOTO
    assert call(app, "GET", f"{UPLOADS}/{ID}").json == found.json
    assert left(run) == {f"{ID}/upload.json", f"{ID}/original/my café.png"}
    again = call(app, "POST", UPLOADS, PHOTO, {"X-Name": "other.png"})
    assert again.json == found.json and len(left(run)) == 2


def test_it_is_shown_and_its_alpha_is_a_mask(app: Starlette) -> None:
    call(app, "POST", UPLOADS, PHOTO)
    found = call(app, "GET", f"{UPLOADS}/{ID}/view")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found.body))), PIXELS)
    assert call(app, "GET", f"{UPLOADS}/{ID}/view", headers={"If-None-Match": found.headers["etag"]}).status == 304
    assert Image.open(io.BytesIO(call(app, "GET", f"{UPLOADS}/{ID}/view?side=16").body)).size == (16, 11)
    assert call(app, "GET", f"{UPLOADS}/{ID}/view?side=9").status == 400
    mask = np.asarray(Image.open(io.BytesIO(call(app, "GET", f"{UPLOADS}/{ID}/alpha").body)))
    assert np.array_equal(mask, PIXELS[:, :, 3] > 0)
    opaque = call(app, "POST", UPLOADS, png(PIXELS[:, :, :3])).json
    refused = call(app, "GET", f"{UPLOADS}/{opaque['id']}/alpha")
    assert refused.status == 404 and "transparent" in refused.error


def test_masks_are_kept_and_counted(app: Starlette, run: Path) -> None:
    call(app, "POST", UPLOADS, PHOTO)
    known = np.ones((20, 30), bool)
    known[2:5, 3:7] = False
    found = call(app, "POST", f"{UPLOADS}/{ID}/masks", png(known))
    number = hashlib.sha256(png(known)).hexdigest()[:16]
    assert (found.status, found.json) == (201, {"mask": number, "hidden": 12})
    assert call(app, "GET", f"{UPLOADS}/{ID}/masks/{number}").body == png(known)
    assert kept.mask(run, ID, number).read_bytes() == png(known)
    for body, status, what in (
        (png(known[:, :20]), 422, "size"),
        (b"GIF89a", 415, "PNG"),
        (png(known)[:40], 415, "mask"),
        (b"", 400, "empty"),
        (png(np.zeros((20, 30), bool)), 422, "filled"),
    ):
        refused = call(app, "POST", f"{UPLOADS}/{ID}/masks", body)
        assert refused.status == status and what in refused.error
    assert left(run) == {f"{ID}/upload.json", f"{ID}/original/image", f"{ID}/masks/{number}.png"}


@pytest.mark.parametrize(
    ("body", "status"), [(b"", 400), (b"no image", 415), (PHOTO[:200], 415), (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, 415)]
)
def test_what_cannot_be_used_is_refused_and_leaves_nothing(app: Starlette, run: Path, body: bytes, status: int) -> None:
    found = call(app, "POST", UPLOADS, body, {"X-Name": "cat.png"})
    assert found.status == status and found.error
    assert left(run) == set() and [*(run / kept.FOLDER).iterdir()] == []


def test_too_many_pixels_are_refused_by_the_header_alone(app: Starlette, run: Path) -> None:
    huge = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(huge, format="PNG")
    found = call(app, "POST", UPLOADS, huge.getvalue(), {"X-Name": "huge.png"})
    assert found.status == 413 and "million" in found.error and left(run) == set()


def test_too_many_bytes_are_refused_as_they_come(app: Starlette, run: Path) -> None:
    found = call(Guard(app, most=1000), "POST", UPLOADS, [b"x" * 600] * 3)
    assert found.status == 413 and [*(run / kept.FOLDER).iterdir()] == []


def test_a_held_out_example_becomes_a_photograph(shapes: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", **config.to_dict(tiny(shapes)))
    app, kind = application(tmp_path), {"Content-Type": "application/json"}
    found = call(app, "POST", UPLOADS, b'{"example": "1"}', kind)
    assert (found.json["name"], found.json["width"]) == ("example-1.png", 8)
    stored = held_out(RunFolder(run)).stored(1).permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(Image.open(kept.original(run, found.json["id"]))), stored)
    for body, status in (
        (b"{}", 400),
        (b'{"example": "x"}', 400),
        (b'{"example": "1", "a": 1}', 400),
        (b'{"example": "999"}', 404),
    ):
        assert call(app, "POST", UPLOADS, body, kind).status == status


@pytest.mark.parametrize("upload", ["0" * 16, "..", "x", "%2e%2e%2fa", "a%00", ID + "0"])
def test_what_was_not_handed_over_is_not_there(app: Starlette, run: Path, upload: str) -> None:
    call(app, "POST", UPLOADS, PHOTO)
    for address in ("", "/view", "/alpha", "/masks/" + "0" * 16):
        assert call(app, "GET", f"{UPLOADS}/{upload}{address}").status == 404
    assert call(app, "POST", f"{UPLOADS}/{upload}/masks", PHOTO).status in (404, 405)
    assert call(app, "GET", f"{UPLOADS}/{ID}/masks/..%2f..%2fupload.json").status == 404
    assert call(app, "GET", f"{UPLOADS}/{ID}/masks/{'0' * 16}").status == 404


def test_nothing_is_read_or_written_through_links_that_lead_out(app: Starlette, run: Path, tmp_path: Path) -> None:
    call(app, "POST", UPLOADS, PHOTO)
    (run / "page").rename(tmp_path / "outside")
    os.symlink(tmp_path / "outside", run / "page")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "outside").rglob("*")}
    assert call(app, "POST", UPLOADS, PHOTO).status == 404
    for address in ("", "/view", "/alpha"):
        assert call(app, "GET", f"{UPLOADS}/{ID}{address}").status == 404
    assert call(app, "POST", f"{UPLOADS}/{ID}/masks", PHOTO).status == 404
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "outside").rglob("*")} == before
