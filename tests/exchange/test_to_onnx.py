"""Exported networks, run by onnxruntime: the same output, and through the script the same samples as ours."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion.config import DistillationConfig
from diffusion.data import DataSpec
from diffusion.errors import InputError
from diffusion.exchange import to_onnx
from diffusion.exchange.to_onnx import describe, write
from diffusion.model import Model
from tests.own_models import CENTERED, MEASURED, UNET, discrete, made

LABELED = replace(MEASURED, classes=("dog", "cat"))
POINTS = DataSpec((2,), None, mean=1.0, std=2.0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def script(folder: Path, *arguments: object) -> str:
    """Runs the script of an exported folder where nothing but NumPy, onnxruntime and Pillow can be imported."""
    blocked = "import sys; sys.modules.update(torch=None, diffusion=None); sys.argv = sys.argv[1:]; import runpy; "
    command = [sys.executable, "-c", f"{blocked}runpy.run_path(sys.argv[0], run_name='__main__')", "sample.py"]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def drawn(folder: Path, noise: Tensor, *arguments: object) -> Tensor:
    np.save(folder / "noise.npy", noise.numpy())
    script(folder, "--noise", "noise.npy", "--out", "samples.npy", *arguments)
    return torch.from_numpy(np.load(folder / "samples.npy"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path, list[str]]:
    """A U-Net of images with classes, guidance, a map and a condition, and its exported folder."""
    model = made(
        LABELED,
        {**UNET, "channels": [4], "attention": [0], "fourier": 1},
        data={"labels": True},
        observed={"share": 0.5},
        condition={"operator": "gray"},
        sampling={"precision": "fp32", "guidance": 2.0, "interval": [-3.0, 3.0], "steps": 5},
        sampler={"name": "dpmpp_2m"},
    )
    folder = tmp_path_factory.mktemp("onnx") / "images"
    return model, folder, write(model, folder)


def test_the_files_say_what_they_are(images: tuple[Model, Path, list[str]]) -> None:
    _, folder, lines = images
    assert sorted(path.name for path in folder.iterdir()) == ["network.json", "network.onnx", "sample.py"]
    network, sampler = lines
    named = "network.onnx: x, log_snr, label, log_snr_map, condition -> output; checked by onnxruntime, differs by "
    assert network.startswith(named) and float(network.removeprefix(named).split()[0]) < 1e-5
    assert sampler == "sample.py: draws by DPM-Solver++ 2M in 5 steps, with numpy and onnxruntime alone"
    graph = onnx.load(folder / "network.onnx").graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    assert {name for name, kind in kinds.items() if kind != onnx.TensorProto.FLOAT} == {"label"}
    assert all(value.type.tensor_type.shape.dim[0].dim_param for value in graph.input)


@pytest.mark.parametrize(("n", "label"), [(1, None), (3, "cat")])
def test_the_script_draws_the_samples_of_our_sampler(
    images: tuple[Model, Path, list[str]], n: int, label: str | None
) -> None:
    model, folder, _ = images
    noise = normal(n, *model.spec.shape)
    expected = model.sample(noise=noise, label=label)
    found = drawn(folder, noise, *(["--label", label] if label else []))
    error, spread = float((found - expected).abs().max()), float(expected.std())
    assert error < 1e-4 < 0.05 < spread, (error, spread)


def test_the_script_tells_the_network_a_condition_and_writes_images(
    images: tuple[Model, Path, list[str]], tmp_path: Path
) -> None:
    model, folder, _ = images
    told = replace(
        model, denoiser=replace(model.denoiser, condition=normal(1, *(model.config.condition_channels(3), 16, 16)))
    )
    condition = told.denoiser.condition
    assert condition is not None
    np.save(tmp_path / "told.npy", condition.numpy())
    noise = normal(2, *model.spec.shape)
    expected = told.sample(noise=noise)
    error = float((drawn(folder, noise, "--condition", tmp_path / "told.npy") - expected).abs().max())
    assert error < 1e-4 < float((expected - model.sample(noise=noise)).abs().max()), error
    script(folder, "--noise", "noise.npy", "--condition", tmp_path / "told.npy", "--out", tmp_path / "pictures")
    pictures = [np.array(Image.open(path)) for path in sorted((tmp_path / "pictures").iterdir())]
    rounded = expected.permute(0, 2, 3, 1).mul(255).numpy()
    assert len(pictures) == 2 and float(np.abs(np.stack(pictures) - rounded).max()) < 0.52


def test_points_are_drawn_by_ddim_as_students_draw(tmp_path: Path) -> None:
    model = made(POINTS, {"name": "mlp", "width": 8, "blocks": 1}, sampler={"name": "ddim"}, observed={"share": 0.5})
    lines = write(model, tmp_path / "out", steps=3)
    assert "draws by DDIM in 3 steps" in lines[1]
    noise = normal(5, 2)
    expected = model.sample(noise=noise, steps=3)
    error = float((drawn(tmp_path / "out", noise) - expected).abs().max())
    assert error < 1e-4 < float(expected.std()), error


def test_the_network_of_diffusers_finds_its_time_in_its_table(tmp_path: Path) -> None:
    """Its labels include none for "no label", so that the script asks for one."""
    spec = replace(CENTERED, classes=("dog", "cat"))
    network = {"num_class_embeds": 2, "block_out_channels": [4, 8]}
    model = discrete(spec, network, data={"labels": True}, parameterization={"name": "v"})
    write(model, tmp_path / "out", steps=4)
    noise = normal(2, *spec.shape)
    expected = model.sample(noise=noise, steps=4, sampler="dpmpp_2m", label="dog")
    error = float((drawn(tmp_path / "out", noise, "--label", "dog") - expected).abs().max())
    inside = float(((expected > 0) & (expected < 1)).float().mean())
    assert error < 1e-4 < 0.5 < inside, (error, inside)
    assert not json.loads((tmp_path / "out" / "network.json").read_text())["unlabeled"]


@pytest.mark.parametrize("sampler", ["dpmpp_2m_sde", "heun", "ddpm"])
def test_the_steps_have_the_coefficients_of_the_denoiser(sampler: str) -> None:
    """x̂ of the table is that of the denoiser, on schedules that keep the variance and that do not."""
    for schedule in ("edm", "flow", "cosine"):
        model = made(POINTS, {"name": "rbf", "units": 3}, sampler={"name": sampler}, schedule={"name": schedule})
        found = describe(model, 6)
        assert found["order"] == 2 and len(found["steps"]) == 6
        x, network = normal(4, 2), model.denoiser.backbone
        for step, t in zip(found["steps"], model.config.grid(model.denoiser.schedule, 6), strict=False):
            with torch.no_grad():
                output = network(step["c_in"] * x, torch.full((4,), step["log_snr"]))
            error = float((step["c_skip"] * x + step["c_out"] * output - model.denoiser(x, t).mean).abs().max())
            assert error < 1e-5, (schedule, error)


def test_students_take_their_own_steps_and_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(POINTS, {"name": "rbf", "units": 3}, sampling={"steps": 4})
    student = replace(model, config=replace(model.config, distillation=DistillationConfig("runs/teacher")))
    with pytest.raises(InputError, match=r"^steps: must be 4, for which this model was distilled, got 5$"):
        write(student, tmp_path / "out", steps=5)
    assert len(describe(student)["steps"]) == 4
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(InputError, match=r"^--to onnx: needs onnxscript: pip install 'reverse-diffusion\[onnx\]'$"):
        write(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_network_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, export = made(POINTS, {"name": "rbf", "units": 3}), to_onnx._export

    def wrong(network: to_onnx.Deployed, examples: tuple[Tensor, ...], path: Path) -> None:
        export(network, examples, path)
        network.backbone.get_parameter("centers").add_(0.1)

    monkeypatch.setattr(to_onnx, "_export", wrong)
    with pytest.raises(
        InputError, match=r"^network.onnx: differs from the network by \d\.\de.* of its output; it is not"
    ):
        write(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_settings_of_the_exporter_are_left_as_they_were() -> None:
    before: int = logging.root.manager.disable
    with to_onnx._quiet():
        assert logging.root.manager.disable == logging.WARNING
    assert logging.root.manager.disable == before
