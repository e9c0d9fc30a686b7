"""What an image tells of its damage is taken, and said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion.commands.options import Restore
from diffusion.commands.photographs import observing
from diffusion.commands.photographs.remarks import ROUNDING
from diffusion.errors import InputError
from diffusion.operators import JPEG, GaussianBlur, compose
from tests.restoration.test_noise import noisy, scene


def command(operator: str, *, noise: float | None = None, damage: bool = False) -> Restore:
    return Restore(Path("run"), (Path("x.png"),), operator, noise=noise, damage=damage)


def test_a_jpeg_tells_its_quality(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.new("RGB", (16, 16)).save(path, quality=37)
    said = ("x.jpg: compressed at quality 37, as its header says",)
    for text in ("jpeg", "JPEG:", " jpeg "):
        assert observing.operator(command(text), path) == (JPEG(37), said)
    both = observing.operator(command("blur:1+jpeg"), path)
    assert both == (compose(JPEG(37), GaussianBlur(1.0)), said)
    assert observing.operator(command("jpeg:quality=20"), path) == (JPEG(20), ())
    # The quality of a file that is only degraded now is not that of its degradation.
    assert observing.operator(command("jpeg", damage=True), path) == (JPEG(), ())
    Image.new("RGB", (16, 16)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"operator jpeg: must say how strong the damage was, as in jpeg:quality="):
        observing.operator(command("jpeg"), tmp_path / "x.png")


@pytest.mark.parametrize("text", ["blurr:1", "blur", "kernel:file=gone.png", "jpeg+blur"])
def test_an_operator_that_is_not_understood_is_refused_before_any_image_is_read(text: str) -> None:
    with pytest.raises(InputError, match="operator"):
        observing.check(command(text))
    observing.check(command("jpeg"))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_noise_is_estimated_where_it_is_not_given(channels: int) -> None:
    y = noisy(scene(channels, 96, 96), 0.05)
    found, [said] = observing.noise(command("denoise"), Path("x.png"), y)
    assert found == pytest.approx(0.05, rel=0.12)
    assert said == f"x.png: the noise is estimated as {found:.3f} ({255 * found:.1f} of 255); --noise says another"
    assert observing.noise(command("denoise", noise=0.2), Path("x.png"), y) == (0.2, ())
    if channels == 1:
        gray = observing.noise(command("denoise"), Path("x.png"), y.expand(3, -1, -1))
        assert gray[0] == found


def test_an_image_without_noise_has_that_of_rounding() -> None:
    smooth = torch.linspace(0.2, 0.8, 64).expand(3, 64, 64)
    found, [said] = observing.noise(command("blur:1"), Path("x.png"), smooth)
    assert found == ROUNDING and said == "x.png: no noise was found beyond the rounding to 8 bits"
    assert observing.noise(command("jpeg:50"), Path("x.png"), smooth) == (ROUNDING, ())


def test_of_an_image_too_small_to_tell_the_noise_must_be_given_to_remove_it() -> None:
    tiny = torch.rand(1, 5, 5)
    with pytest.raises(InputError, match="noise: cannot be estimated from an image of 5x5 pixels; say with --noise"):
        observing.noise(command("denoise"), Path("x.png"), tiny)
    found, [said] = observing.noise(command("blur:1"), Path("x.png"), tiny)
    assert found == ROUNDING and "too small to estimate its noise" in said
