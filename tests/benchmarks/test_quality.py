"""The quality benchmark trains from scratch whatever an earlier one left, within its time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import quality
from benchmarks.judge import Images

SMALL = ("backbone.channels=[8,8,8]", "training.batch=4", "training.precision=fp32", "sampling.precision=fp32")


def test_a_second_benchmark_starts_from_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "OURS", {"plain": ("data.labels=false", "sampling.guidance=1", *SMALL)})
    monkeypatch.setattr(quality, "TRIAL", 4)
    values = torch.randint(0, 256, (32, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = Images(values, torch.arange(32) % 10)
    first, second = (quality.train_ours("plain", images, 1.0, tmp_path) for _ in range(2))
    (saved,) = (tmp_path / "plain" / "checkpoints").iterdir()
    assert saved.name == f"step-{second.steps:08d}" and first.steps > 0
    x = second.sample(3)
    assert x.shape == (3, 1, 28, 28) and float(x.std()) > 0.05
    assert quality.eight_bit(torch.tensor([-0.1, 0.5, 1.2])).tolist() == [0, 128, 255]


def test_the_peers_left_are_those_with_a_distance(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no trained peers"):
        quality.peers_left(tmp_path)
    for name, distance in {"diffusion": 5.0, "diffusers": 400.0}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"contestant": name, "Fréchet distance": distance}))
    assert quality.peers_left(tmp_path) == {"diffusers": 400.0}
