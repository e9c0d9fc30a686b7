"""`diffusion encode`: the latents of images in a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion import cli
from diffusion.model import load
from tests.conftest import fails, image_of


def photos(folder: Path, n: int = 3) -> list[Path]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(n)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return paths


def test_the_latents_of_a_folder_are_those_of_its_images_in_order(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = photos(tmp_path / "photos")
    out = tmp_path / "made" / "z.npy"
    command = ["encode", str(trained), str(tmp_path / "photos"), "--out", str(out), "--label", "disk", "--batch", "2"]
    assert cli.main([*command, "--tolerance", "1e-3"]) == 0
    assert f"{out}: latents of 3 images, by step 40" in capsys.readouterr().out
    z = np.load(out)
    x = torch.stack([image_of(path) for path in paths])
    expected = load(trained).encode(x, label="disk", batch=2, tolerance=1e-3)
    assert z.dtype == np.float32 and np.allclose(z, expected, atol=1e-5)
    listed = json.loads((tmp_path / "made" / "z.npy.json").read_text())
    assert [Path(name).name for name in listed["images"]] == ["0.png", "1.png", "2.png"] and listed["label"] == "disk"
    assert sorted(path.name for path in out.parent.iterdir()) == ["z.npy", "z.npy.json"]


def test_nothing_is_written_over_and_mistakes_are_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = photos(tmp_path / "photos")
    (tmp_path / "z.npy").write_bytes(b"mine")
    assert "z.npy exists; name another file, or remove it" in fails(
        capsys, "encode", trained, paths[0], "--out", tmp_path / "z.npy"
    )
    assert (tmp_path / "z.npy").read_bytes() == b"mine"
    assert "--out: must be the name of a .npy file, got" in fails(capsys, "encode", trained, paths[0], "--out", "z.png")
    paths[1].write_bytes(paths[1].read_bytes()[:80])
    message = fails(capsys, "encode", trained, tmp_path / "photos", "--out", tmp_path / "other.npy")
    assert "1.png" in message and not (tmp_path / "other.npy").exists()
