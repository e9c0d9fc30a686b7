"""Exported folders in diffusers: the same estimates, the same images, and the same model when they are read again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDPMPipeline, EDMEulerScheduler, UNet2DModel
from torch import Tensor

import diffusion
from diffusion.config import DistillationConfig
from diffusion.data import DataSpec
from diffusion.errors import InputError
from diffusion.exchange import folder, imported
from diffusion.exchange.to_diffusers import write
from diffusion.grids import Tabulated
from diffusion.model import Model
from tests.own_models import CENTERED, MEASURED, SIDE, UNET, discrete, made

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
STEPS = 8


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weights_of(model: Model) -> dict[str, Tensor]:
    network = model.denoiser.backbone
    assert isinstance(network, torch.nn.Module)
    return network.state_dict()


def drawn_by_diffusers(saved: Path, noise: Tensor, steps: int = STEPS) -> Tensor:
    """What DDIM of diffusers makes of x_t at its first timestep, in units, without clamping: (N, C, H, W)."""
    pipeline = DDIMPipeline.from_pretrained(saved)
    pipeline.set_progress_bar_config(disable=True)
    x, scheduler = noise, pipeline.scheduler
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        with torch.no_grad():
            # Of networks with a variance DDIM knows the other half alone.
            x = scheduler.step(pipeline.unet(x, t).sample[:, : x.shape[1]], t, x, eta=0.0).prev_sample
    return x / 2 + 0.5


def drawn_here(model: Model, noise: Tensor, label: int | str | None = None) -> Tensor:
    """What our DDIM makes at the timesteps that diffusers chooses. Continuous values are not clamped, which would hide
    that they differ: with random weights hardly any lies in [0, 1].
    """
    network = model.denoiser.backbone
    assert isinstance(network, torch.nn.Module)
    table = network.get_buffer("clock.log_snrs")
    timesteps = torch.arange(len(table), 0, -len(table) // STEPS).long() - 1
    grid = Tabulated(tuple(table[timesteps].tolist()))
    spec = replace(model.spec, levels=None, mean=0.5, std=0.5)
    return replace(model, config=replace(model.config, grid=grid), spec=spec).sample(
        noise=noise, steps=STEPS, sampler="ddim", label=label
    )


def off(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, in units of the largest value if that is above 1."""
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1))


def first_scale(model: Model) -> float:
    """σ at the last entry of the table, where both begin."""
    network = model.denoiser.backbone
    assert isinstance(network, torch.nn.Module)
    return float(torch.sigmoid(-network.get_buffer("clock.log_snrs")[-1]).sqrt())


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"parameterization": {"name": "v"}, "schedule": {"name": "cosine"}},
        {"parameterization": {"name": "x0"}, "schedule": {"name": "discrete", "steps": 1000}},
        {"parameterization": {"name": "edm", "sigma_data": 1.0}},
        {"model": {"learned_variance": True}, "training": {"hybrid": 0.1}},
        {"model": {"learned_variance": True, "variance": "linear"}, "training": {"hybrid": 0.1}},
    ],
    ids=["eps", "v", "x0", "edm", "variance", "linear variance"],
)
def test_diffusers_draws_the_same_images(sections: dict[str, Any], tmp_path: Path) -> None:
    model = discrete(**sections)
    # Some schedules do not reach the ends of the table.
    model = replace(model, denoiser=replace(model.denoiser, schedule=discrete().denoiser.schedule))
    write(model, tmp_path / "out")
    noise = normal(3, *model.spec.shape)
    ours, theirs = drawn_here(model, noise), drawn_by_diffusers(tmp_path / "out", first_scale(model) * noise)
    error, spread = off(ours, theirs), float((ours[0] - ours[1]).std())
    assert error < 1e-4 < 0.1 < spread, (error, spread)


