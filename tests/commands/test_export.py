"""`diffusion export` writes what other programs read, and says what it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel

import diffusion
from diffusion import checkpoint, cli
from diffusion.checkpoint import Part, Retention
from diffusion.model.loading import describe
from tests.conftest import fails
from tests.own_models import discrete


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A run of the network of diffusers, with random weights."""
    model = discrete()
    network = model.denoiser.backbone
    assert isinstance(network, torch.nn.Module)
    part = Part(network.state_dict(), describe(model.config, model.spec, 5))
    checkpoint.write(tmp_path / "run", 5, {"model": part}, keep=Retention(1))
    return tmp_path / "run"


def test_a_run_becomes_a_folder_of_diffusers_beside_its_results(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(made), "--to", "diffusers"]) == 0
    assert capsys.readouterr().out == f"{made}/diffusers: written\n"
    network, own = UNet2DModel.from_pretrained(made / "diffusers" / "unet"), diffusion.load(made, device="cpu")
    x = torch.randn(1, *own.spec.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs, ours = network(x, 999).sample, own.denoiser.network(x, torch.ones((), dtype=torch.float64))[0]
    assert float((ours - theirs).abs().max()) < 1e-4 * float(theirs.abs().max())
    assert "is there already, and nothing is overwritten" in fails(capsys, "export", made, "--to", "diffusers")
    assert cli.main(["export", str(made / "step-00000005"), "--to", "diffusers", "--out", str(tmp_path / "b")]) == 0


def test_a_run_becomes_files_of_onnx_with_so_many_steps(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("diffusion.exchange.to_onnx._export", lambda network, examples, path: path.write_bytes(b"x"))
    monkeypatch.setattr("diffusion.exchange.to_onnx._checked", lambda network, path, shape: "checked")
    assert cli.main(["export", str(made), "--to", "onnx", "--out", str(tmp_path / "out"), "--steps", "3"]) == 0
    assert len(json.loads((tmp_path / "out" / "network.json").read_text())["steps"]) == 3
    assert capsys.readouterr().out.splitlines() == [
        "network.onnx: x, log_snr -> output; checked",
        "sample.py: draws by DPM-Solver++ 2M in 3 steps, with numpy and onnxruntime alone",
        f"{tmp_path}/out: written",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "diffusers", "--steps", "3"], "--steps: needs --to onnx"),
        (["--to", "onnx", "--label", "cat"], "--label: needs --to diffusers"),
        (["--to", "diffusers", "--label", "cat"], "label: must be left out for a network without classes, got 'cat'"),
    ],
)
def test_options_without_effect_are_refused(
    arguments: list[str], message: str, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails(capsys, "export", made, *arguments).startswith(f"error: {message}")
    assert [path.name for path in made.iterdir()] == ["checkpoints"]
