"""Which files among images are results of this package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion import figures
from diffusion.commands.photographs.own_results import RECORD, RECORDS, OwnResults, carries_settings, records
from diffusion.data import DataSpec
from diffusion.data.images.decoding import to_tensor
from diffusion.data.images.encoding import save_image

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS).save(path)
    return path


def left_out(root: Path, out: Path | None = None) -> list[str]:
    own = OwnResults(root, out)
    files = sorted(path for path in root.rglob("*") if path.suffix in (".png", ".jpg", ".tif"))
    kept = [path for path in files if not own(path)]
    assert sorted(own.found + kept) == files
    return [path.relative_to(root).as_posix() for path in own.found]


def test_pictures_that_carry_their_settings(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    photo(tmp_path / "a.jpg")
    figures.save_png(Image.fromarray(PIXELS), tmp_path / "mean.png", {"image": "a.png"})
    save_image(to_tensor(PIXELS), tmp_path / "b.tif", DataSpec((3, 6, 8), 256), {"image": "a.png"})
    Image.fromarray(PIXELS).save(tmp_path / "c.tif", description="a photograph")
    (tmp_path / "broken.png").write_bytes((tmp_path / "mean.png").read_bytes()[:20])
    assert left_out(tmp_path) == ["b.tif", "mean.png"]
    assert carries_settings(tmp_path / "mean.png") and not carries_settings(tmp_path / "gone.png")


def test_what_lies_in_a_folder_of_restorations_or_below_out(tmp_path: Path) -> None:
    for name in ("x.png", "old/x/damaged.jpg", "out/y/x.png", "other/x.png"):
        photo(tmp_path / name)
    (tmp_path / "old" / "x" / RECORD).write_text("{}")
    assert left_out(tmp_path) == ["old/x/damaged.jpg"]
    assert left_out(tmp_path, tmp_path / "other" / ".." / "out") == ["old/x/damaged.jpg", "out/y/x.png"]
    for outside in (tmp_path, tmp_path.parent, tmp_path.parent / "elsewhere"):
        assert left_out(tmp_path, outside) == ["old/x/damaged.jpg"]


def test_images_beside_the_restorations_of_one_of_them_are_images(tmp_path: Path) -> None:
    for name in ("x.png", "mean.png", "restored-12.png", "sub/mean.png"):
        photo(tmp_path / name)
    assert left_out(tmp_path) == []
    (tmp_path / RECORD).write_text("{}")
    assert left_out(tmp_path) == ["mean.png", "restored-12.png"]


def test_files_that_are_recorded_as_results(tmp_path: Path) -> None:
    for name in ("x.jpg", "sub/y.jpg", "z.jpg"):
        photo(tmp_path / name)
    lines = [json.dumps({"result": "x.jpg", "seed": 1}), json.dumps({"result": "sub/y.jpg"}), "7", '{"result": "z.j']
    (tmp_path / RECORDS).write_text("\n".join(lines))
    assert left_out(tmp_path) == ["sub/y.jpg", "x.jpg"]
    assert records(tmp_path)["x.jpg"]["seed"] == 1 and not records(tmp_path / "sub")


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_photograph_is_no_result(tmp_path: Path, name: str) -> None:
    assert not carries_settings(photo(tmp_path / name))
