"""From data to numbers and pictures: the same code for points and images, and every shipped config."""

from __future__ import annotations

import json
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import diffusion
from diffusion import cli, config, figures
from diffusion.backbones import UNetConfig
from diffusion.data import SwissRoll, open_source
from diffusion.evaluation import evaluate
from diffusion.training import train
from diffusion.training.report import Reporter
from tests.conftest import tiny

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.toml"))
POINTS = {
    "data": {"source": "swiss_roll", "count": 400},
    "backbone": {"name": "mlp", "width": 32, "blocks": 2},
    "training": {"steps": 60, "batch": 64, "precision": "fp32"},
    "report": {"pictures": 100, "images": 20, "draws": 2, "samples": 30},
    "sampling": {"steps": 6},
}
IMAGES = {
    "data": {"size": 8, "labels": True, "flip": True, "margin": 1, "held_out": 0.2},
    "backbone": {"name": "unet", "channels": [8, 16], "blocks": 1, "attention": [1]},
    "training": {"steps": 30, "batch": 8, "precision": "fp32"},
    "report": {"pictures": 4, "images": 4, "draws": 2, "samples": 15, "restored": 1},
    "sampling": {"steps": 4},
}


@pytest.mark.parametrize("tree", [POINTS, IMAGES], ids=["points", "images"])
def test_train_load_sample_inpaint_evaluate_and_draw(tree: dict[str, dict], shapes: Path, tmp_path: Path) -> None:
    data = tree["data"] if "source" in tree["data"] else {**tree["data"], "path": str(shapes)}
    experiment = config.from_dict({**tree, "data": data})
    run = tmp_path / "run"
    assert train(experiment, run) == 0

    model = diffusion.load(run)
    assert model.config == experiment and model.step == experiment.training.steps
    dataset = open_source(experiment.data, lambda text: None)
    training, held_out = dataset.split(experiment.data.held_out, experiment.data.seed)
    assert model.spec == dataset.spec

    x = model.sample(40, seed=1)
    assert x.shape == (40, *model.spec.shape) and bool(torch.isfinite(x).all())
    units = model.spec.decode(model.spec.encode(training.center(training.batch(range(len(training)))[0])))
    assert float((x.mean() - units.mean()).abs()) < 0.5 * float(units.std())
    assert float(x.std()) == pytest.approx(float(units.std()), rel=0.5)

    example = units[0]
    known = torch.zeros(example.shape, dtype=torch.bool)
    known[..., : example.shape[-1] // 2] = True
    restored = model.inpaint(example, known, n=3)
    assert torch.equal(restored.samples[:, known], example[known].expand(3, -1))
    assert bool((restored.std[known] == 0).all()) and float(restored.std[~known].max()) > 0

    result = evaluate(model, held_out)
    assert json.loads((run / "evaluation.json").read_text())["mean"] == pytest.approx(result.mean)
    assert result.mean["total"] == pytest.approx(sum(result.mean[k] for k in ("prior", "diffusion", "decoder")))
    assert result.examples == len(held_out) and all(error > 0 for error in result.standard_error.values())
    if model.spec.is_image:
        assert result.unit == "bits/dim" and 0 < result.mean["total"] < 12
    else:
        # It is an upper bound on the cross-entropy of a distribution whose own entropy is known.
        assert result.unit == "bits/vector" and SwissRoll().entropy / math.log(2) < result.mean["total"] < 6

    for name in ("samples.png", "film.png", *(["restoration.png"] if model.spec.is_image else [])):
        assert figures.read_info(run / name)["step"] == experiment.training.steps
    assert cli.main(["sample", str(run), "--n", "4", "--out", str(tmp_path / "out")]) == 0
    assert figures.read_info(tmp_path / "out" / "samples.png")["run"] == "run"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_takes_a_step(
    path: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reporter, "finish", lambda self, model: None)  # Its pictures at 256 x 256 take long.
    overrides = [
        "training.steps=1",
        "training.batch=2",
        "training.precision=fp32",
        "report.pictures=1",
        "report.images=2",
        "report.draws=2",
        "sampling.steps=1",
        "data.held_out=0",
    ]
    shipped = config.load(path)
    if shipped.data.source in ("folder", "digits"):
        overrides += ["data.source=folder", f"data.path={shapes}"]
    else:
        overrides += ["data.count=100"]
    if shipped.data.source == "texture":
        Image.fromarray(np.arange(400 * 300, dtype=np.uint32).reshape(300, 400).astype(np.uint8)).save(
            tmp_path / "photograph.png"
        )
        overrides += [f"data.path={tmp_path / 'photograph.png'}"]
    if isinstance(shipped.backbone, UNetConfig) and min(shipped.data.shape) >= 32:
        # As deep and as large as shipped, but narrow, or a step would take a minute.
        overrides += [f"backbone.channels={[8] * len(shipped.backbone.channels)}", "backbone.blocks=1"]
    assert train(config.load(path, overrides), tmp_path / "run") == 0
    model = diffusion.load(tmp_path / "run")
    assert model.step == 1 and model.spec.shape[1:] == (shipped.data.shape if model.spec.is_image else ())
    assert figures.read_info(tmp_path / "run" / "samples" / "step-00000001.png")["step"] == 1


def test_shards_train_as_their_folder_does(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for folder in sorted(shapes.iterdir()):
        with tarfile.open(tmp_path / "shards" / f"{folder.name}.tar", "w") as shard:
            for path in sorted(folder.iterdir()):
                shard.add(path, f"{folder.name}/{path.name}")
    models = []
    for data in (shapes, tmp_path / "shards"):
        assert train(tiny(data, training={"steps": 3}), tmp_path / f"run-{data.name}") == 0
        models.append(diffusion.load(tmp_path / f"run-{data.name}"))
    assert models[0].spec == models[1].spec
    assert torch.equal(models[0].sample(2, seed=1, label="disk"), models[1].sample(2, seed=1, label="disk"))
    numbers = [json.loads((tmp_path / f"run-{name}" / "evaluation.json").read_text()) for name in ("images", "shards")]
    names = [sorted(Path(name).stem for name in each.pop("names")) for each in numbers]
    paths = [each["data"].pop("path") for each in numbers]
    assert numbers[0] == numbers[1] and names[0] == names[1] and paths == [str(shapes), str(tmp_path / "shards")]
