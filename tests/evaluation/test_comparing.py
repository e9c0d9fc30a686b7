"""Comparisons of sets: the distances that there are, their names, what joins processes, and points."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from diffusion.distances import FEATURE_DISTANCES, IMAGE_DISTANCES
from diffusion.errors import InputError
from diffusion.evaluation import comparing
from diffusion.evaluation.comparing import FEATURES, NEAR, Comparing, OfPoints, Sets
from diffusion.evaluation.features import FID, FeatureNetwork, load
from tests.evaluation.test_dinov2 import random_weights

SHAPE = (1, 8, 8)


def noise(count: int, seed: int) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> FeatureNetwork:
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(random_weights(0, width=64, depth=1), path)
    return load("dinov2", path)


def test_every_set_is_described_once_and_batches_do_not_matter(network: FeatureNetwork) -> None:
    described, x = Comparing(SHAPE, network), noise(7, 0)
    whole, parts = described.describe([x]), described.describe([x[:3], x[3:]])
    assert whole.keys() == {*IMAGE_DISTANCES, FEATURES} and whole[FEATURES].shape == (7, 64)
    assert all(torch.allclose(whole[key], parts[key], rtol=1e-5, atol=1e-5) for key in whole)
    assert all(len(rows) == 0 for rows in described.describe([]).values())


def test_processes_share_the_distances_and_have_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, shared = Comparing(SHAPE), Comparing(SHAPE, shared=True)
    sets = Sets(alone.describe([noise(12, 0)]), alone.describe([noise(24, 1)]))
    expected = alone.compare(sets)
    parts: list[Tensor] = []
    monkeypatch.setattr(comparing.distributed, "count", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(comparing.distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(comparing.distributed, "gather", lambda part: parts.append(part) or part.repeat(2, 1))
        shared.compare(sets)
    assert [len(part) for part in parts] == [1, 1]
    monkeypatch.setattr(comparing.distributed, "gather", lambda part: torch.cat(parts))
    assert shared.compare(sets) == expected
    assert list(expected) == [*IMAGE_DISTANCES]


def test_the_whole_distance_is_that_of_all_members() -> None:
    described = Comparing(SHAPE)
    sets = Sets(described.describe([noise(12, 0)]), described.describe([noise(30, 1)]))
    found = described.compare(sets)
    for key, kind in IMAGE_DISTANCES.items():
        assert found[key].whole == kind()(sets.samples[key], sets.real[key]) and found[key].comparison.size == 12


def test_fid_is_only_what_has_its_weights(network: FeatureNetwork) -> None:
    def named(name: str, sha256: str) -> list[str]:
        of = FeatureNetwork(name, network.module, "file", sha256, "", network.device)
        return [Comparing(SHAPE, of).name(key) for key in ("frechet", "frechet_extrapolated", "kernel", "recall")]

    assert named("inception", f"{FID}00") == ["FID", "FID at N = ∞", "KID", "recall (inception)"]
    others = named("inception", "00") + named("dinov2", f"{FID}00")
    assert not any("FID" in name or "KID" in name for name in others)
    assert others[0] == "Fréchet distance (inception)" and others[6] == "kernel distance (dinov2)"


def test_distances_that_need_more_examples_are_left_out(network: FeatureNetwork) -> None:
    described = Comparing(SHAPE, network)
    assert [*described.possible(8, 15)] == [*IMAGE_DISTANCES, "frechet", "kernel"]
    assert described.least("frechet_extrapolated") == 4 * 64
    assert [*described.possible(256, 512)] == [*IMAGE_DISTANCES, *FEATURE_DISTANCES]
    described.check(4, 8, "--samples", "data")
    with pytest.raises(InputError, match="--samples: must be at least 4, got 3"):
        described.check(3, 8, "--samples", "data")
    with pytest.raises(InputError, match="data: must be such that there are 8 real examples to compare with, got 7"):
        described.check(4, 7, "--samples", "data")


def test_points_have_the_sliced_distance_of_their_coordinates() -> None:
    """Two clouds in the plane that differ by a shift alone have 2/π of it, the mean |cos|, as distance, in standard
    deviations of all their coordinates about the mean of these.
    """
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4000, 2, generator=generator)
    b = torch.randn(4000, 2, generator=generator) + torch.tensor([20.0, 0.0])
    distance = OfPoints()
    found = distance(distance.describe(a), distance.describe(b))
    scale = float(torch.cat([a, b]).std(correction=0))
    assert found == pytest.approx(20 / scale * 2 / torch.pi, rel=0.1)
    assert [*Comparing((2,)).distances] == ["sliced_wasserstein", *NEAR]


def test_points_beside_a_line_are_told_by_what_is_near_them() -> None:
    """Points on a circle, and as many with noise, whose projections are nearly the same."""
    generator = torch.Generator().manual_seed(0)
    angles = 2 * torch.pi * torch.rand(180, generator=generator)
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    noisy = circle[:60] + 0.1 * torch.randn(60, 2, generator=generator)
    points = Comparing((2,))
    found = points.compare(Sets(points.describe([noisy]), points.describe([circle[60:]])))
    assert not found["sliced_wasserstein"].told_apart
    assert found["precision"].comparison.excess.high < 0


def test_classes_are_compared_by_a_distance_without_bias(network: FeatureNetwork) -> None:
    x, y = noise(24, 0), noise(48, 1)
    for described, name in ((Comparing(SHAPE), "patch MMD²"), (Comparing(SHAPE, network), "kernel distance (dinov2)")):
        sets = Sets(described.describe([x]), described.describe([y]))
        parts = {"a": sets.of(torch.arange(24) < 12, torch.arange(48) < 24)}
        assert parts["a"].counts == (12, 24)
        row = described.by_class(parts)["a"]
        assert row.name == name and row.comparison.size == 12
