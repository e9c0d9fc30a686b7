"""What was seen of an image: by its alpha, by a color, by a mask; and nothing of the rest in its values."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.data.images.decoding import ImageError, made_of_frames
from diffusion.data.images.masking import ALPHA, NOTHING_SEEN, Masking, Opaque, Painted, Paired
from diffusion.data.images.pixel_format import RGB, PixelFormat
from diffusion.data.images.source import Source
from diffusion.errors import InputError

GENERATOR = np.random.default_rng(0)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file


def seen_of(masking: Masking, file: io.BytesIO, path: str = "x.png", frame: int = 0) -> np.ndarray | None:
    def seen(source: Source, number: int) -> np.ndarray | None:
        size = source.bands(number).values.shape
        return masking.seen(source, number, path, (size[0], size[1]))

    (found,) = made_of_frames(path, file, [frame], seen)
    if isinstance(found, ImageError):
        raise found
    return found


def at_size(
    masking: Masking, file: io.BytesIO, form: PixelFormat = RGB, side: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    (found,) = made_of_frames(
        "x.png", file, [0], lambda source, frame: masking.at_size(source, frame, "x.png", form, (side, side))
    )
    if isinstance(found, ImageError):
        raise found
    return found


def colors(height: int = 8, width: int = 8) -> np.ndarray:
    return GENERATOR.integers(0, 200, (height, width, 3), dtype=np.uint8)


def test_pixels_that_are_fully_opaque_were_seen() -> None:
    """One level of 255 less, or the palette's transparent color, is unseen; an image without alpha was seen."""
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[0, :3] = 254, 128, 0
    rgba = np.dstack([colors(), alpha])
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        found = seen_of(Opaque(), encoded(Image.fromarray(rgba), kind, **options))
        assert found is not None and np.array_equal(found[:, :, 0], alpha == 255)
    gray = Image.fromarray(rgba[:, :, :2].copy()[:, :, :1].squeeze()).convert("LA")
    gray.putalpha(Image.fromarray(alpha))
    found = seen_of(Opaque(), encoded(gray))
    assert found is not None and np.array_equal(found[:, :, 0], alpha == 255)
    palette = Image.fromarray((np.arange(64, dtype=np.uint8) % 4).reshape(8, 8), "L").convert("P")
    found = seen_of(Opaque(), encoded(palette, transparency=2))
    assert found is not None and found.mean() == 0.75
    assert seen_of(Opaque(), encoded(Image.fromarray(colors()))) is None
    assert seen_of(Opaque(), encoded(Image.fromarray(colors()), "JPEG")) is None


def test_alpha_is_turned_with_its_image() -> None:
    alpha = np.full((6, 10), 255, np.uint8)
    alpha[0, :4] = 0
    image = Image.fromarray(np.dstack([colors(6, 10), alpha]))
    exif = Image.Exif()
    exif[274] = 6
    found = seen_of(Opaque(), encoded(image, exif=exif))
    assert found is not None and np.array_equal(found[:, :, 0], np.rot90(alpha == 255, -1))


def test_a_painted_color_is_unseen_with_its_rim() -> None:
    """What a mixed rim hides is not kept; other colors are, and in gray values too the color is looked for in RGB."""
    image = np.full((64, 64, 3), 90, np.uint8)
    image[20:40, 20:40] = 255, 0, 255
    image[19, 20:40] = (90 + 255) // 2, 45, (90 + 255) // 2
    found = seen_of(Painted("#FF00FF"), encoded(Image.fromarray(image)))
    assert found is not None and not found[19:40, 20:40].any() and found[:17].all() and found[:, 43:].all()
    values, seen = at_size(Painted("#ff00ff"), encoded(Image.fromarray(image)), PixelFormat(1), 16)
    assert set(np.unique(values[seen])) == {90} and not values[~seen].any()
    assert (Painted("#FF00FF").key, Opaque().key) == ("#ff00ff", ALPHA)


