from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.data import Dataset, FolderError, identity, open_folder, standardized
from diffusion.data.images.open_folder import FEW_BAD
from diffusion.data.images.pixel_format import PixelFormat
from tests.bad_images import FOUND_BY_DECODING, GOOD, GREEN, RED, solid


def test_the_worst_folder_becomes_a_dataset_and_a_log(zoo: Path) -> None:
    lines: list[str] = []
    dataset = open_folder(zoo, size=(8, 12), margin=2, log=lines.append, progress=False)
    assert len(dataset) == len(GOOD)
    assert dataset.spec.shape == (3, 8, 12)
    values, labels = dataset.batch([0, 1])
    assert (values.shape, labels) == ((2, 3, 12, 16), None)
    assert dataset.center(values).shape == (2, 3, 8, 12)
    text = "\n".join(lines)
    assert text.startswith(f"folder    {zoo}")
    assert "enlarged  9 images, smaller than 16x12" in text
    for name in FOUND_BY_DECODING:
        assert f"left out  {name}: " in text


def test_labels_and_copies(tmp_path: Path) -> None:
    lines: list[str] = []
    for name, color in (("cat", RED), ("dog", GREEN)):
        (tmp_path / name).mkdir()
        for i in range(4):
            solid(color).save(tmp_path / name / f"{i}.png")
    dataset = open_folder(tmp_path, size=(4, 4), labels=True, cache=tmp_path.parent / "c", log=lines.append)
    assert isinstance(dataset, Dataset)
    assert dataset.spec.classes == ("cat", "dog")
    assert np.array_equal(dataset.labels, [0] * 4 + [1] * 4)
    assert lines[-1].startswith("copies    6 files repeat another")


def test_many_bad_files_stop_it_unless_allowed(tmp_path: Path) -> None:
    for i in range(30):
        solid((8 * i, 0, 0)).save(tmp_path / f"{i}.png")
    options = {"size": (4, 4), "cache": tmp_path.parent / "bad", "progress": False}
    for i in range(FEW_BAD):
        (tmp_path / f"bad{i}.png").write_bytes(b"")
    assert len(open_folder(tmp_path, **options)) == 30
    (tmp_path / "one_more.png").write_bytes(b"")
    with pytest.raises(FolderError, match=r"11 of 41 files .* cannot be used, .* data\.max_bad, 0\.01; "):
        open_folder(tmp_path, **options)
    assert len(open_folder(tmp_path, **options, max_bad=0.3)) == 30


def test_too_few_images(tmp_path: Path) -> None:
    solid(RED).save(tmp_path / "a.png")
    cache = tmp_path.parent / "few"
    with pytest.raises(FolderError, match=r"1 images in .*, at least 8 are needed.*data\.min_images=1"):
        open_folder(tmp_path, size=(4, 4), cache=cache, log=lambda line: None)
    assert len(open_folder(tmp_path, size=(4, 4), cache=cache, log=lambda line: None, min_images=1)) == 1


def test_what_the_crop_does_is_said_before_the_images_are_packed(tmp_path: Path) -> None:
    lines: list[str] = []
    for i in range(8):
        solid((8 * i, 0, 0), (160, 40)).save(tmp_path / f"{i}.png")
    open_folder(tmp_path, size=(32, 32), margin=2, cache=tmp_path.parent / "c", log=lines.append, progress=False)
    assert (
        "crop      36x36 (height x width) from the middle cuts off 75% of the area, more than half of 8 images" in lines
    )


def test_a_single_image_is_a_folder_of_one(tmp_path: Path) -> None:
    for name, color in (("a.png", RED), ("b.png", GREEN)):
        solid(color).save(tmp_path / name)
    cache, silent = tmp_path.parent / "single", lambda line: None
    dataset = open_folder(tmp_path / "b.png", size=(4, 4), cache=cache, min_images=1, log=silent, progress=False)
    assert dataset.names == ("b.png",)
    assert dataset.batch([0])[0][0, :, 0, 0].tolist() == [*GREEN]


