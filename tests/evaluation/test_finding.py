"""What is nearest in pixels and in features, with copies of one image among the training images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from diffusion.data import Dataset, DataSpec
from diffusion.errors import InputError
from diffusion.evaluation import features
from diffusion.evaluation.finding import Finder
from diffusion.evaluation.sets import units
from tests.evaluation.test_dinov2 import random_weights


def dataset(count: int, seed: int = 0, margin: int = 0) -> Dataset:
    """Random images of 256 gray levels, smooth enough to shift."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 4, 4, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, 12 + 2 * margin, mode="bilinear")
    values = (fine * 255).round().to(torch.uint8).numpy()
    return Dataset(
        values, DataSpec((1, 12, 12), 256, (), 127.0, 60.0), None, [f"{i}.png" for i in range(count)], margin
    )


def test_distances_are_root_mean_squares_in_units_without_the_margin() -> None:
    training, others = dataset(60, margin=2), dataset(5, 1)
    finder = Finder.of_pixels(training, 0, shared=False, progress=False).plain
    found = finder.neighbors(finder.mine(others))
    stored = torch.from_numpy(training.values)[..., 2:-2, 2:-2].double() / 255  # type: ignore[arg-type]
    pairs = units(others, range(5)).double()[:, None] - stored
    distances, numbers = pairs.flatten(2).square().mean(2).sqrt().topk(2, largest=False)
    assert torch.equal(found.numbers, numbers)
    torch.testing.assert_close(found.distances, distances, rtol=1e-6, atol=0)


def test_copies_are_told_by_a_third_of_the_usual_distance() -> None:
    """All images are stored twice, the second time with noise: their copies are flagged all the same."""
    once, held_out = dataset(80), dataset(99, 1)
    noise = torch.randint(-3, 4, once.values.shape, generator=torch.Generator().manual_seed(3))
    values = (torch.from_numpy(once.values).int() + noise).clamp(0, 255).to(torch.uint8)  # type: ignore[arg-type]
    both = torch.cat([torch.from_numpy(once.values), values]).numpy()  # type: ignore[arg-type]
    training = Dataset(both, once.spec, None, [f"{i}" for i in range(160)])
    finder = Finder.of_pixels(training, 1, shared=False, progress=False)
    copies = units(training, range(20, 50)) + 0.01
    verdict = finder.verdict(copies, held_out, 0.01)
    nearest = finder.neighbors(finder.mine(held_out)).distances[:, 0]
    assert verdict.same == pytest.approx(float(nearest.median()) / 3)
    assert verdict.neighbors.numbers[:, 0].tolist() == list(range(20, 50))
    assert not (verdict.neighbors.numbers[:, 1] == torch.arange(100, 130)).any()
    assert verdict.flagged.all() and verdict.neighbors.distances[:, 0].tolist() == pytest.approx([0.01] * 30, rel=1e-3)
    assert float(finder.neighbors(copies).ratios.max()) > verdict.test.threshold, "but for this rule"
    with pytest.raises(InputError, match="data: must be two different training examples or more, got copies of one"):
        Finder.of_pixels(once.subset([3, 3, 3]), 1, shared=False, progress=False).neighbors(copies, 0.0)


def test_features_are_compared_as_the_network_gives_them(tmp_path: Path) -> None:
    save_file(random_weights(0, width=64, depth=1), tmp_path / "dinov2.safetensors")
    network = features.load("dinov2", tmp_path / "dinov2.safetensors")
    training, others = dataset(30), dataset(4, 1)
    finder = Finder.of_features(training, network, shared=False, progress=False)
    found = finder.neighbors(torch.cat([finder.mine(others), units(training, [7])]))
    ours, theirs = (network(torch.from_numpy(part.values)) for part in (others, training))  # type: ignore[arg-type]
    distances, numbers = (ours[:, None] - theirs).norm(dim=2).topk(2, largest=False)
    assert torch.equal(found.numbers[:4], numbers) and int(found.numbers[4, 0]) == 7
    torch.testing.assert_close(found.distances[:4], distances, rtol=1e-4, atol=1e-5)
    assert float(found.distances[4, 0]) < 1e-4 * float(distances.min())
