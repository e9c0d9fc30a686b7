"""`diffusion decode`: the images of latents, which are those that were encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion import cli, figures
from tests.conftest import fails, image_of


def test_what_was_encoded_is_decoded_to_the_same_bytes(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "photos" / "a.png")
    z, out = str(tmp_path / "z.npy"), tmp_path / "out"
    assert cli.main(["encode", str(trained), str(tmp_path / "photos"), "--out", z]) == 0
    decoded = ["decode", str(trained), z, "--out", str(out)]
    assert cli.main(decoded) == 0
    assert f"{out}: 1 image of step 40 in" in capsys.readouterr().out
    assert torch.equal(image_of(out / "00000.png"), image_of(tmp_path / "photos" / "a.png"))
    assert figures.read_info(out / "00000.png")["decode"] == "z.npy"
    assert cli.main(decoded) == 0
    assert "1 image of step 40, all there already" in capsys.readouterr().out
    message = fails(capsys, *decoded, "--label", "disk")
    assert "holds samples of label none, not disk; name another folder" in message


def test_what_holds_no_latents_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "z.npy", np.zeros((2, 3, 8, 9), np.float32))
    assert "must hold floats (N, 3, 8, 8), got float32 (2, 3, 8, 9)" in fails(
        capsys, "decode", trained, tmp_path / "z.npy", "--out", tmp_path / "out"
    )
    np.save(tmp_path / "z.npy", np.full((1, 3, 8, 8), np.nan, np.float32))
    assert "z: must be finite, got nan in example 0" in fails(
        capsys, "decode", trained, tmp_path / "z.npy", "--out", tmp_path / "out"
    )
    assert not (tmp_path / "out").exists()
