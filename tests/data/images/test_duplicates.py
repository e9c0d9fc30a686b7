"""Exactly the copies and near duplicates are found that comparing all pairs finds."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from diffusion.data import scan
from diffusion.data.images import duplicates
from diffusion.data.images.duplicates import NEAR, SHADE, check_pixels, copies, difference_hash, near_duplicates
from tests.bad_images import NOT_UTF8


def picture(seed: int, side: int = 64) -> Image.Image:
    """A smooth random image, like a photograph."""
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    blurred = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(side / 8)), np.float64)
    return Image.fromarray(np.clip((blurred - blurred.mean()) * 8 + 128, 0, 255).astype(np.uint8))


def test_the_hash_compares_neighbors_of_nine_by_eight_averages() -> None:
    rising = np.repeat(np.arange(9, dtype=np.uint8)[None, :, None], 8, 0).repeat(3, 2) * 20
    assert difference_hash(rising) == 0
    assert difference_hash(rising[:, ::-1].copy()) == 2**64 - 1
    rising[0, 0] = 255  # Only the first comparison of the first row turns: the highest bit.
    assert difference_hash(rising) == 2**63
    large = np.asarray(Image.fromarray(rising).resize((90, 80), Image.Resampling.NEAREST))
    assert difference_hash(large) == 2**63


def test_pairs_are_those_of_comparing_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "CHUNK", 16)
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**64, 12, dtype=np.uint64)
    hashes = base[rng.integers(0, 12, 300)]
    for _ in range(9):  # Up to nine flipped bits: some stay near, others do not.
        flip = np.uint64(1) << rng.integers(0, 64, 300).astype(np.uint64)
        hashes = np.where(rng.random(300) < 0.5, hashes ^ flip, hashes)
    means = rng.integers(100, 100 + SHADE + 3, (300, 3)).astype(np.uint8)
    expected = []
    for later in range(300):
        for earlier in range(later):
            bits = int(hashes[earlier] ^ hashes[later]).bit_count()
            if bits <= NEAR and np.abs(means[earlier].astype(int) - means[later]).max() <= SHADE:
                expected.append((earlier, later))
                break
    assert 50 < len(expected) < 299
    assert near_duplicates(hashes, means) == expected


def test_copies_and_near_copies_are_found_and_others_are_not(tmp_path: Path) -> None:
    for i in range(40):
        picture(i).save(tmp_path / f"{i:02d}.png")
    shutil.copy(tmp_path / "03.png", tmp_path / "copy.png")
    picture(5).save(tmp_path / "pressed.jpg", quality=75)
    picture(6).resize((32, 32), Image.Resampling.LANCZOS).save(tmp_path / "small.bmp")
    for color in ((10, 10, 10), (200, 0, 0)):  # Without edges hashes are equal, colors are not.
        Image.new("RGB", (20, 20), color).save(tmp_path / f"flat-{color[0]}.png")
    found = scan(tmp_path, labels=False, progress=False)
    names = found.entries.names
    assert [(names[a], names[b]) for a, b in copies(found)] == [("03.png", "copy.png")]
    seen = check_pixels(found, progress=False)
    assert {(names[a], names[b]) for a, b in seen.near} == {("05.png", "pressed.jpg"), ("06.png", "small.bmp")}
    assert seen.damaged == ()
    assert list(duplicates.pair_lines(found, copies(found), "repeats")) == ["copy.png repeats 03.png"]


def test_damage_behind_the_header_is_named_and_no_file_is_written(zoo: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in zoo.rglob("*")}
    found = scan(zoo, labels=False, progress=False)
    damaged = {str(problem.path) for problem in check_pixels(found, progress=False).damaged}
    assert damaged == {"truncated.jpg", "truncated.png"}
    assert {path: path.lstat().st_mtime_ns for path in zoo.rglob("*")} == before
    assert any(NOT_UTF8 in str(path) for path in before)


def test_what_lies_in_holes_makes_images_neither_alike_nor_different(tmp_path: Path) -> None:
    """Copies with holes of their own are alike, whatever lies in the holes; an image without seen pixels is damaged."""
    found = {}
    for name, hidden in (("dark", 0), ("light", 255)):
        (tmp_path / name).mkdir()
        for number, seed in enumerate((5, 5, 5, 6)):
            image = np.dstack([np.asarray(picture(seed)), np.full((64, 64), 255, np.uint8)])
            image[16 * number : 16 * number + 8, 20:44] = hidden, hidden, hidden, 0
            Image.fromarray(image).save(tmp_path / name / f"{number}.png")
        Image.new("RGBA", (64, 64), (hidden, 0, 0, 0)).save(tmp_path / name / "4.png")
        found[name] = check_pixels(scan(tmp_path / name, labels=False, masks="alpha", progress=False))
    assert found["dark"] == found["light"] and found["dark"].near == ((0, 1), (0, 2))
    assert [str(each) for each in found["dark"].damaged] == ["4.png: nobody has seen any of its pixels"]
