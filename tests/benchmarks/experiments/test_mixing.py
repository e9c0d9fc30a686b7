"""Shares of modes are counted right, and Langevin dynamics is exact within a mode and stays in it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from benchmarks.experiments import mixing
from benchmarks.experiments.mixing import Shares, best, by_chance, langevin, of_steps, starts
from benchmarks.experiments.setting import Setting
from diffusion.data import Lattice
from tests.benchmarks.experiments.conftest import Shrink


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shares_are_those_of_the_nearest_modes() -> None:
    modes = Lattice()
    counts = [3, 0, 1, *[1] * 22]
    x = torch.cat([modes.centers[k : k + 1].expand(n, 2) for k, n in enumerate(counts)])
    x = x + torch.tensor([3.9, 0.0]).double() * modes.std
    found = Shares.of(modes, x)
    assert found.shares.tolist() == pytest.approx([n / 26 for n in counts]) and found.near == 1
    assert found.error == pytest.approx(max(abs(n / 26 - float(w)) for n, w in zip(counts, modes.weights, strict=True)))
    # All points of the mode that is second to the heaviest have gone, which is all of its weight.
    assert found.relative >= 1 / 25**0.5
    assert Shares.of(modes, x + 0.2 * modes.std).near == 0


@pytest.mark.parametrize("even", [False, True], ids=["unequal", "even"])
def test_exact_draws_err_by_chance_alone(even: bool) -> None:
    """The error of a share is normal with variance w (1 - w)/N; the largest of 25 equal ones is about two std."""
    modes, points = Lattice(even=even), 20_000
    chance = by_chance(modes, points)
    std = float((modes.weights * (1 - modes.weights) / points).sqrt().max())
    assert 1.4 * std < chance < 2.6 * std
    exact = Shares.of(modes, modes.sample(points, generator()))
    assert exact.error < 2 * chance and exact.near == pytest.approx(1 - math.exp(-8), abs=1e-3)


@pytest.mark.parametrize("step", [0.1, 0.5, 1.0])
def test_langevin_steps_are_those_of_a_gaussian_mode(step: float) -> None:
    """Within a mode x' = (1 - η/σ²) x + √(2η) z, whose stationary variance is σ² / (1 - η / (2 σ²))."""
    modes = Lattice()
    start = modes.centers[mixing.MIDDLE].expand(20_000, 2)
    x = langevin(modes, start, 60, step, generator())
    found = float((x - modes.centers[mixing.MIDDLE]).square().mean()) / modes.std**2
    assert found == pytest.approx(1 / (1 - step / 2), rel=0.02)
    assert (modes.mode(x) == mixing.MIDDLE).all()


def test_langevin_dynamics_from_one_mode_stays_there_and_from_noise_where_it_falls() -> None:
    modes = Lattice(even=True)
    found = of_steps(modes, "one mode", 200, 100)
    kept = best(modes, found, mixing.KEPT)
    assert Shares.of(modes, found[kept]).error == pytest.approx(1 - 1 / 25)
    # The largest step makes modes so wide that points leave them, and is no sampler of the modes.
    widest = best(modes, found, 0.0)
    assert widest == 1.9 and Shares.of(modes, found[widest]).near < 0.5 and kept < 1.9
    found = of_steps(modes, "N(0, I)", 5000, 100)
    x = found[best(modes, found, mixing.KEPT)]
    # Each point falls into the mode whose cell it starts in; the cells at the corners have little of N(0, I).
    begun = Shares.of(modes, starts(modes)["N(0, I)"](5000, generator(mixing.SEED)))
    ended = Shares.of(modes, x)
    assert ended.near > 0.95 and (ended.shares - begun.shares).abs().max() < 0.01
    assert ended.error > 0.02


def test_the_experiment_in_seconds(setting: Setting, shrink: Shrink, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink("training.steps=2", "training.batch=16", "data.count=100", "sampling.steps=3")
    for name, value in {"POINTS": 300, "LONG": 50, "TIMES": (1, 2), "STEP_SIZES": (0.5,), "EXACT": 2}.items():
        monkeypatch.setattr(mixing, name, value)
    tables, goals = mixing.run(setting)
    assert [title.split(";")[0] for title in tables] == ["25 modes of unequal weights", "25 modes of equal weights"]
    for rows in tables.values():
        assert [row["calls per point"] for row in rows] == [0, 2, 2, 4, 2, 4]
        assert [row["points"] for row in rows] == [300, 300, 300, 50, 300, 50]
        exact, untrained = (float(str(row["near"])) for row in rows[:2])
        assert exact > 0.98 and untrained < 0.5
    assert [goal.met for goal in goals] == [False, False]
    assert {path.name for path in setting.folder.glob("*.png")} == {"mixing-unequal.png", "mixing-equal.png"}


def test_a_sampler_that_knows_the_modes_would_meet_the_goal() -> None:
    """The goal is above the error by chance of so many points, and a network that misses a mode misses it."""
    modes = Lattice()
    assert by_chance(modes, mixing.POINTS) < mixing.WITHIN / 3

    def without(mode: int) -> Tensor:
        x = modes.sample(mixing.POINTS, generator())
        return x[modes.mode(x) != mode]

    assert Shares.of(modes, without(int(modes.weights.argmax()))).error > mixing.WITHIN
