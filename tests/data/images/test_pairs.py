"""Pairs of images: by name, at the same size and crop, with an error for what is missing or shows another part."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.data import DataOptions, Dataset, FolderError, open_source
from diffusion.data.images.pairs import name_of
from diffusion.data.images.resizing import resize_and_crop


def silent(line: str) -> None: ...


def photographs(count: int = 12, size: tuple[int, int] = (12, 16)) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def gray(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert("L"))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Photographs in subfolders, and gray pairs of them in another format, as large or twice as large."""
    for number, image in enumerate(photographs()):
        inside = "even" if number % 2 == 0 else "odd/deep"
        for kind, shown, suffix in (("photos", image, "png"), ("gray", gray(image), "bmp")):
            (tmp_path / kind / inside).mkdir(parents=True, exist_ok=True)
            Image.fromarray(shown).save(tmp_path / kind / inside / f"{number}.{suffix}")
    return tmp_path


def opened(folders: Path, **options: object) -> Dataset:
    given = {"path": str(folders / "photos"), "condition": str(folders / "gray"), "size": (6, 8), **options}
    return open_source(DataOptions(**given), silent)  # type: ignore[arg-type]


@pytest.mark.parametrize("margin", [0, 2])
def test_every_image_has_its_pair_with_the_same_crop(folders: Path, margin: int) -> None:
    dataset = opened(folders, condition_channels=1, size=8, margin=margin)
    side = 8 + 2 * margin
    _, condition = dataset.beside(range(len(dataset)))
    assert condition is not None and condition.shape == (12, 1, side, side)
    by_number = photographs()
    for name, pair, values in zip(dataset.names, condition, dataset.batch(range(12))[0], strict=True):
        image = by_number[int(Path(name).stem)]
        assert np.array_equal(values.permute(1, 2, 0), resize_and_crop(image, (side, side)))
        assert np.array_equal(pair.permute(1, 2, 0), resize_and_crop(gray(image)[:, :, None], (side, side)))


def test_pairs_have_the_channels_of_the_images_by_default(folders: Path) -> None:
    dataset = opened(folders)
    _, condition = dataset.beside([0])
    assert condition is not None and condition.shape == (1, 3, 6, 8)
    assert bool((condition[:, 0] == condition[:, 1]).all())


def test_a_pair_of_another_resolution_shows_the_same(folders: Path) -> None:
    first = folders / "gray" / "even" / "0.bmp"
    large = np.kron(gray(photographs()[0]), np.ones((2, 2), np.uint8))
    Image.fromarray(large).save(first)
    dataset = opened(folders, condition_channels=1)
    place = [*dataset.names].index(str(Path("even") / "0.png"))
    _, condition = dataset.beside([place])
    assert condition is not None and np.array_equal(
        condition[0].permute(1, 2, 0), resize_and_crop(large[:, :, None], (6, 8))
    )


def test_parts_of_the_data_keep_their_pairs(folders: Path) -> None:
    dataset = opened(folders, condition_channels=1, held_out=0.3)
    whole = dataset.beside(range(12))[1]
    train, held_out = dataset.split(0.3, 0)
    assert whole is not None and len(train) + len(held_out) == 12 and len(held_out) >= 1
    for part in (train, held_out):
        pairs = part.beside(range(len(part)))[1]
        assert pairs is not None
        for name, pair in zip(part.names, pairs, strict=True):
            assert np.array_equal(pair, whole[[*dataset.names].index(name)])


def test_images_without_a_pair_are_counted_and_the_first_is_named(folders: Path) -> None:
    (folders / "gray" / "even" / "2.bmp").unlink()
    (folders / "gray" / "odd" / "deep" / "5.bmp").write_bytes(b"no image")
    rule = "data.condition: 2 of 12 images have no pair of their name in "
    with pytest.raises(FolderError, match=re.escape(rule) + r".*gray, the first is even/2.png; add what is missing"):
        opened(folders)
    (folders / "photos" / "even" / "2.png").unlink()
    why = "the first is odd/deep/5.png, whose pair odd/deep/5.bmp cannot be used: not an image of a known format"
    with pytest.raises(FolderError, match=re.escape(why)):
        opened(folders)


def test_pairs_of_no_image_are_said(folders: Path) -> None:
    for name in ("0", "2"):
        (folders / "photos" / "even" / f"{name}.png").unlink()
    lines: list[str] = []
    given = DataOptions(path=str(folders / "photos"), condition=str(folders / "gray"), size=(6, 8))
    dataset = open_source(given, lines.append)
    said = f"10 images of {folders / 'gray'}; without an image of their name: 2, such as even/0.bmp"
    assert lines[-1].endswith(said) and len(dataset) == 10


def test_two_images_of_one_pair_are_refused(folders: Path) -> None:
    Image.fromarray(photographs()[0]).save(folders / "photos" / "even" / "0.jpg")
    rule = "data.condition: a pair must belong to one image, got even/0.jpg and even/0.png; rename one of them"
    with pytest.raises(FolderError, match=re.escape(rule)):
        opened(folders)


def test_errors_name_the_folder_of_pairs_and_its_key(folders: Path) -> None:
    (folders / "empty").mkdir()
    for place, rule in (("nowhere", " does not exist"), ("empty", "")):
        with pytest.raises(FolderError, match=rf"^data\.condition: .*{folders / place}.*{rule}"):
            opened(folders, condition=str(folders / place))
    with pytest.raises(FolderError, match=r"^data\.condition: must be another place than data.path, got .*photos/"):
        opened(folders, condition=str(folders / "photos") + "/")
    with pytest.raises(FolderError, match=r"^data\.path: .*nowhere does not exist"):
        opened(folders, path=str(folders / "nowhere"))


def test_two_pairs_of_one_name_are_refused(folders: Path) -> None:
    Image.fromarray(photographs()[0]).save(folders / "gray" / "even" / "0.png")
    with pytest.raises(FolderError, match=r"data.condition: two images in .*gray are called even/0; remove one"):
        opened(folders)


def test_a_pair_of_another_part_of_the_scene_is_refused(folders: Path) -> None:
    Image.fromarray(photographs(1, (12, 12))[0]).save(folders / "gray" / "even" / "4.bmp")
    rule = "1 pairs have another aspect ratio than their images, the first is that of even/4.png: 16x12 and 12x12"
    with pytest.raises(FolderError, match=re.escape(rule)):
        opened(folders)


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/b.png", "a/b"), ("b", "b"), ("a.b/c", "a.b/c"), ("s.tif#3", "s#3"), ("a.b.jpg", "a.b"), ("n#1.png", "n#1")],
)
def test_the_name_of_a_pair_is_the_path_without_the_suffix(path: str, name: str) -> None:
    assert name_of(path) == name