@pytest.mark.parametrize(
    ("masking", "paint"), [(Opaque(), None), (Painted("#ff00ff"), (255, 0, 255)), (Painted("#00ff00"), (0, 255, 0))]
)
@pytest.mark.parametrize("side", [5, 8, 16, 20])
def test_values_are_the_same_whatever_is_hidden(
    masking: Masking, paint: tuple[int, int, int] | None, side: int
) -> None:
    """With alpha the hidden colors differ; a color is painted over images that differ below it and at its rim."""
    hole = np.zeros((16, 16, 1), bool)
    hole[3:9, 4:11] = True
    base = np.full((16, 16, 3), 60, np.uint8) + GENERATOR.integers(0, 9, (16, 16, 3), dtype=np.uint8)
    results = []
    for hidden in (10, 200):
        image = np.where(hole, np.uint8(hidden), base) if paint is None else np.where(hole, np.uint8(paint), base)
        if paint is None:
            image = np.dstack([image, 255 * ~hole[:, :, 0]]).astype(np.uint8)
        results.append(at_size(masking, encoded(Image.fromarray(image)), side=side))
    (first, known), (second, same) = results
    assert np.array_equal(first, second) and np.array_equal(known, same) and 0.3 < known.mean() < 1
    assert first[known[:, :, 0]].min() >= 55 and first.max() <= 75, "nothing of the paint and of what is hidden"


def paired(folder: Path, mask: np.ndarray, **options: object) -> Paired:
    Image.fromarray(mask).save(folder / "m.png", **options)
    return Paired(folder, {"x.png": "m.png"})


def test_white_in_a_mask_was_seen(tmp_path: Path) -> None:
    mask = np.full((6, 8), 255, np.uint8)
    mask[:2, :3] = 0
    masking = paired(tmp_path, mask)
    found = seen_of(masking, encoded(Image.fromarray(colors(6, 8))))
    assert found is not None and np.array_equal(found[:, :, 0], mask == 255)
    assert seen_of(masking, encoded(Image.fromarray(colors(6, 8))), "other.png") is None
    whole = paired(tmp_path, np.full((6, 8), 255, np.uint8))
    found = seen_of(whole, encoded(Image.fromarray(colors(6, 8))))
    assert found is not None and found.all()


def test_a_mask_of_the_size_before_exif_is_turned_as_its_image(tmp_path: Path) -> None:
    mask = np.full((6, 8), 255, np.uint8)
    mask[0] = 0
    exif = Image.Exif()
    exif[274] = 6
    found = seen_of(paired(tmp_path, mask), encoded(Image.fromarray(colors(6, 8)), exif=exif))
    assert found is not None and np.array_equal(found[:, :, 0], np.rot90(mask == 255, -1))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((6, 8), np.uint8), "shows all of the image as to be filled: its values are all 0"),
        (np.eye(6, 8, dtype=np.uint8), "shows all of the image as to be filled: its values are 0 to 1"),
        (colors(6, 8), "colored pixels"),
        (np.full((8, 6), 255, np.uint8), "m.png is 6 x 8 pixels, but x.png is 8 x 6; a mask has the size of its image"),
    ],
)
def test_masks_that_cannot_be_meant_are_refused(tmp_path: Path, mask: np.ndarray, message: str) -> None:
    with pytest.raises(InputError) as raised:
        seen_of(paired(tmp_path, mask), encoded(Image.fromarray(colors(6, 8))))
    assert message in str(raised.value) and "data.masks: " in str(raised.value)
    assert "--" not in str(raised.value), "there are no options for a folder"


def test_an_image_of_which_nothing_was_seen_is_refused() -> None:
    image = np.dstack([colors(), np.full((8, 8), 254, np.uint8)])
    with pytest.raises(ImageError, match=NOTHING_SEEN):
        at_size(Opaque(), encoded(Image.fromarray(image)))


def test_alpha_is_a_mask_or_a_channel() -> None:
    image = Image.fromarray(np.dstack([colors(), np.full((8, 8), 255, np.uint8)]))
    with pytest.raises(ImageError, match=r"its alpha is the mask and one of the 4 channels; set data\.channels=3"):
        at_size(Opaque(), encoded(image), PixelFormat(4))
    assert at_size(Painted("#ff00ff"), encoded(image), PixelFormat(4))[0].shape == (8, 8, 4)


def test_only_what_was_seen_has_values() -> None:
    image = np.dstack([colors(), np.full((8, 8), 255, np.uint8)])
    image[0, 0] = 250, 250, 250, 0
    (bands,) = made_of_frames(
        "x.png", encoded(Image.fromarray(image)), [0], lambda source, frame: Opaque().only_seen(source, frame, "x.png")
    )
    assert not isinstance(bands, ImageError) and bands.values.shape == (63, 1, 4) and bands.ends[1] < 200
