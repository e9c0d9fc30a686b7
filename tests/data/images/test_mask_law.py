"""The masks of a folder as a law of what is observed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.data.images.mask_law import digest, read_masks
from diffusion.data.observing import Given, Observing
from diffusion.errors import InputError


def write(path: Path, mask: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((255 * mask).astype(np.uint8)).save(path)
    return path


def left(size: tuple[int, int], share: float = 0.5) -> np.ndarray:
    mask = np.zeros(size)
    mask[:, : round(share * size[1])] = 1
    return mask


def test_masks_come_in_natural_order_at_the_size_of_images(tmp_path: Path) -> None:
    write(tmp_path / "mask10.png", left((8, 8), 0.25))
    write(tmp_path / "mask2.png", left((32, 32)))
    write(tmp_path / "more/mask.png", left((8, 8)).T)
    (tmp_path / "notes.txt").write_text("no mask")
    masks = read_masks(str(tmp_path), (8, 8))
    assert masks.shape == (3, 1, 8, 8) and masks.dtype == np.uint8
    expected = [left((8, 8)), left((8, 8), 0.25), left((8, 8)).T]
    assert np.array_equal(masks[:, 0], expected)
    assert digest(masks) != digest(masks[::-1])


def test_a_pixel_is_seen_where_most_of_its_area_is(tmp_path: Path) -> None:
    # Of the third column of four pixels each, 2 of 4 columns are white; of the second one 4 of 4.
    write(tmp_path / "mask.png", left((16, 16), 10 / 16))
    assert np.array_equal(read_masks(str(tmp_path), (4, 4))[0, 0], left((4, 4)))


def test_examples_are_observed_through_the_masks_as_through_another_law(tmp_path: Path) -> None:
    masks = [left((12, 12)), left((12, 12)).T]
    for number, mask in enumerate(masks):
        write(tmp_path / f"{number}.png", mask)
    law = Given(read_masks(str(tmp_path), (12, 12)))
    alone = Observing(share=1.0, noisy=0.0, unseen=0.0, masks=(), folder=str(tmp_path))
    drawn = [alone((12, 12), seed, folder=law) for seed in range(400)]
    first = np.mean([np.array_equal(levels == 0, masks[0] == 1) for levels in drawn])
    second = np.mean([np.array_equal(levels == 0, masks[1] == 1) for levels in drawn])
    assert first + second == 1 and abs(first - 0.5) < 0.1
    # Beside two other laws it is a third of the examples.
    beside = Observing(share=1.0, noisy=0.0, unseen=0.0, masks=("box", "pixels"), folder=str(tmp_path))
    drawn = [beside((12, 12), seed, folder=law) == 0 for seed in range(1200)]
    share = np.mean([any(np.array_equal(known, mask == 1) for mask in masks) for known in drawn])
    assert abs(share - 1 / 3) < 0.05


@pytest.mark.parametrize(
    ("mask", "size", "message"),
    [
        (None, (8, 8), "holds no masks"),
        (np.ones((8, 8)), (8, 8), "mask.png shows everything as seen at 8x8"),
        (np.pad(np.ones((2, 2)), 7), (4, 4), "mask.png shows nothing as seen at 4x4"),
        (left((8, 8)), (2,), "must be unset for points"),
    ],
)
def test_masks_that_say_nothing_are_refused(
    tmp_path: Path, mask: np.ndarray | None, size: tuple[int, ...], message: str
) -> None:
    if mask is not None:
        write(tmp_path / "mask.png", mask)
    with pytest.raises(InputError, match=rf"observed\.folder: .*{message}"):
        read_masks(str(tmp_path), size)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"observed\.folder: must be a folder of masks, got .*missing"):
        read_masks(str(tmp_path / "missing"), (8, 8))