def test_the_pipeline_draws_by_itself_and_the_output_is_that_of_the_network(tmp_path: Path) -> None:
    spec = DataSpec((1, SIDE, 2 * SIDE), 256, (), 127.5, 127.5)
    model = discrete(spec)
    assert write(model, tmp_path / "out") == []
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "out")
    pipeline.set_progress_bar_config(disable=True)
    (image,) = pipeline(num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images
    assert (image.size, image.mode) == ((2 * SIDE, SIDE), "L")
    x, table = normal(2, *spec.shape), model.denoiser.schedule.log_snr(torch.linspace(0, 1, 1000).double())
    for index in (0, 77, 999):
        with torch.no_grad():
            theirs = pipeline.unet(x, index).sample
        ours = model.denoiser.backbone(x, table[index].repeat(2))
        error = float((ours - theirs).abs().max())
        assert error < 1e-4 * float(theirs.abs().max()), (index, error)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"parameterization": {"name": "v"}, "schedule": {"name": "discrete", "steps": 20, "beta_max": 0.3}},
        {"schedule": {"name": "discrete", "steps": 4, "betas": [0.1, 0.2, 0.3 - 1e-16, 0.5]}},
        {"parameterization": {"name": "edm", "sigma_data": 0.5}, "schedule": {"name": "edm", "rho": 6.0}},
        {"parameterization": {"name": "flow"}, "schedule": {"name": "flow", "sigma_min": 0.02, "alpha_min": 0.02}},
        {"model": {"learned_variance": True, "variance": "linear"}, "training": {"hybrid": 0.001}},
    ],
    ids=["eps", "v", "betas", "edm", "flow", "variance"],
)
def test_an_exported_model_that_is_imported_is_the_same_to_the_last_bit(
    sections: dict[str, Any], tmp_path: Path
) -> None:
    kind = sections.get("parameterization", {}).get("name")
    schedule = sections.get("schedule", {})
    steps = schedule.get("steps", 1000)
    time = {"edm": "edm", "flow": "flow"}.get(kind, "index")
    model = discrete(backbone={"time": time, "steps": 50 if time == "flow" else steps}, **sections)
    if time == "index":
        network = model.denoiser.backbone
        assert isinstance(network, torch.nn.Module)
        network.get_buffer("clock.log_snrs").copy_(model.denoiser.schedule.table)  # type: ignore[attr-defined]
    write(model, tmp_path / "out")
    again = folder.read(tmp_path / "out")
    imported.write(again, tmp_path / "run")
    read = diffusion.load(tmp_path / "run", device="cpu")
    expected, found = weights_of(model), weights_of(read)
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    assert read.spec == model.spec
    for section in ("backbone", "schedule", "parameterization", "model"):
        assert getattr(read.config, section) == getattr(model.config, section), section
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert ("model_index.json" in files) == (time == "index")


def test_labels_come_back_by_number_and_none_as_one_more(tmp_path: Path) -> None:
    model = discrete(replace(CENTERED, classes=("dog", "cat")), data={"labels": True})
    write(model, tmp_path / "out")
    imported.write(folder.read(tmp_path / "out"), tmp_path / "run")
    read = diffusion.load(tmp_path / "run", device="cpu")
    read = replace(read, config=replace(read.config, sampling=model.config.sampling))
    assert read.spec.classes == ("0", "1", "2")
    expected, found = weights_of(model), weights_of(read)
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    noise = normal(2, *model.spec.shape)
    for number, label in (("1", "cat"), ("2", None)):
        assert torch.equal(drawn_here(read, noise, number), drawn_here(model, noise, label)), number


def test_a_network_of_other_noise_levels_samples_with_its_own_preconditioning(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"parameterization": {"name": "edm", "sigma_data": 0.5}, "schedule": {"name": "edm"}}
    model = discrete(backbone={"time": "edm"}, **sections)
    (line,) = write(model, tmp_path / "out")
    assert line.startswith("EDMEulerScheduler: no pipeline of diffusers samples a UNet2DModel by it")
    scheduler = EDMEulerScheduler.from_pretrained(tmp_path / "out", subfolder="scheduler")
    network = UNet2DModel.from_pretrained(tmp_path / "out", subfolder="unet")
    scheduler.set_timesteps(5)
    t, sigma = scheduler.timesteps[2], scheduler.sigmas[2]
    x = normal(2, *model.spec.shape) * sigma
    with torch.no_grad():
        output = network(scheduler.precondition_inputs(x, sigma), t).sample
    theirs = scheduler.precondition_outputs(x, output, sigma)
    ours = model.denoiser(x, model.denoiser.schedule.time(-2 * sigma.double().log())).mean
    error = float((ours - theirs).abs().max() / theirs.abs().max())
    assert error < 1e-4, error


