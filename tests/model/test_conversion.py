"""What people hold, as tensors: arrays, images of Pillow of every mode, files, masks and labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data import PixelFormat
from diffusion.errors import InputError
from diffusion.model.conversion import (
    as_tensor,
    channels_first,
    decoded,
    is_picture,
    mask,
    number,
    pixels,
    plain_label,
    size_of,
)

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
UNITS = torch.from_numpy(PIXELS).permute(2, 0, 1) / 255


def test_arrays_and_lists_are_tensors_of_their_own_type() -> None:
    assert as_tensor(PIXELS, "x").dtype == torch.uint8
    assert torch.equal(as_tensor(PIXELS[::-1, :, ::-1], "x"), torch.from_numpy(PIXELS[::-1, :, ::-1].copy()))
    assert torch.equal(as_tensor(np.array([1.5, 2.5], ">f4"), "x"), torch.tensor([1.5, 2.5]))
    assert as_tensor([[0.5, 1.0]], "x").dtype == torch.float32
    assert as_tensor(np.float64(2), "x").shape == ()


@pytest.mark.parametrize("value", [None, "x", {"a": 1}, [[1.0], [1.0, 2.0]], object()])
def test_anything_else_is_named_with_what_is_taken(value: object) -> None:
    with pytest.raises(
        InputError, match=r"^y: must be a tensor, a NumPy array, an image of Pillow or the path of a file"
    ):
        as_tensor(value, "y")


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(InputError, match=r"^x: must be real numbers, got torch\.complex64"):
        as_tensor(torch.ones(2, dtype=torch.complex64), "x")


def test_the_channels_of_an_image_come_first_whichever_side_they_are_on() -> None:
    chw = torch.rand(3, 5, 7)
    assert channels_first(chw, 3, "x", torch_order=False) is chw
    assert torch.equal(channels_first(chw.permute(1, 2, 0), 3, "x", torch_order=False), chw)
    assert torch.equal(channels_first(chw[0], 1, "x", torch_order=False), chw[:1])
    both = torch.rand(3, 5, 3)
    assert channels_first(both, 3, "x", torch_order=True) is both
    with pytest.raises(InputError, match=r"x: may be C x H x W or H x W x C, got an array \(3, 5, 3\)"):
        channels_first(both, 3, "x", torch_order=False)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_images_of_pillow_are_decoded_as_files_are(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS).convert("RGB" if mode == "LAB" else mode)
    if mode == "LAB":
        image = Image.frombytes("LAB", (7, 5), PIXELS.tobytes())
    found = decoded(image, PixelFormat(), "x")
    assert found.shape == (3, 5, 7)
    if mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image.save(path := tmp_path / "x.png")
        assert torch.equal(found, decoded(path, PixelFormat(), "x")) and torch.equal(
            found, decoded(str(path), PixelFormat(), "x")
        )
    if mode in ("RGB", "RGBA", "HSV"):
        assert (found - UNITS).abs().max() < (1e-6 if mode != "HSV" else 0.03)


def test_deep_gray_keeps_its_depth_and_a_turned_image_is_turned() -> None:
    deep = Image.fromarray(RNG.integers(0, 65536, (5, 7), dtype=np.uint16))
    found = decoded(deep, PixelFormat(1, levels=65536), "x")
    assert torch.equal((found * 65535).round()[0].int(), torch.from_numpy(np.array(deep).astype(np.int32)))
    turned = Image.fromarray(PIXELS)
    turned.getexif()[0x0112] = 6
    assert size_of(turned, "x") == (7, 5)
    assert torch.equal(decoded(turned, PixelFormat(), "x"), UNITS.rot90(-1, (1, 2)))


def test_a_profile_is_converted_as_in_files(tmp_path: Path) -> None:
    from PIL import ImageCms

    image = Image.fromarray(PIXELS)
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image.save(path := tmp_path / "x.png")
    assert torch.equal(decoded(image, PixelFormat(), "x"), decoded(path, PixelFormat(), "x"))


def test_files_that_are_no_images_are_named_with_the_argument(tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("no image")
    with pytest.raises(InputError, match=r"^image: .*no\.png: not an image"):
        decoded(tmp_path / "no.png", PixelFormat(), "image")
    with pytest.raises(InputError, match=r"^y: .*gone\.png: No such file"):
        size_of(str(tmp_path / "gone.png"), "y")
    assert is_picture(tmp_path) and is_picture("x") and not is_picture(PIXELS)


KNOWN = np.zeros((5, 7), bool)
KNOWN[1:3] = True


@pytest.mark.parametrize(
    "given",
    [
        KNOWN,
        KNOWN.astype(np.uint8),
        KNOWN.astype(np.uint8) * 255,
        np.where(KNOWN, 230, 229).astype(np.uint8),
        KNOWN.astype(np.float32),
        np.where(KNOWN, 0.9, 0.89),
        KNOWN[:, :, None],
        np.repeat(KNOWN[:, :, None], 3, 2),
        np.repeat(KNOWN[None], 3, 0),
        torch.from_numpy(KNOWN)[None],
        Image.fromarray(KNOWN),
        Image.fromarray(KNOWN.astype(np.uint8) * 255),
        Image.fromarray(np.where(KNOWN, 240, 10).astype(np.uint8)).convert("RGB"),
        Image.fromarray(KNOWN.astype(np.uint8) * 255).convert("RGBA"),
        KNOWN.tolist(),
    ],
    ids=range(15),
)
def test_a_mask_is_white_where_it_is_known(given: object) -> None:
    found = mask(given, (3, 5, 7))
    assert found.dtype == torch.bool
    assert torch.equal(found.expand(3, 5, 7), torch.from_numpy(KNOWN).expand(3, 5, 7))


def test_a_mask_file_is_read_as_on_the_command_line(tmp_path: Path) -> None:
    Image.fromarray(KNOWN.astype(np.uint8) * 255).save(path := tmp_path / "mask.png")
    assert torch.equal(mask(str(path), (3, 5, 7))[0], torch.from_numpy(KNOWN))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.full((5, 7), 2.0), "known: must be True where known and False elsewhere.*values from 2 to 2"),
        (np.full((5, 7), -1), "values from -1 to -1"),
        (np.full((5, 7), np.nan), "values from nan to nan"),
        (np.full((5, 7), 300), "values from 300 to 300"),
        (
            Image.fromarray(KNOWN.astype(np.uint8)),
            "known shows all of the image as to be filled: its values are 0 to 1, .* multiply them by 255",
        ),
        (Image.new("RGBA", (7, 5), (0, 0, 0, 0)), "known is transparent everywhere; draw on it what is to be filled"),
        (None, "known: must be a tensor"),
    ],
    ids=range(7),
)
def test_masks_that_cannot_be_meant_are_refused(given: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mask(given, (3, 5, 7))


def test_what_is_to_be_said_of_a_mask_is_a_warning() -> None:
    """As of strokes on a transparent layer, and of a mask that is likely meant the other way round."""
    layer = Image.fromarray(np.dstack([np.zeros((5, 7, 3), np.uint8), 255 * (~KNOWN).astype(np.uint8)]))
    with pytest.warns(UserWarning, match="its strokes on a transparent layer are what is to be filled"):
        found = mask(layer, (3, 5, 7))
    assert torch.equal(found[0], torch.from_numpy(KNOWN))
    most = np.zeros((5, 7), np.uint8)
    most[2, 2:4] = 255
    with pytest.warns(UserWarning, match="known: black is to be filled, 94% of it; if the other part is meant"):
        mask(Image.fromarray(most), (3, 5, 7))
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    with pytest.raises(InputError, match=r"known has .* colored pixels"):
        mask(photo, (3, 5, 7))


def test_a_mask_of_pixels_is_one_for_all_examples_or_one_for_each() -> None:
    known = torch.tensor([[True, False, True], [False, True, True]])
    for one in (known, known[None], known.expand(3, 2, 3), known.numpy()[..., None], 255 * known.byte(), known.float()):
        assert torch.equal(pixels(one, 4, (3, 2, 3)), known.expand(1, 1, 2, 3))
    assert torch.equal(pixels(Image.fromarray(255 * known.byte().numpy()), 4, (3, 2, 3)), known.expand(1, 1, 2, 3))
    each = torch.stack([known, ~known])[:, None]
    for several in (each, each.expand(2, 3, 2, 3), each.numpy()):
        assert torch.equal(pixels(several, 2, (3, 2, 3)), each)
    assert torch.equal(pixels([True, False], 5, (2,)), torch.tensor([[True, False]]))
    assert torch.equal(pixels([[True, False], [False, True]], 2, (2,)), torch.eye(2, dtype=torch.bool))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            torch.ones(3, 3).bool(),
            r"seen: must be of the shape \(3, 2, 3\) of the data, or \(4, 3, 2, 3\), got \(3, 3\)",
        ),
        (Image.new("L", (4, 4), 255), r"seen: must be of the shape \(3, 2, 3\) of the data, .*got \(1, 4, 4\)"),
        (torch.ones(5, 1, 2, 3).bool(), r"seen: must be of the shape .*, or \(4, 3, 2, 3\), got \(5, 1, 2, 3\)"),
        (
            torch.eye(3).bool()[:, :2, None].expand(3, 2, 3),
            "seen: must be the same in all channels of a pixel, got one",
        ),
        (torch.full((2, 3), 7.0), r"seen: must be True where known and False elsewhere, .*, got values from 7 to 7"),
    ],
)
def test_masks_of_other_pixels_are_refused(given: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pixels(given, 4, (3, 2, 3), "seen")


def test_labels_of_numpy_are_those_of_python() -> None:
    assert plain_label(np.int64(3)) == 3 and type(plain_label(np.int64(3))) is int
    assert plain_label(np.array([0, 1])) == [0, 1] and plain_label(np.array(["a", "b"])) == ["a", "b"]
    assert plain_label([np.str_("a"), 1]) == ["a", 1] and plain_label("a") == "a" and plain_label(None) is None


def test_a_number_may_be_one_of_numpy_or_torch_and_no_text() -> None:
    for given in (0.5, np.float32(0.5), np.array([0.5]), torch.tensor(0.5)):
        assert number(given, "noise") == 0.5
    assert number(np.int64(2), "noise") == 2
    for wrong in ("0.5", None, [0.5], torch.ones(2)):
        with pytest.raises(InputError, match=r"^noise: must be a number, got "):
            number(wrong, "noise")