def holes(folder: Path, kind: str, paint: int, *, side: int = 24) -> str:
    """Writes 12 images in two classes with a hole of their own each, and returns the value of data.masks.

    What lies in the holes depends on `paint`: hidden colors, what lies below a mask, or what was below a color.
    """
    rng, below = np.random.default_rng(7), np.random.default_rng(paint)
    for i in range(12):
        name = f"{'ab'[i % 2]}/{i:02d}.png"
        pixels = rng.integers(40, 200, (side, side, 3), dtype=np.uint8)
        seen = np.ones((side, side, 1), bool)
        top, left = rng.integers(0, side // 2, 2)
        seen[top : top + 3 + i, left : left + 9] = i == 0
        pixels = np.where(seen, pixels, below.integers(0, 256, pixels.shape, dtype=np.uint8))
        mask = (255 * seen).astype(np.uint8)
        if kind == "alpha":
            pixels = np.concatenate([pixels, mask], 2)
        if kind == "#ff00ff":
            pixels = np.where(seen, pixels, np.array([255, 0, 255], np.uint8))
        if kind == "masks":
            (folder / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask[:, :, 0]).save(folder / "masks" / name)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return str(folder / "masks") if kind == "masks" else kind


def opened(folder: Path, masks: str, **options: object) -> tuple[Dataset, list[str]]:
    lines: list[str] = []
    settings = {"size": (8, 8), "margin": 1, "labels": True, "masks": masks, "progress": False, **options}
    return open_folder(folder, log=lines.append, **settings), lines


@pytest.mark.parametrize("kind", ["alpha", "#ff00ff", "masks"])
@pytest.mark.parametrize("size", [(8, 8), (22, 22), (30, 26)])
def test_folders_that_differ_in_holes_alone_are_one_dataset(kind: str, size: tuple[int, int], tmp_path: Path) -> None:
    """Values, masks, hashes, split, mean and std are the same to the last bit, shrunk, cropped and enlarged."""
    found = []
    for paint in (1, 2):
        folder = tmp_path / str(paint)
        dataset, _ = opened(folder, holes(folder, kind, paint), size=size, cache=tmp_path / f"cache{paint}")
        found.append(standardized(dataset, held_out=0.3))
    one, other = found
    assert one.seen is not None and other.seen is not None
    assert np.array_equal(np.asarray(one.values), np.asarray(other.values))
    assert np.array_equal(np.asarray(one.seen), np.asarray(other.seen)) and 0.4 < np.asarray(one.seen).mean() < 1
    assert np.asarray(one.seen).shape == (12, 1, size[0] + 2, size[1] + 2)
    assert np.array_equal(one.contents, other.contents) and one.spec == other.spec
    assert np.array_equal(identity.hashes_of(one), identity.hashes_of(other))
    assert one.split(0.3, 0)[1].names == other.split(0.3, 0)[1].names
    assert not np.asarray(one.values)[np.broadcast_to(np.asarray(one.seen) == 0, one.values.shape)].any()
    assert one.spec.classes == ("a", "b")


def test_a_folder_with_masks_is_not_the_one_without(tmp_path: Path) -> None:
    """The cache keeps them apart, in any order, and finds each again; a hash tells them apart."""
    masks = holes(tmp_path / "images", "masks", 1)
    kept = {"cache": tmp_path / "cache"}
    first, lines = opened(tmp_path / "images", masks, **kept)
    plain, _ = opened(tmp_path / "images", "", labels=False, **kept)
    again, _ = opened(tmp_path / "images", masks, **kept)
    assert plain.seen is None and len(plain) == 24, "the masks are images where nobody says that they are masks"
    assert first.seen is not None and np.array_equal(np.asarray(first.seen), np.asarray(again.seen))
    assert np.array_equal(np.asarray(first.values), np.asarray(again.values))
    whole = dict(zip(plain.names, plain.contents.tolist(), strict=True))
    same = [whole[name] == hash_ for name, hash_ in zip(first.names, first.contents.tolist(), strict=True)]
    assert same == [True] + [False] * 11, "only the first image was seen as a whole"
    assert f"masks     12 of 12 images have a mask in {masks}" in lines
    share = np.asarray(first.seen).mean()
    assert f"seen      {share:.1%} of the pixels of 12 images, 1 of them as a whole" in lines


def test_a_changed_mask_changes_its_image_alone(tmp_path: Path) -> None:
    masks = holes(tmp_path / "images", "masks", 1)
    kept = {"cache": tmp_path / "cache"}
    before, _ = opened(tmp_path / "images", masks, **kept)
    Image.new("L", (24, 24), 255).save(Path(masks) / "a" / "02.png")
    after, _ = opened(tmp_path / "images", masks, **kept)
    assert before.seen is not None and after.seen is not None
    changed = [not np.array_equal(a, b) for a, b in zip(before.seen, after.seen, strict=True)]
    assert [name for name, differs in zip(after.names, changed, strict=True) if differs] == ["a/02.png"]
    fresh, _ = opened(tmp_path / "images", masks, cache=tmp_path / "other")
    assert np.array_equal(np.asarray(fresh.values), np.asarray(after.values))
    assert np.array_equal(np.asarray(fresh.seen), np.asarray(after.seen))


def test_an_image_of_which_nothing_was_seen_is_left_out_and_named(tmp_path: Path) -> None:
    holes(tmp_path, "alpha", 1)
    Image.new("RGBA", (24, 24), (9, 9, 9, 254)).save(tmp_path / "a" / "x.png")
    dataset, lines = opened(tmp_path, "alpha", cache=tmp_path.parent / "nothing")
    assert len(dataset) == 12 and dataset.left_out == (("a/x.png", "nobody has seen any of its pixels"),)
    assert "left out  a/x.png: nobody has seen any of its pixels" in lines
    with pytest.raises(FolderError, match=r"no image in .* can be decoded; .*: its alpha is the mask and one of the 4"):
        opened(tmp_path, "alpha", pixel_format=PixelFormat(4), cache=tmp_path.parent / "nothing")


def test_a_measured_range_is_that_of_what_was_seen(tmp_path: Path) -> None:
    for i in range(8):
        values = np.full((8, 8), 1000 + 100 * i, np.uint16)
        values[0, 0], values[0, 1] = 0, 60000
        Image.fromarray(values).save(tmp_path / f"{i}.png")
        mask = np.full((8, 8), 255, np.uint8)
        mask[0, :2] = 0
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
    options = {"labels": False, "pixel_format": PixelFormat(1), "margin": 0, "value_range": "measured"}
    dataset, _ = opened(tmp_path, str(tmp_path / "masks"), cache=tmp_path.parent / "range", **options)
    assert dataset.spec.value_range == (1000, 1700)


def test_archives_of_damaged_images_are_their_folder(tmp_path: Path) -> None:
    holes(tmp_path / "images", "alpha", 1)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "images", ".")
    folder, _ = opened(tmp_path / "images", "alpha", cache=tmp_path / "one")
    archive, _ = opened(tmp_path / "x.tar", "alpha", cache=tmp_path / "other")
    order = [[*archive.names].index(f"x.tar/{name}") for name in folder.names]
    assert folder.seen is not None and archive.seen is not None
    assert np.array_equal(np.asarray(folder.values), np.asarray(archive.values)[order])
    assert np.array_equal(np.asarray(folder.seen), np.asarray(archive.seen)[order])


def test_all_pages_of_a_file_have_its_mask(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 8), 20 * (i + 1)) for i in range(8)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "masks").mkdir()
    mask = Image.new("L", (8, 8), 255)
    mask.paste(0, (0, 0, 4, 8))
    mask.save(tmp_path / "masks" / "x.png")
    options = {"pages": "all", "labels": False, "margin": 0, "pixel_format": PixelFormat(1)}
    dataset, _ = opened(tmp_path, str(tmp_path / "masks"), cache=tmp_path.parent / "pages", **options)
    values, seen = dataset.batch(range(8))[0], dataset.beside(range(8))[0]
    assert seen is not None and (seen[..., 4:] == 1).all() and (seen[..., :4] == 0).all()
    assert values[:, 0, 0].tolist() == [[0] * 4 + [20 * (i + 1)] * 4 for i in range(8)]
