"""Fillings are those of `diffusion inpaint`, byte for byte in their pixels, for all that people drop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion import cli
from diffusion.errors import InputError
from diffusion.page.work import parse
from diffusion.page.work.inpaint import Inpaint
from tests.page.bench import Bench, give, give_mask

SIZE = (11, 13)
RNG = np.random.default_rng(0)


def rgb(path: Path) -> Path:
    Image.fromarray(RNG.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def rgba(path: Path) -> Path:
    values = RNG.integers(0, 256, (*SIZE, 4), dtype=np.uint8)
    values[..., 3] = 255
    values[2:6, 2:6, 3] = 0
    Image.fromarray(values).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def turned(path: Path) -> Path:
    exif = Image.Exif()
    exif[274] = 6
    image = Image.fromarray(RNG.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8))
    image.save(path.with_suffix(".jpg"), exif=exif)
    return path.with_suffix(".jpg")


def deep(path: Path) -> Path:
    Image.fromarray(RNG.integers(0, 65536, SIZE, dtype=np.uint16)).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


@pytest.mark.parametrize("make", [rgb, rgba, turned, deep])
def test_fillings_are_those_of_the_command(bench: Bench, tmp_path: Path, make: object) -> None:
    assert callable(make)
    file = make(tmp_path / "photo")
    known = np.full((SIZE[1], SIZE[0]) if make is turned else SIZE, 255, np.uint8)
    known[3:6, 4:9] = 0
    Image.fromarray(known).save(tmp_path / "mask.png")
    upload = give(bench.run, file)
    mask = give_mask(bench.run, upload, Image.open(tmp_path / "mask.png"))
    job = bench.do("inpaint", upload=upload, mask=mask, n=2, seed=3, steps=3)
    out = tmp_path / "out"
    options = ("--mask", tmp_path / "mask.png", "--n", 2, "--seed", 3, "--steps", 3, "--out", out)
    assert cli.main([*map(str, ["inpaint", bench.run, file, *options])]) == 0
    made = {path.name for path in out.iterdir()} - {"restoration.json"}
    assert made == {Path(one["name"]).name for one in job.files} - {"all.zip"}
    for name in made:
        found = bench.path(job, f"result/{name}")
        assert np.array_equal(pixels(found), pixels(out / name)), name
    variant = pixels(bench.path(job, "result/restored-0.png"))
    if make in (rgb, rgba, deep):
        assert np.array_equal(variant[known == 255], pixels(file)[known == 255])
    roles = [one["role"] for one in job.files]
    assert roles == ["variant", "variant", "mean", "deviation", "low", "high", "picture", "archive"]
    assert job.numbers["method"] == "learned" and job.numbers["seed"] == 3 and job.numbers["steps"] == 3
    assert 0 < job.numbers["white"] <= 1 and job.unit == "window"


def test_transparency_is_the_mask_where_none_is_given(bench: Bench, tmp_path: Path) -> None:
    job = bench.do("inpaint", upload=give(bench.run, rgba(tmp_path / "photo")), n=1, steps=2)
    assert job.numbers["filled"] == pytest.approx(16 / (SIZE[0] * SIZE[1]))


def test_an_image_without_a_mask_fails_with_the_line_of_the_command(bench: Bench, tmp_path: Path) -> None:
    error = bench.fails("inpaint", upload=give(bench.run, rgb(tmp_path / "photo")), n=1)
    assert "mask" in error and "/" not in error.partition("photo.png")[0]


def test_a_mask_belongs_to_an_upload(bench: Bench) -> None:
    with pytest.raises(InputError, match=r"^upload: this run was given no image"):
        parse("inpaint", {"upload": "0" * 16}).check(bench.place())
    done = bench.do("sample", n=1, steps=1)
    image = {"job": done.id, "file": "result/00000.png"}
    parse("inpaint", image).check(bench.place())
    with pytest.raises(InputError, match=r"^mask: is one of an upload"):
        parse("inpaint", {**image, "mask": "0" * 16}).check(bench.place())


def test_what_is_hostile_is_refused() -> None:
    for options, said in (
        ({"n": 65}, "n: must be less than or equal to 64"),
        ({"grow": 10**6}, "grow: must be less than or equal to 512"),
        ({"feather": -1}, "feather: must be greater than or equal to 0"),
        ({"noise": 2.0}, "noise: must be less than or equal to 1"),
        ({"method": "none"}, "method: must be 'auto', 'product'"),
        ({"mask": "/etc/passwd"}, "mask: must be an id"),
    ):
        with pytest.raises(InputError, match=f"^{said}"):
            parse("inpaint", options)
    assert parse("inpaint", {}) == Inpaint()
