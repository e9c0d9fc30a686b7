"""The quality benchmark trains from scratch whatever an earlier one left, within its time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import judge, quality, timed
from benchmarks.judge import Images

SMALL = ("backbone.channels=[8,8,8]", "training.batch=4", "training.precision=fp32", "sampling.precision=fp32")


def test_a_second_benchmark_starts_from_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "OURS", {"plain": ("data.labels=false", "sampling.guidance=1", *SMALL)})
    monkeypatch.setattr(timed, "TRIAL", 4)
    values = torch.randint(0, 256, (32, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = Images(values, torch.arange(32) % 10)
    first, second = (quality.train_ours("plain", images, 1.0, tmp_path) for _ in range(2))
    (saved,) = (tmp_path / "plain" / "checkpoints").iterdir()
    assert saved.name == f"step-{second.steps:08d}" and first.steps > 0
    x = second.sample(3)
    assert x.shape == (3, 1, 28, 28) and float(x.std()) > 0.05
    assert quality.eight_bit(torch.tensor([-0.1, 0.5, 1.2])).tolist() == [0, 128, 255]


def test_the_judge_is_trained_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randint(0, 256, (40, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images, trainings = Images(values, torch.arange(40) % 10), []
    monkeypatch.setattr(Images, "read", lambda data, part: images)
    monkeypatch.setattr(judge, "train", lambda given: (trainings.append(given), judge.Judge().eval())[1])
    first, second = (quality.Referee.of(tmp_path, images, tmp_path / "kept") for _ in range(2))
    assert len(trainings) == 1
    assert torch.equal(first.real, second.real) and first.floor(20) == second.floor(20) > 0
    assert first.distance(values[:20]) == first.distance(values[:20].float() / 255) == first.floor(20)


def test_only_those_left_samples_who_have_been_there(tmp_path: Path) -> None:
    assert quality.samples_left("diffusers", tmp_path) is None
    x = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 2, 2)
    save_file({"samples": x}, tmp_path / "diffusers-samples.safetensors")
    left = quality.samples_left("diffusers", tmp_path)
    assert left is not None and torch.equal(left, x)
