"""The files of one image's restorations: what they say, and that they are complete where their record is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion import figures
from diffusion.commands.photographs import results
from diffusion.commands.photographs.canvas import canvas
from diffusion.commands.photographs.photograph import read_photograph
from diffusion.data import DataSpec
from diffusion.model.restoration import Diagnostics, Restoration
from diffusion.restoration import statistics
from diffusion.restoration.methods import Guided
from tests.conftest import image_of

SPEC = DataSpec((3, 6, 5), 256, mean=100.0, std=50.0)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def restoration(n: int, residual: float = 1.0, seed: int = 0) -> Restoration:
    samples = torch.rand(n, 3, 6, 5, generator=torch.Generator().manual_seed(seed))
    return Restoration(samples, Diagnostics(Guided(), 4.0, 8.0, 0.5, residual))


def info(n: int, image: str = "photo.png", **more: object) -> dict[str, Any]:
    return {"image": image, "n": n, "method": "mmps", "seed": 3, **more}


def write(folder: Path, found: Restoration, original: Tensor | None = None, *, replaces: bool = False) -> Path:
    """Writes restorations of a black photograph of 8 bits."""
    folder.parent.mkdir(exist_ok=True)
    photo = folder.parent / "photo.png"
    Image.new("RGB", (5, 6)).save(photo)
    made, _ = canvas(read_photograph(photo), (3, 6, 5), SPEC, known=None, background=(255, 255, 255))
    shown = results.Shown(found.samples[0], None, original)
    return results.write(folder, found, made, info(found.n), {"image_sha256": "x"}, shown, replaces=replaces)


def restored(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("restored-*.png"))


def test_pictures_are_those_of_the_samples_and_carry_their_settings(out: Path) -> None:
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
    assert written == {
        **info(3),
        "image_sha256": "x",
        "diagnostics": json.loads(json.dumps(found.diagnostics.to_dict())),
    }
    assert not (out / "damaged.png").exists()


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


def test_the_record_is_moved_last_so_that_it_marks_what_is_complete(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption at any moment leaves no record of pictures that are not there."""
    write(out, restoration(3))
    replace = Path.replace

    def stop(self: Path, target: Path) -> Path:
        if target.name == "restored-0.png" and target.parent == out:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write(out, restoration(3), replaces=True)
    monkeypatch.undo()
    assert not (out / "restoration.json").exists()
    assert not list(out.parent.glob(".tmp-*"))
    write(out, restoration(3, seed=1), replaces=True)
    assert restored(out) == ["restored-0.png", "restored-1.png", "restored-2.png"]
    assert (out / "restoration.json").exists()


def test_an_interruption_before_all_is_written_leaves_nothing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "write_text", stop)
    with pytest.raises(KeyboardInterrupt):
        write(out, restoration(3))
    assert {path.name for path in out.parent.iterdir()} == {"photo.png"}


def test_what_another_command_wrote_meanwhile_stays_as_it_is(out: Path) -> None:
    """Two commands at once may both have found the folder free."""
    assert write(out, restoration(2)) == out
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    beside = write(out, restoration(3, seed=1))
    assert beside == out.with_name("out-2") and restored(beside) == [f"restored-{i}.png" for i in range(3)]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (mine := out.with_name("mine")).mkdir()
    (mine / "notes.txt").write_text("mine")
    assert write(mine, restoration(1)) == mine and (mine / "notes.txt").read_text() == "mine"
    assert (mine / "restoration.json").exists()


def test_results_under_the_names_of_images_are_recorded_line_by_line(tmp_path: Path) -> None:
    found = restoration(1)
    for name in ("a.png", "b/c.png"):
        results.note(tmp_path, tmp_path / name, info(1), {"number": 0}, found)
    lines = [json.loads(line) for line in (tmp_path / "restorations.jsonl").read_text().splitlines()]
    assert [line["result"] for line in lines] == ["a.png", "b/c.png"] and lines[0]["diagnostics"]["nfe"] == 4
    with (tmp_path / "restorations.jsonl").open("a") as file:
        file.write('{"result": "cut')
    results.note(tmp_path, tmp_path / "d.png", info(1), {}, found)
    assert json.loads((tmp_path / "restorations.jsonl").read_text().splitlines()[-1])["result"] == "d.png"
