"""White noise tells nothing of itself: its multi-information is zero, by the estimators that measure dead leaves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks import mcgsm
from benchmarks.experiments import dead_leaves
from benchmarks.experiments.setting import Setting
from diffusion import config, model
from diffusion.data import Dataset, DataSpec
from diffusion.evaluation import Estimate
from diffusion.figures import read_info
from tests.benchmarks.experiments.conftest import Shrink

WHITE = -math.log2(2 * math.pi * math.e) / 2


def white(count: int, side: int, seed: int) -> Dataset:
    values = np.random.default_rng(seed).normal(size=(count, 1, side, side)).astype(np.float32)
    return Dataset(values, DataSpec((1, side, side), None), None, tuple(map(str, range(count))))


def test_the_marginal_entropy_is_that_of_the_law() -> None:
    generator = torch.Generator().manual_seed(0)
    train, test = (torch.randn(200_000, generator=generator) for _ in range(2))
    assert dead_leaves.marginal_entropy(train, test) == pytest.approx(-WHITE, abs=0.01)
    train, test = (4 * torch.rand(200_000, generator=generator) for _ in range(2))
    assert dead_leaves.marginal_entropy(train, test) == pytest.approx(2, abs=0.002)


def test_white_noise_has_no_multi_information(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained network is exact for it."""
    monkeypatch.setattr(dead_leaves, "DRAWS", 128)
    experiment = config.load(dead_leaves.CONFIG, ["backbone.channels=[8]", "backbone.attention=[]", "data.size=16"])
    train, test = white(300, 16, 0), white(60, 16, 1)
    network = model.build(experiment, train.spec).requires_grad_(False)
    exact = model.Model(model.assemble(experiment, network), train.spec, experiment)
    found = dead_leaves.density(exact, test)
    assert found.mean == pytest.approx(WHITE, abs=0.04) and found.half_width is not None
    values = (dead_leaves.images(data, 300).flatten() for data in (train, test))
    assert found.mean + dead_leaves.marginal_entropy(*values) == pytest.approx(0, abs=0.04)


def test_the_experiment_compares_with_the_baseline_and_its_ceiling(
    setting: Setting, shrink: Shrink, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink("data.size=16", "data.count=100", "backbone.channels=[8,8]", "training.batch=4", "sampling.steps=2")
    for name, value in {"TEST": 6, "DRAWS": 4, "SHOWN": 4, "COUNTED": 3}.items():
        monkeypatch.setattr(dead_leaves, name, value)
    monkeypatch.setattr(mcgsm, "PAIRS", 2000)
    monkeypatch.setattr(mcgsm, "STEPS", 3)
    tables, goals = dead_leaves.run(setting)
    ((title, rows),) = tables.items()
    assert "a reconstruction, 16x16" in title
    names = [row["model"] for row in rows]
    assert names[:4] == ["baseline, by construction", "ours", *dead_leaves.PUBLISHED]
    assert [name.removeprefix("... and ") for name in map(str, names[4:])] == [
        "ceiling by noise",
        "grays",
        "shapes, estimated",
    ]
    noise, grays, shapes = (row["bits/pixel"] for row in rows[4:])
    assert isinstance(noise, Estimate) and isinstance(grays, Estimate) and isinstance(shapes, Estimate)
    assert noise.mean == pytest.approx(1.669, abs=1e-3) and noise.half_width == 0
    assert shapes.mean < grays.mean - 0.05 < noise.mean - 0.1
    bits, information = rows[1]["bits/pixel"], rows[1]["multi-information"]
    assert isinstance(bits, Estimate) and isinstance(information, Estimate)
    ceiling = rows[4]["multi-information"]
    assert isinstance(ceiling, Estimate) and information.mean - bits.mean == pytest.approx(ceiling.mean - noise.mean)
    assert [(goal.value, goal.bound) for goal in goals] == [(bits.mean, 1.489), (bits.mean, 1.5)]
    found = {path.name for path in setting.folder.glob("*.png")}
    assert found == {"deadleaves.png", "deadleaves-forward.png", "deadleaves-reverse.png"}
    assert read_info(setting.folder / "deadleaves.png") == {"step": rows[1]["steps"]}
