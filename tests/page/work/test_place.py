"""Files are found by ids alone, and only within the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from diffusion.errors import InputError
from diffusion.page.work.place import Place
from tests.page.bench import Bench, give, give_mask


def test_uploads_masks_and_results_are_found(pretended: Bench, tmp_path: Path) -> None:
    place = Place(pretended.run, tmp_path / "job")
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    upload = give(pretended.run, tmp_path / "x.png")
    assert place.upload(upload).read_bytes() == (tmp_path / "x.png").read_bytes()
    mask = give_mask(pretended.run, upload, Image.new("1", (4, 4)))
    with Image.open(place.mask(upload, mask)) as found:
        assert found.size == (4, 4)
    job = pretended.do("sample")
    assert place.result(job.id, "result/00000.png", "a").read_bytes() == b"whole"
    for name in ("job.json", "../../../x.png", "result/.."):
        with pytest.raises(InputError, match=f"^a: job {job.id} of this run has no file"):
            place.result(job.id, name, "a")
    for find in (lambda: place.upload("0" * 16), lambda: place.mask(upload, "0" * 16)):
        with pytest.raises(InputError, match="hand it over again"):
            find()
    with pytest.raises(InputError, match="of this run has no file"):
        place.result("0" * 16, "result/00000.png", "a")


def test_a_link_out_of_the_run_is_no_image(pretended: Bench, tmp_path: Path) -> None:
    place = Place(pretended.run, tmp_path / "job")
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    path = place.upload(give(pretended.run, tmp_path / "x.png"))
    upload = path.parents[1].name
    path.unlink()
    path.symlink_to(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"^upload: x.png is not there any more"):
        place.upload(upload)
