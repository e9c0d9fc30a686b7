"""Both sets of images go through one experiment, whose goals depend on the time that was given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import cifar
from benchmarks.experiments import images
from benchmarks.experiments.setting import Setting
from benchmarks.judge import Images
from diffusion.config import ConfigError
from diffusion.data import DataOptions, Dataset
from diffusion.data.sources import Log
from diffusion.evaluation import Estimate
from tests.benchmarks.experiments.conftest import Shrink

CONFIG = """
[data]
labels = true

[backbone]
name = "unet"
channels = [8, 8]
blocks = 1
attention = []

[training]
batch = 4

[sampling]
steps = 2
"""


def drawn(channels: int, side: int = 8, count: int = 24, seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 256, (count, channels, side, side), generator=generator, dtype=torch.uint8)
    return Images(values, torch.arange(count) % 10)


@pytest.fixture
def small(tmp_path: Path, shrink: Shrink, monkeypatch: pytest.MonkeyPatch) -> Setting:
    shrink()
    path = tmp_path / "small.toml"
    path.write_text(CONFIG)
    for name, value in {
        "CIFAR10": path,
        "FASHION": path,
        "DRAWS": 2,
        "FLOWS": 2,
        "FLOW": replace(images.FLOW, tolerance=0.1),
        "SAMPLES": 4,
    }.items():
        monkeypatch.setattr(images, name, value)
    return Setting(tmp_path / "found", minutes=0.01, data=tmp_path)


def test_cifar_stands_beside_what_was_published_in_both_units(small: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "read", lambda data, part: drawn(3, seed=len(part)))
    monkeypatch.setattr(images, "GOALS", {0.01: 4.2, 90.0: 3.5})
    tables, goals = images.cifar10(small)
    ((title, rows),) = tables.items()
    assert "0.01 minutes" in title and [row["model"] for row in rows[:2]] == ["ours, bound", "ours, ode"]
    assert [row["images"] for row in rows[:2]] == [24, 2]
    k, over, bits = (rows[0][column] for column in ("K, bits/pixel", "K − L_null", "bits/dim"))
    assert isinstance(k, Estimate) and isinstance(over, Estimate) and isinstance(bits, Estimate)
    # Uniform values have a standard deviation of 73.9 levels.
    assert k.mean / 3 + bits.mean == pytest.approx(6.207, abs=0.03)
    assert over.mean - k.mean == pytest.approx(3 * 2.0471, abs=1e-3)
    assert [(goal.value, goal.bound, goal.direction) for goal in goals] == [(bits.mean, 4.2, "at most")]
    assert [row["bits/dim"] for row in rows[2:]] == [4.20, 3.70, 2.65]
    assert {path.name for path in small.folder.glob("*.png")} == {
        "cifar10.png",
        "cifar10-forward.png",
        "cifar10-reverse.png",
    }


def test_fashion_is_measured_alike(small: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[str] = []
    monkeypatch.setattr(Images, "read", lambda data, part: (parts.append(part), drawn(1))[1])
    tables, goals = images.fashion(small)
    assert parts == ["train", "t10k"] and goals == []
    assert [row["model"] for row in next(iter(tables.values()))] == ["ours, bound", "ours, ode"]
    assert (small.folder / "fashion-forward.png").exists()


def test_photographs_are_measured_on_others(
    small: Setting, shrink: Shrink, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shrink("data.size=8", "data.count=40", "backbone.channels=[8]", "backbone.attention=[]", "training.batch=4")
    monkeypatch.setattr(images, "CROPS", 6)
    for part, low in (("train", 0), ("test", 128)):
        (tmp_path / part).mkdir()
        for number in range(3):
            pixels = np.random.default_rng(number).integers(low, low + 128, (12, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / f"{number}.png")
    given: list[Dataset] = []
    open_source = images.open_source

    def spy(options: DataOptions, log: Log) -> Dataset:
        given.append(open_source(options, log))
        return given[-1]

    monkeypatch.setattr(images, "open_source", spy)
    tables, goals = images.photographs(small)
    train, test = (data.batch(range(len(data)))[0] for data in given)
    assert train.max() < 128 <= test.min() and goals == []
    bound, flow = next(iter(tables.values()))
    assert (bound["images"], flow["images"]) == (6, 2)
    # Gray levels are what the network has never seen, far from the mean: worse than eight bits.
    assert isinstance(bound["bits/dim"], Estimate) and bound["bits/dim"].mean > 8
    assert (small.folder / "photographs-forward.png").exists()


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "read", lambda data, part: drawn(3))
    monkeypatch.setattr(images, "CIFAR10", tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"none\.toml: no such config file"):
        images.cifar10(Setting(tmp_path, data=tmp_path))
