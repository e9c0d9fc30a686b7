"""The quality of samples of a trained run: reproducible, by class, over processes, and of points."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffusion import cli, config, figures
from diffusion.data import Dataset
from diffusion.errors import InputError
from diffusion.evaluation import Setting, quality
from diffusion.evaluation.quality import Quality, labels
from diffusion.evaluation.sets import Examples
from diffusion.model import Model, load
from diffusion.training import train
from tests.conftest import fails, finish, start, torchrun
from tests.evaluation.test_dinov2 import random_weights


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return load(trained)


def like(model: Model, count: int, *, seed: int = 0, shares: tuple[float, float] = (0.5, 0.5)) -> Dataset:
    """Random images of a model's kind, whose classes have these shares."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (count, *model.spec.shape), dtype=np.uint8)
    found = np.arange(count) >= shares[0] * count
    return Dataset(values, model.spec, found.astype(np.int64), [str(i) for i in range(count)])


def test_a_run_is_measured_from_end_to_end(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(run), "--quality", "--samples", "12"]) == 0
    text, written = capsys.readouterr().out, json.loads((run / "evaluation-quality-samples12.json").read_text())
    held_out = written["data"]["examples"]
    assert written["size"] == held_out == 11 and written["samples"] == 12 and written["real"] == 22
    assert "quality: 12 samples against real examples, n = 11" in text and written["step"] == 40
    assert f"real: {held_out} examples that were not trained on and, as these are few, {held_out} that were" in text
    assert "samples: dpmpp_2m_sde in 4 steps, seed 0" in text
    assert "classes left out, fewer than 10 samples or 20 real examples: disk (" in text
    shown = figures.read_info(run / "evaluation-quality-samples12.png")["distances"]
    assert shown == written["distances"] and shown.keys() == {"sliced_wasserstein", "patch_mmd"}


def test_weights_are_known_in_names_notes_and_numbers(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(random_weights(0, width=64, depth=1), weights)
    options = ["--quality", "--samples", "12", "--features", "dinov2", "--weights", str(weights)]
    assert cli.main(["evaluate", str(run), *options]) == 0
    sha = quality.features.sha256(weights)
    written = json.loads((run / f"evaluation-quality-samples12-features-dinov2-weights-{sha[:12]}.json").read_text())
    assert written["network"]["sha256"] == sha and sha in capsys.readouterr().out
    assert {"frechet", "kernel", "precision"} <= written["distances"].keys()
    assert "left out: Fréchet distance at N = ∞ (dinov2), which needs n of 256" in written["notes"]


def test_the_same_seed_gives_the_same_numbers_and_another_gives_others(model: Model) -> None:
    held_out = like(model, 40)
    first, again = (Quality(samples=8)(model, held_out, Setting()) for _ in range(2))
    other = Quality(samples=8, seed=1)(model, held_out, Setting())
    assert first == again and first.distances != other.distances


def test_samples_of_what_was_learned_are_nearer_than_noise(model: Model, trained: Path) -> None:
    """The images of the folder against random pixels, both compared with samples of the model."""
    held_out = Examples.real(like(model, 64), None, 32).parts[0]
    noise = Quality(samples=32)(model, held_out, Setting())
    assert all(row.told_apart for row in noise.distances.values())
    assert [*noise.classes] == ["disk", "square"] and "one interval in twenty" in noise.notes[-1]
    assert all(row.told_apart for row in noise.classes.values())


def test_labels_are_as_frequent_as_among_real_examples(model: Model) -> None:
    real = Examples((like(model, 40, shares=(0.75, 0.25)),))
    found = labels(model, real, 80, 0)
    assert found is not None and found.count(0) == 60 and found.count(1) == 20
    assert 0 < sum(found[:8]) < 8, "in a random order"
    assert found == labels(model, real, 80, 0) != labels(model, real, 80, 1)
    plain = Examples((replace(real.parts[0], labels=None),))
    assert labels(model, plain, 5, 0) == [0, 1, 0, 1, 0]


def test_the_samples_are_those_that_the_model_draws(model: Model) -> None:
    held_out = like(model, 40)
    found = Quality(samples=8)(model, held_out, Setting())
    x = model.sample(8, seed=0, label=labels(model, Examples((held_out.evenly(16),)), 8, 0))
    assert found.pictures is not None
    assert torch.equal(found.pictures.samples, model.spec.quantize(x).float() / 255)


def test_two_processes_find_the_same(run: Path) -> None:
    arguments = ["evaluate", str(run), "--quality", "--samples", "8"]
    assert cli.main(arguments) == 0
    path = run / "evaluation-quality-samples8.json"
    alone = json.loads(path.read_text())
    path.unlink()
    code, _, err = finish(start(torchrun(2), "diffusion", *arguments))
    assert code == 0, err
    together = json.loads(path.read_text())
    assert together["distances"]["sliced_wasserstein"]["whole"] == pytest.approx(
        alone["distances"]["sliced_wasserstein"]["whole"], rel=1e-4
    )
    assert together["samples"] == alone["samples"] and together["notes"] == alone["notes"]


def test_points_have_a_distance_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = config.from_dict(
        {
            "data": {"source": "swiss_roll", "count": 400, "held_out": 0.2},
            "backbone": {"name": "mlp", "width": 16},
            "training": {"steps": 5, "batch": 16, "precision": "fp32"},
            "report": {"restored": 0},
        }
    )
    assert train(experiment, tmp_path / "run") == 0
    assert cli.main(["evaluate", str(tmp_path / "run"), "--quality", "--samples", "40"]) == 0
    text = capsys.readouterr().out
    assert "sliced Wasserstein distance" in text and "patch" not in text and "n = 40" in text
    refused = fails(capsys, "evaluate", tmp_path / "run", "--quality", "--features", "dinov2", "--weights", "a")
    assert "--features: must be left out for a model of points" in refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", "3"], "samples: must be at least 4, got 3"),
        (["--weights", "a.pth"], "--weights: must be left out without --features"),
        (["--features", "inception"], "--features inception: needs its weights, --weights FILE"),
        (["--features", "dinov2", "--weights", "none.pth"], "--weights: must be a file that exists, got none.pth"),
        (["--draws", "4"], "--draws: is no option of quality, which takes samples, features, weights, seed"),
        (["--float64"], "--float64: has no effect with quality"),
        (["--no-compare"], "--no-compare: has no effect with quality"),
        (["--limit", "1"], "--limit: must be such that there are 8 real examples to compare with, got 2"),
    ],
)
def test_what_has_no_effect_or_cannot_be_measured_is_refused(
    trained: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert message in fails(capsys, "evaluate", trained, "--quality", *options)


def test_images_with_holes_are_refused(model: Model) -> None:
    held_out = like(model, 40)
    seen = np.ones((40, 1, *model.spec.shape[1:]), dtype=np.uint8)
    with pytest.raises(InputError, match="data: must be seen everywhere for quality"):
        Quality(samples=8)(model, replace(held_out, seen=seen), Setting())
