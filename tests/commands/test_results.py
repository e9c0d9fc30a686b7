"""The files of one image's restorations: what they say, and which older ones they replace."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion import figures
from diffusion.commands import results
from diffusion.model.restoration import Diagnostics, Restoration
from diffusion.restoration import statistics
from diffusion.restoration.methods import Guided
from tests.conftest import image_of


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def restoration(n: int, residual: float = 1.0, seed: int = 0) -> Restoration:
    samples = torch.rand(n, 3, 6, 5, generator=torch.Generator().manual_seed(seed))
    return Restoration(samples, Diagnostics(Guided(), 4.0, 8.0, 0.5, residual))


def info(n: int, image: str = "photo.png", **more: object) -> dict[str, Any]:
    return {"image": image, "n": n, "method": "mmps", "seed": 3, **more}


def write(folder: Path, found: Restoration, image: str = "photo.png", original: Tensor | None = None) -> None:
    """Writes restorations of an image that lies in another folder."""
    path = folder.parent / "images" / image
    path.parent.mkdir(exist_ok=True)
    path.touch()
    results.write(
        folder,
        path,
        found,
        info(len(found.samples), image),
        damaged=found.samples[0],
        known=None,
        original=original,
    )


def restored(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("restored-*.png"))


def test_pictures_are_those_of_the_samples_and_carry_their_settings(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = restoration(3)
    write(out, found)
    low, high = found.interval(results.CONFIDENCE)
    pictures = {"mean": found.mean, "low": low, "high": high, "std": found.std / found.std.max()}
    pictures |= {f"restored-{i}": x for i, x in enumerate(found.samples)}
    for name, x in pictures.items():
        assert torch.equal(image_of(out / f"{name}.png"), (x * 255).round().byte()), name
        assert figures.read_info(out / f"{name}.png").items() >= info(3).items()
    assert figures.read_info(out / "restored-2.png")["index"] == 2
    assert figures.read_info(out / "std.png")["white"] == pytest.approx(float(found.std.max()))
    assert figures.read_info(out / "low.png")["interval"] == pytest.approx(0.5), "of three samples"
    written = json.loads((out / "restoration.json").read_text())
    assert written == {**info(3), "diagnostics": json.loads(json.dumps(found.diagnostics.to_dict()))}
    assert not (out / "damaged.png").exists()
    assert capsys.readouterr().out == f"{out}: photo.png restored 3 times by mmps in 0.5 s, seed 3\n"


@pytest.mark.parametrize("n", [18, 19])
def test_restorations_are_compared_with_the_original_where_it_is_known(out: Path, n: int) -> None:
    found, original = restoration(n), restoration(1, seed=1).samples[0]
    write(out, found, original=original)
    written = json.loads((out / "restoration.json").read_text())
    error = (found.mean - original).square().mean().item()
    assert written["psnr_of_mean"] == pytest.approx(-10 * math.log10(error))
    if n < 19:
        assert "coverage_90" not in written, "too few for an interval of 90 %"
    else:
        covered = statistics.coverage(found.samples, original, confidence=0.9).mean().item()
        assert written["coverage_90"] == pytest.approx(covered) and 0.8 < covered < 1
    assert torch.equal(image_of(out / "damaged.png"), (found.samples[0] * 255).round().byte())


def test_an_infinite_psnr_is_left_out(out: Path) -> None:
    found = Restoration(torch.full((2, 3, 6, 5), 0.25), restoration(1).diagnostics)
    write(out, found, original=torch.full((3, 6, 5), 0.25))
    assert "psnr_of_mean" not in json.loads((out / "restoration.json").read_text())


def test_nothing_is_written_or_removed_where_a_number_is_not_finite(out: Path) -> None:
    write(out, restoration(3))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(out, restoration(2, residual=math.nan, seed=1))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_older_pictures_of_the_same_image_are_removed_and_no_others(out: Path) -> None:
    write(out, restoration(5), original=restoration(1).samples[0])
    figures.save_png(torch.zeros(3, 4, 4), out / "restored-7.png", {"image": "another.png"})
    figures.save_png(torch.zeros(3, 4, 4), out / "restored-08.png", {"image": "photo.png"})
    (out / "restored-9.png").write_text("no picture")
    write(out, restoration(2))
    assert restored(out) == [
        "restored-0.png",
        "restored-08.png",
        "restored-1.png",
        "restored-7.png",
        "restored-9.png",
    ]
    assert not (out / "damaged.png").exists(), "this time nothing was damaged to try it out"


def test_the_image_itself_is_never_removed(out: Path) -> None:
    """A restoration may be restored again where it lies."""
    write(out, restoration(4), "restored-3.png")
    image = out / "restored-3.png"
    found = restoration(2)
    results.write(out, image, found, info(2, image.name), damaged=found.samples[0], known=None, original=None)
    assert restored(out) == ["restored-0.png", "restored-1.png", "restored-3.png"]
