"""The benchmark of restorations damages as it says, counts evaluations alike for all, and ranks exact and wrong
restorations of a model whose posterior is known.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import restoration
from benchmarks.restoration import Case, measured, tasks
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.data.observing import Observing
from diffusion.denoiser import Denoiser, V
from diffusion.grids import UniformLogSNR
from diffusion.model import Model
from diffusion.restoration import METHODS
from diffusion.restoration.statistics import seam
from diffusion.schedules import EDM
from tests.oracles import OracleNetwork, short_correlations

SIDE = 12
SPEC = DataSpec((1, SIDE, SIDE), 256, (), 127.5, 30.0)


ORACLE = short_correlations(EDM(), SIDE, SIDE, 1.5)


@pytest.fixture
def model() -> Model:
    oracle = ORACLE
    experiment = replace(Config(), grid=UniformLogSNR(-10.0, 8.0))
    return Model(Denoiser(OracleNetwork(oracle, V()), oracle.schedule, V()), SPEC, experiment)  # type: ignore[arg-type]


def images(n: int) -> torch.Tensor:
    x = ORACLE.sample(n, torch.Generator().manual_seed(0)).float()
    return (127.5 + 30 * x).round().clamp(0, 255) / 255


def test_the_tasks_hide_what_they_say() -> None:
    found = tasks(16, 16)
    hidden = {name: float((~task.known).float().mean()) for name, task in found.items() if task.known is not None}
    assert hidden == {"box": 0.25, "box in noise": 0.25, "half": 0.5, "random": pytest.approx(0.92, abs=0.04)}
    assert {name: task.noise for name, task in found.items()} == {
        **dict.fromkeys(("box", "half", "random"), 0.0),
        **{"box in noise": 0.1, "x4": 0.05, "blur": 0.05},
    }
    assert set(found) - set(hidden) == {"x4", "blur"}
    assert "x4" not in tasks(16, 18)


def test_the_default_is_right_and_the_product_is_not(model: Model) -> None:
    figures: dict[str, list[dict[str, float]]] = {"exact": [], "product": []}
    task, seams = tasks(SIDE, SIDE)["box"], []
    assert task.known is not None
    for image in images(10):
        case = Case.of(image, task)
        best = case.restored(model, "mmps", 19, steps=16)
        assert torch.equal(best.samples[:, :, 0], image[None, :, 0].expand(19, -1, -1)), "what is known is kept"
        # Exact restorations and the image have one distribution: which of two has the larger seam is a toss of a coin.
        seams.append(float(seam(best.samples, task.known, image).log().mean()))
        figures["exact"].append(measured(case, best))
        figures["product"].append(measured(case, case.restored(model, "product", 19, steps=16)))
    mean = {
        name: {column: float(np.mean([row[column] for row in rows])) for column in rows[0]}
        for name, rows in figures.items()
    }
    assert mean["exact"]["coverage"] == pytest.approx(0.9, abs=0.06)
    assert mean["exact"]["seam"] == pytest.approx(1, abs=0.15)
    assert np.mean(seams) == pytest.approx(0, abs=0.15)
    assert mean["product"]["energy score"] > mean["exact"]["energy score"]
    assert mean["product"]["PSNR of the mean"] < mean["exact"]["PSNR of the mean"]


def test_all_methods_do_as_much_work_as_the_default(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "held-out", tmp_path / "found.json"
    folder.mkdir()
    for number, image in enumerate(images(3)):
        Image.fromarray((image[0] * 255).byte().numpy()).save(folder / f"{number}.png")
    monkeypatch.setattr(restoration, "load", lambda run, device: model)
    names = list(restoration.COMPARABLE)
    assert set(METHODS) - set(names) == {"mmps", "particles", "resampling", "learned"}
    arguments = ["run", "--data", str(folder), "--limit", "2", "--steps", "4", "--out", str(out), "--tasks"]
    restoration.main([*arguments, "random", "x4", "--methods", *names])
    record = json.loads(out.read_text())
    ((title, rows),) = record["tables"].items()
    assert "2 images of 12x12, 19 restorations" in title
    by_task = {task: {row["method"]: row for row in rows if row["task"] == task} for task in ("random", "x4")}
    assert set(by_task["random"]) == {"default", *names} - {"zero"}, "which cannot do without noise"
    assert set(by_task["x4"]) == {"default", *names} - {"repaint", "replacement"}
    for found in by_task.values():
        work = {name: row["NFE"] + row["backward"] for name, row in found.items()}
        assert all(abs(value - work["default"]) <= 5.5 for value in work.values()), work
    names = {goal["name"].partition(":")[0] for goal in record["goals"]}
    assert names == {"random", "x4"} and "coverage is from 0.9, beside ddnm's" in capsys.readouterr().out
    with Image.open(out.with_suffix("") / "random.png") as picture:
        assert picture.height > 2 * len(by_task["random"]) * 96


def test_a_model_that_learned_to_restore_is_shown_beside_guidance(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "held-out", tmp_path / "found.json"
    folder.mkdir()
    for number, image in enumerate(images(2)):
        Image.fromarray((image[0] * 255).byte().numpy()).save(folder / f"{number}.png")
    learned = replace(model, config=replace(model.config, observed=Observing(share=0.5)))
    monkeypatch.setattr(restoration, "load", lambda run, device: learned)
    arguments = ["run", "--data", str(folder), "--limit", "2", "--steps", "8", "--out", str(out)]
    restoration.main([*arguments, "--tasks", "box in noise", "x4", "--methods", "repaint"])
    record = json.loads(out.read_text())
    ((_, rows),) = record["tables"].items()
    found = {task: {row["method"]: row for row in rows if row["task"] == task} for task in ("box in noise", "x4")}
    assert set(found["box in noise"]) == {"learned", "mmps", "repaint"} and set(found["x4"]) == {"default"}
    ours, theirs = found["box in noise"]["learned"], found["box in noise"]["mmps"]
    assert (ours["NFE"], ours["backward"]) == (8, 0) and theirs["NFE"] == 8 and theirs["backward"] >= 8
    # Both are exact here, and their scores are those of the same posterior.
    assert ours["energy score"] == pytest.approx(theirs["energy score"], rel=0.15)
    assert "box in noise: energy score of the default, beside mmps's" in {goal["name"] for goal in record["goals"]}
