"""Students: what a distilled model learns, where it starts, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffusion import checkpoint, cli, config
from diffusion.config import Config, DistillationConfig
from diffusion.data import open_source
from diffusion.errors import InputError
from diffusion.model import Model, assemble, build, load
from diffusion.objectives import Batch
from diffusion.samplers import SDESolver
from diffusion.training import objective, train
from diffusion.training.distill import student

NFE = 4


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of points on a Swiss roll."""
    run = tmp_path_factory.mktemp("teachers") / "teacher"
    tree: dict[str, dict[str, object]] = {
        "data": {"source": "swiss_roll", "count": 1000},
        "backbone": {"name": "mlp", "width": 32, "blocks": 2},
        "training": {"steps": 150, "batch": 128, "precision": "fp32"},
        "report": {"pictures": 16, "images": 16, "draws": 2},
    }
    assert train(config.from_dict(tree), run) == 0
    return run


@pytest.fixture(scope="module")
def distilled(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of 150 steps, by the command."""
    out = tmp_path_factory.mktemp("students") / "student"
    options = ["--nfe", str(NFE), "--out", str(out), "training.steps=150", "distillation.substeps=4"]
    assert cli.main(["distill", str(teacher), *options]) == 0
    return out


def test_training_brings_the_student_nearer_to_where_its_teacher_arrives(teacher: Path, distilled: Path) -> None:
    taught, own = load(distilled, device="cpu"), load(teacher, device="cpu")
    untaught = build(taught.config, taught.spec)
    goal = objective.build(taught.config, taught.spec, untaught, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    values, label = open_source(taught.config.data, lambda text: None).batch(range(500))
    x, u = taught.spec.encode(values), torch.rand(500, generator=generator)
    noise = torch.randn(x.shape, generator=generator)
    with torch.no_grad():
        before, after = (
            goal.loss(assemble(taught.config, network), Batch(x, u, noise, label)).mean()
            for network in (untaught, taught.denoiser.backbone)
        )
    assert all(torch.equal(a, b) for a, b in zip(untaught.parameters(), parameters(own), strict=True))
    assert own.config.sampler == SDESolver(), "what the teacher samples with itself draws noise, targets must not"
    assert after < 0.1 * before, (float(after), float(before))


def parameters(model: Model) -> Iterator[Tensor]:
    backbone = model.denoiser.backbone
    assert isinstance(backbone, nn.Module)
    return backbone.parameters()


def test_a_student_starts_from_its_teacher(teacher: Path, tmp_path: Path) -> None:
    experiment = student(teacher, NFE, ["training.steps=1", "training.lr=1e-12"])
    assert train(experiment, tmp_path / "run") == 0
    before, after = (checkpoint.read(checkpoint.find(run)[0], "model").tensors for run in (teacher, tmp_path / "run"))
    assert all(torch.allclose(after[name], before[name], atol=1e-6) for name in before)


def test_the_command_keeps_what_the_teacher_was_and_sets_what_a_student_needs(teacher: Path, distilled: Path) -> None:
    own, taught = (load(run, device="cpu").config for run in (teacher, distilled))
    assert taught.backbone == own.backbone and taught.data == own.data and taught.schedule == own.schedule
    assert taught.sampling.steps == NFE and taught.sampling.guidance == 1
    assert taught.distillation == DistillationConfig(teacher=str(teacher), substeps=4)
    assert taught.training.steps == 150 and taught.training.lr < own.training.lr


def test_a_student_shows_samples_and_claims_no_likelihood(distilled: Path) -> None:
    assert (distilled / "samples.png").exists() and (distilled / "film.png").exists()
    assert not (distilled / "evaluation.json").exists() and not (distilled / "restoration.png").exists()
    rows = [json.loads(line) for line in (distilled / "metrics.jsonl").read_text().splitlines()]
    assert not any("held_out" in key for row in rows for key in row)
    assert all("loss" in row for row in rows)


def test_what_a_student_cannot_do_is_refused_and_names_the_teacher(teacher: Path, distilled: Path) -> None:
    model = load(distilled, device="cpu")
    image = torch.zeros(model.spec.shape)
    known = torch.arange(image.numel()).reshape(image.shape) > 0
    for ask in (
        lambda: model.log_likelihood(image[None]),
        lambda: model.inpaint(image, known),
    ):
        with pytest.raises(InputError, match=f"distilled to sample in few evaluations; ask its teacher, {teacher}"):
            ask()
    for options in ({"steps": 5}, {"sampler": "heun"}):
        with pytest.raises(InputError, match=f"distilled for {NFE} steps of its own sampler"):
            model.sample(1, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="distilled with its teacher's guidance in it, got 2"):
        model.sample(1, guidance=2.0)
    with pytest.raises(InputError, match="distilled for one grid"):
        model.tuned()
    assert model.sample(1, steps=NFE).shape == (1, *model.spec.shape)


def broken(experiment: Config, **changes: object) -> Config:
    return replace(experiment, **changes)  # type: ignore[arg-type]


def test_a_teacher_that_does_not_suit_is_refused(teacher: Path, distilled: Path, trained: Path, tmp_path: Path) -> None:
    experiment = student(teacher, NFE, ["training.steps=1"])
    wider = broken(experiment, backbone=replace(experiment.backbone, blocks=3))  # type: ignore[call-arg]
    with pytest.raises(InputError, match="backbone: must be that of the teacher"):
        train(wider, tmp_path / "wider")
    other = broken(experiment, distillation=DistillationConfig(str(trained)))
    with pytest.raises(InputError, match=r"distillation.teacher: .* was trained on other data"):
        train(other, tmp_path / "other")
    with pytest.raises(InputError, match=r"was distilled itself, from .*; learn from that"):
        train(student(distilled, NFE, ["training.steps=1"]), tmp_path / "grandchild")


def test_the_grid_of_a_student_may_not_change_on_the_way(teacher: Path, distilled: Path) -> None:
    longer = student(teacher, NFE, ["training.steps=310", "distillation.substeps=4", "grid.sigma_max=10"])
    with pytest.raises(InputError, match=r"grid.sigma_max: 20.0 -> 10.0"):
        train(longer, distilled)
