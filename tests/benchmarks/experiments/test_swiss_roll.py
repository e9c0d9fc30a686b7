"""The ceiling of K is what an exact network reaches, and more steps bring it to the entropy; K of denoisers that are
exact for the roll, or for white noise, is what it must be.
"""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch

from benchmarks.experiments import swiss_roll
from benchmarks.experiments.setting import Setting
from benchmarks.experiments.swiss_roll import LATTICE, Best, best, ceiling, discrete, gap
from diffusion.data import SwissRoll
from diffusion.evaluation import Estimate
from diffusion.likelihood.bound import bound_2015
from diffusion.model.likelihood import example_noise
from diffusion.schedules import EDM, DiscreteBetas
from tests.benchmarks.experiments.conftest import Shrink


def even(steps: int, low: float, high: float) -> DiscreteBetas:
    return discrete(torch.linspace(high, low, steps, dtype=torch.float64))


def test_the_table_of_a_schedule_is_what_it_is_made_of() -> None:
    log_snr = torch.tensor([13.0, 9.0, 5.5, 1.0, -3.0], dtype=torch.float64)
    assert torch.allclose(discrete(log_snr).table, log_snr, atol=1e-9)


def test_the_ceiling_rises_to_the_entropy_with_the_steps_and_never_passes_it() -> None:
    roll = SwissRoll(noise=0.3)
    x = roll.sample(600, torch.Generator().manual_seed(0))
    limit = float(roll.log_density(x).mean())
    found = [float(ceiling(roll, even(n + 1, -8.0, 12.0), n, x).mean()) for n in (10, 40, 160)]
    assert found[0] < found[1] - 0.2 < found[2] - 0.2
    assert limit - 0.15 < found[2] < limit + 0.05


def test_no_other_schedule_of_the_lattice_has_a_higher_ceiling() -> None:
    roll, lattice = SwissRoll(noise=0.5), torch.linspace(-3.0, 9.0, 7, dtype=torch.float64)
    x = roll.sample(1000, torch.Generator().manual_seed(0))
    chosen = best(roll, 4, lattice, x)
    found = {
        rows: float(ceiling(roll, discrete(lattice[list(rows)]), 3, x).mean())
        for rows in combinations(range(6, -1, -1), 4)
    }
    rows = tuple(int((lattice - level).abs().argmin()) for level in chosen.table)
    assert torch.allclose(chosen.table, lattice[list(rows)], atol=1e-9)
    # The two estimates of E log differ by the draws they are made on.
    assert found[rows] > max(found.values()) - 0.02 > min(found.values()) + 0.5


def test_k_of_the_exact_denoiser_in_continuous_time_is_the_log_density() -> None:
    roll, schedule = SwissRoll(noise=0.3), EDM(sigma_min=0.002, sigma_max=80.0)
    x, ends = roll.sample(300, torch.Generator().manual_seed(0)), torch.tensor([1.0, 0.0], dtype=torch.float64)
    k = bound_2015(
        Best(roll, schedule, ends), x, ends, continuous=True, draws=300, randn=example_noise(0, 1, 0, range(300))
    )
    short = gap(k.total, roll.log_density(x))
    assert short.standard_error < 0.1 and abs(short.mean) < 3 * short.standard_error


def test_an_untrained_network_is_exact_for_white_noise_and_so_scores_l_null(
    setting: Setting, shrink: Shrink, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink("training.steps=2", "training.lr=1e-9", "data.count=50")
    for name, value in {
        "POINTS": 100,
        "DRAWS": 128,
        "FLOWS": 20,
        "SHOWN": 20,
        "TRIED": 20,
        "LATTICE": LATTICE[::2],
    }.items():
        monkeypatch.setattr(swiss_roll, name, value)
    tables, goals = swiss_roll.run(setting)
    ((title, rows),) = tables.items()
    assert "-h = 2.450" in title and [row["model"] for row in rows] == [
        "published (2015), a roll of unstated noise",
        "first, equal shares",
        "first, even in log-SNR",
        "first, highest ceiling",
        "ours, K in continuous time",
        "ours, flow with the exact trace",
    ]
    *_, bound, flow = rows
    x = SwissRoll().sample(100, torch.Generator().manual_seed(1))
    normal = -(x.square().sum(1) / 2 + math.log(2 * math.pi)) / math.log(2)
    for row, exact, near in ((bound, normal.mean(), 0.5), (flow, normal[:20].mean(), 1e-3)):
        bits, over = row["bits/point"], row["over L_null"]
        assert isinstance(bits, Estimate) and isinstance(over, Estimate)
        assert bits.mean == pytest.approx(float(exact), abs=near)
        assert over.mean - bits.mean == pytest.approx(math.log2(2 * math.pi * math.e))
    equal, highest = rows[1]["ceiling"], rows[3]["ceiling"]
    assert isinstance(equal, Estimate) and isinstance(highest, Estimate) and -2 < equal.mean < highest.mean < 2.35
    assert [goal.met for goal in goals] == [False, False, False, False, True]
    assert {path.name for path in setting.folder.glob("*.png")} == {
        "swissroll.png",
        "swissroll-2015-equal.png",
        "swissroll-2015-even.png",
        "swissroll-2015-highest.png",
    }
