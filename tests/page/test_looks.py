from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data import DataSpec
from diffusion.data.images import source
from diffusion.errors import InputError
from diffusion.page import looks
from diffusion.page.answers import Refusal

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_colors_are_shown_as_they_are(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(COLORS))
    assert np.array_equal(np.asarray(opened(looks.view(path, 2048, None))), COLORS)
    assert looks.opaque(path) is None
    upload = looks.described(path, "0" * 16, "a.png")
    assert (upload.width, upload.height, upload.bands, upload.has_alpha) == (30, 20, "RGB, 8 bits", False)


def test_a_photograph_on_its_side_is_shown_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.jpg", Image.fromarray(COLORS), exif=exif, quality=95)
    upload = looks.described(path, "0" * 16, "a.jpg")
    assert (upload.width, upload.height) == (20, 30)
    with Image.open(path) as lying:
        upright = np.asarray(lying.transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(np.asarray(opened(looks.view(path, 2048, None))), upright)


def test_colors_under_transparency_stay_what_they_are(tmp_path: Path) -> None:
    alpha = np.full((20, 30), 255, np.uint8)
    alpha[:5], alpha[5] = 0, 128
    path = saved(tmp_path / "a.png", Image.fromarray(np.dstack([COLORS, alpha])))
    assert looks.described(path, "0" * 16, "a.png").has_alpha
    assert np.array_equal(np.asarray(opened(looks.view(path, 2048, None))), np.dstack([COLORS, alpha]))
    mask = opened(looks.opaque(path) or b"")
    assert mask.mode == "1" and np.array_equal(np.asarray(mask), alpha >= 0.9 * 255)


def test_alpha_that_hides_nothing_is_no_mask(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(np.dstack([COLORS, np.full((20, 30), 255, np.uint8)])))
    assert not looks.described(path, "0" * 16, "a.png").has_alpha and looks.opaque(path) is None


def test_sixteen_bits_are_shown_from_black_to_white_or_by_the_range_of_the_model(tmp_path: Path) -> None:
    deep = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    path = saved(tmp_path / "a.png", Image.fromarray(deep))
    assert looks.described(path, "0" * 16, "a.png").bands == "gray, 16 bits"
    shown = np.asarray(opened(looks.view(path, 2048, None)))[:, :, 0].astype(float)
    assert np.abs(shown - deep / 257).max() <= 0.51
    shown = np.asarray(opened(looks.view(path, 2048, (0.0, 30000.0))))[:, :, 0].astype(float)
    assert np.abs(shown - np.minimum(deep / 30000 * 255, 255)).max() <= 0.51


def test_cmyk_and_floats_are_shown(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(COLORS).convert("CMYK"))
    upload = looks.described(path, "0" * 16, "a.jpg")
    assert any("CMYK" in notice for notice in upload.notices)
    assert opened(looks.view(path, 2048, None)).mode == "RGB"
    np.save(tmp_path / "b.npy", np.linspace(-3, 5, 600).reshape(20, 30).astype(np.float32))
    shown = np.asarray(opened(looks.view(tmp_path / "b.npy", 2048, None)))
    assert shown.min() == 0 and shown.max() == 255
    assert looks.described(tmp_path / "b.npy", "0" * 16, "b.npy").bands == "gray, floating point"


def test_a_view_is_no_larger_than_asked_for_and_never_larger_than_the_image(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(COLORS))
    assert opened(looks.view(path, 15, None)).size == (15, 10)
    thin = saved(tmp_path / "b.png", Image.new("RGB", (500, 1)))
    assert opened(looks.view(thin, 16, None)).size == (16, 1)


def test_what_is_no_image_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "a.png"
    text.write_text("no image")
    with pytest.raises(Refusal, match=r"^cat\.png: not an image") as caught:
        looks.described(text, "0" * 16, "cat.png")
    assert caught.value.status == 415
    path = saved(tmp_path / "b.png", Image.fromarray(COLORS))
    (tmp_path / "c.png").write_bytes(path.read_bytes()[:-200])
    with pytest.raises(Refusal) as caught:
        looks.described(tmp_path / "c.png", "0" * 16, "c.png")
    assert caught.value.status == 415
    monkeypatch.setattr(source, "MAX_PIXELS", 599)
    for refuse in (lambda: looks.described(path, "0" * 16, "b.png"), lambda: looks.hidden_by(path, path, (20, 30))):
        with pytest.raises(Refusal, match="30x20 pixels") as caught:
            refuse()
        assert caught.value.status == 413


def test_masks_hide_what_is_black(tmp_path: Path) -> None:
    known = np.ones((20, 30), bool)
    known[3:7, 4:9] = False
    path = saved(tmp_path / "m.png", Image.fromarray(known))
    assert looks.hidden_by(path, path, (20, 30)) == 20
    assert looks.hidden_by(saved(tmp_path / "w.png", Image.new("1", (30, 20), 1)), path, (20, 30)) == 0
    for size in ((30, 20), (10, 15)):
        with pytest.raises(InputError, match="a mask has the size of its image"):
            looks.hidden_by(path, path, size)
    with pytest.raises(InputError, match="colored"):
        looks.hidden_by(saved(tmp_path / "c.png", Image.fromarray(COLORS)), path, (20, 30))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (4, "RGBA"), (5, "L")])
def test_examples_of_any_channels(channels: int, mode: str) -> None:
    stored = torch.arange(channels * 6, dtype=torch.uint8).reshape(channels, 2, 3) * 8
    spec = DataSpec((channels, 2, 3), 256)
    picture = opened(looks.example_picture(stored, spec))
    assert (picture.mode, picture.size) == (mode, (3, 2))
    assert np.array_equal(np.asarray(picture).reshape(2, 3, -1)[:, :, 0], stored[0].numpy())


def test_examples_of_other_levels_are_scaled_to_white() -> None:
    picture = opened(looks.example_picture(torch.tensor([[[0, 65535]]], dtype=torch.int32), DataSpec((1, 1, 2), 65536)))
    assert np.asarray(picture).tolist() == [[0, 255]]
    picture = opened(looks.example_picture(torch.tensor([[[-0.5, 0.5, 2.0]]]), DataSpec((1, 1, 3), None)))
    assert np.asarray(picture).tolist() == [[0, 128, 255]]
