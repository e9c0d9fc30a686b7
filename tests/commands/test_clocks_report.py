"""What inspect says of clocks: levels, noise, names, and what it means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion import cli, config
from diffusion.commands import clocks_report
from diffusion.commands.clocks_report import lines
from diffusion.data import open_source
from diffusion.model.clocks import ClassPair, Clocks

FOUND = Clocks(
    count=60_000,
    measured=2000,
    probes=500,
    shape=(1, 28, 28),
    noise=90.0,
    speciation=(-5.1, -4.8, -3.0, -2.9),
    collapse=(-2.03, -2.1, -1.96),
    tenfold=-1.7,
    factor=2345.6,
    recognized=(-3.1, -2.0, -0.9),
    earliest=(("all/x/lonely.png", -4.0),),
    latest=(("all/y/like.png", 1.0),),
    copies=3,
    classes=-4.7,
    first=ClassPair(("bag", "boot"), -4.6, 1.0),
    last=ClassPair(("shirt", "coat"), -1.5, 0.62),
)


def test_every_level_is_said_with_its_noise() -> None:
    """σ is 90 e^{-λ/2} gray levels: 1,153 at -5.1 and 248 at -2.03."""
    text = "\n".join(lines(FOUND))
    assert "60,000 images at 28x28, measured on 2,000" in text and "gray levels of 255" in text
    assert "speciation   -5.1  σ 1,153 " in text and "the next ones at -4.8, -3.0, -2.9" in text
    assert "of the pairs, first bag and boot at -4.6, last shirt and coat at -1.5 (62% decided at the collapse)" in text
    assert "collapse     -2.0  σ 248" in text and "as 2,000 of them say it, which is too noisy by a little" in text
    assert "95 % interval -2.1 to -2.0" in "\n".join(lines(replace(FOUND, measured=60_000)))
    assert "half of 500 images are recognized by then; 5 % by -3.1, 95 % by -0.9; 3 never: copies" in text
    assert "first, isolated: x/lonely.png -4.0" in text and "like them: y/like.png 1.0" in text
    assert "a wide gap of 3.1" in text and "ten times as many images would move the collapse to -1.7" in text
    assert "to move it by 1 takes more than 2,346 times as many" in text


def test_what_is_not_there_is_not_said() -> None:
    bare = replace(FOUND, classes=None, first=None, last=None, collapse=None, recognized=(None, None, None), copies=0)
    text = "\n".join(lines(replace(bare, shape=(2,), count=2000)))
    assert "classes" not in text and "gap" not in text and "2,000 points" in text and "units of the data" in text
    assert "at no level" in text and "never recognized" in text
    assert "no gap" in "\n".join(lines(replace(FOUND, collapse=(-6.0, -6.1, -5.9))))
    assert "takes more than 1,000,000 times" in "\n".join(lines(replace(FOUND, factor=1e9, tenfold=None)))
    two = replace(FOUND, first=FOUND.last)
    assert "of the pairs" not in "\n".join(lines(two)) and "shirt and coat at -1.5" in "\n".join(lines(two))


def test_no_level_has_the_sign_of_zero() -> None:
    assert clocks_report.number(-0.04) == "0.0" and clocks_report.number(-0.06) == "-0.1"


def noise_folder(path: Path, count: int) -> Path:
    random = np.random.default_rng(0)
    for kind in ("a", "b"):
        (path / kind).mkdir(parents=True)
        for i in range(count):
            pixels = random.normal(90 if kind == "a" else 150, 20, (16, 16)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path / kind / f"{i:02d}.png")
    return path


def test_inspect_says_the_clocks_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The two shades are decided before the images; what cannot be decoded is passed over."""
    images = noise_folder(tmp_path / "images", 40)
    broken = (images / "a" / "00.png").read_bytes()
    (images / "a" / "00.png").write_bytes(broken[: len(broken) // 2])
    assert cli.main(["inspect", str(images), "--labels", "--no-measure"]) == 0
    text = capsys.readouterr().out
    assert "what becomes of 80 images at 16x16, measured on 79" in text and "a and b at" in text
    assert "speciation" in text and "collapse" in text
    assert cli.main(["inspect", str(images), "--no-measure", "--no-decode"]) == 0
    assert "collapse" not in capsys.readouterr().out


def said(text: str) -> list[str]:
    """The lines about clocks."""
    found = text.splitlines()
    start = next(i for i, line in enumerate(found) if line.startswith("clocks"))
    return found[start : start + 9]


def test_packed_images_are_taken_from_the_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, written = noise_folder(tmp_path / "images", 20), tmp_path / "x.toml"
    assert cli.main(["inspect", str(images), "--no-measure", "--out", str(written)]) == 0
    decoded = said(capsys.readouterr().out)
    open_source(config.load(written).data, lambda line: None)
    monkeypatch.setattr(clocks_report, "decoded", None)
    assert cli.main(["inspect", str(images), "--no-measure"]) == 0
    assert said(capsys.readouterr().out) == decoded


def test_why_there_are_no_clocks_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    for i in range(3):
        Image.new("L", (16, 16), 7).save(tmp_path / "images" / f"{i}.png")
    assert cli.main(["inspect", str(tmp_path / "images"), "--no-measure"]) == 0
    assert "clocks    none: " in capsys.readouterr().out