@pytest.mark.parametrize(("label", "number"), [("cat", 1), ("0", 0), ("-1", -1)])
def test_one_class_becomes_a_model_without_classes(label: str, number: int, tmp_path: Path) -> None:
    model = discrete(replace(CENTERED, classes=("dog", "cat")), data={"labels": True})
    (line,) = write(model, tmp_path / "all")
    assert line == (
        "labels: the network takes class_labels, 0 dog, 1 cat, 2 for none; DDPMPipeline gives none and cannot draw: "
        "--label NAME exports the model of one class"
    )
    assert write(model, tmp_path / "one", label=label) == []
    noise = normal(2, *model.spec.shape)
    theirs = drawn_by_diffusers(tmp_path / "one", first_scale(model) * noise)
    error = off(drawn_here(model, noise, label=None if number < 0 else number), theirs)
    assert error < 1e-4, error
    network = UNet2DModel.from_pretrained(tmp_path / "all", subfolder="unet")
    with torch.no_grad():
        told = network(noise, 500, class_labels=torch.tensor([number % 3, number % 3])).sample
        baked = UNet2DModel.from_pretrained(tmp_path / "one", subfolder="unet")(noise, 500).sample
    assert float((told - baked).abs().max()) < 1e-4 * float(told.abs().max())


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "schedule": {"name": "cosine"},
        "model": {"learned_variance": True},
        "training": {"hybrid": 0.1, "label_dropout": 0.1},
        "sampling": {"guidance": 2.0},
    }
    model = discrete(replace(CENTERED, classes=("a", "b", "c", "d", "e")), data={"labels": True}, **sections)
    labels, schedule, variance, guidance = write(model, tmp_path / "out")
    assert "class_labels, 0 a, 1 b, 2 c, ... 4 e, 5 for none;" in labels
    assert schedule.startswith("schedule: diffusers samples on the 1,000 timesteps") and "9.21 to -10.1" in schedule
    assert variance.startswith("model.learned_variance: is left out")
    assert guidance == "sampling.guidance: 2 is left out, as no pipeline here guides"
    values = json.loads((tmp_path / "out" / "unet" / "config.json").read_text())
    assert (values["out_channels"], values["num_class_embeds"]) == (3, 6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (made(CENTERED, UNET), "backbone.name: must be unet2d for --to diffusers, whose network that is, got UNet; "),
        (discrete(MEASURED), "mean, std of the data: must be 127.5 and 127.5 for --to diffusers, whose images are"),
        (discrete(replace(CENTERED, shape=(3, 16, 15))), r"data.size: must be a multiple of 2 for --to .* got \(16, 1"),
        (
            discrete(backbone={"time_features": 12}),
            "backbone.time_features: must be unset for --to diffusers, .* got 12",
        ),
        (discrete(observed={"share": 0.5}), "observed.share: must be unset for --to diffusers, whose network takes"),
        (discrete(condition={"operator": "gray"}), "condition.operator, data.condition: must be unset .* got gray"),
        (
            discrete(parameterization={"name": "edm", "sigma_data": 0.5}),
            "parameterization.name, backbone.time: edm with sigma_data = 0.5 and index have no scheduler together; eps",
        ),
    ],
    ids=["network", "units", "size", "time", "map", "condition", "preconditioning"],
)
def test_what_diffusers_cannot_express_is_refused(model: Model, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        write(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_students_labels_that_do_not_exist_and_folders_that_do_are_refused(tmp_path: Path) -> None:
    model = discrete()
    student = replace(model, config=replace(model.config, distillation=DistillationConfig("runs/teacher")))
    for wrong, label, message in (
        (student, None, "distillation.teacher: must be unset for --to diffusers, as a student samples on its own grid"),
        (model, "cat", "label: must be left out for a network without classes, got 'cat'"),
    ):
        with pytest.raises(InputError, match=f"^{message}"):
            write(wrong, tmp_path / "out", label=label)
    write(model, tmp_path / "out")
    with pytest.raises(InputError, match="out: is there already, and nothing is overwritten"):
        write(model, tmp_path / "out")


def test_16_bits_and_continuous_values_are_centered_too(tmp_path: Path) -> None:
    """[-1, 1] is the middle of their range, give or take its half."""
    for levels, middle in ((1 << 16, 32767.5), (None, 0.5)):
        spec = DataSpec((3, SIDE, SIDE), levels, (), middle, middle)
        model = discrete(spec)
        assert write(model, tmp_path / str(levels)) == []
        noise = normal(2, *spec.shape)
        theirs = drawn_by_diffusers(tmp_path / str(levels), first_scale(model) * noise)
        error = off(drawn_here(model, noise), theirs)
        assert error < 1e-4, (levels, error)
