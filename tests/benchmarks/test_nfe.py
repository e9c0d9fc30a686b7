"""The tables of quality by NFE: which grids, which students, and how many evaluations each of them counts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import nfe, quality, timed
from benchmarks.judge import Images, Judge
from benchmarks.quality import Referee
from diffusion import grids
from diffusion.model import Model, load

SMALL = ("backbone.channels=[8,8,8]", "training.batch=4", "training.precision=fp32", "sampling.precision=fp32")
UNLABELED = ("data.labels=false", "sampling.guidance=1", "sampling.steps=3")


class Mean(Referee):
    """Takes the mean of the samples for their distance."""

    def distance(self, x: Tensor) -> float:
        return float(x.mean())


@pytest.fixture(scope="module")
def images() -> Images:
    values = torch.randint(0, 256, (32, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Images(values, torch.arange(32) % 10)


@pytest.fixture(scope="module")
def run(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "OURS", {"plain": (*UNLABELED, *SMALL)})
        patch.setattr(timed, "TRIAL", 4)
        quality.train_ours("plain", images, 0.5, folder)
    return folder / "plain"


@pytest.fixture
def mean() -> Mean:
    return Mean(Judge(), torch.zeros(0), Images(torch.zeros(0), torch.zeros(0)))


def test_the_nfe_needed_is_the_smallest_within_five_percent() -> None:
    assert nfe.needed({4: 12.0, 8: 10.5, 12: 10.6, 50: 10.0}, 10.0) == 8
    assert math.isnan(nfe.needed({4: 12.0, 8: 10.6}, 10.0))


def test_a_sampler_with_two_evaluations_a_step_spends_at_most_the_nfe_it_is_given(run: Path, mean: Mean) -> None:
    found = nfe.curves(load(run), mean, 2, [4, 5])
    assert {name: list(row) for name, row in found.items()} == {
        name: [3, 5] if name == "heun" else [4, 5] for name in found
    }
    assert found["dpmpp_2m"][4] == pytest.approx(float(load(run).sample(2, steps=4, sampler="dpmpp_2m").mean()))


def test_grids_differ_but_between_the_same_ends(run: Path, mean: Mean, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Model] = []
    monkeypatch.setattr(quality, "draw", lambda model, n, steps: (used.append(model), torch.zeros(1))[1])
    rows = nfe.grids(load(run), mean, 2)
    assert [row["NFE"] for row in rows] == 3 * list(nfe.GRID_NFE)
    kinds = [grids.UniformLogSNR, grids.Karras, grids.Tabulated]
    assert [type(model.config.grid) for model in used] == [kind for kind in kinds for _ in nfe.GRID_NFE]
    ends = torch.tensor([model.ends for model in used])
    assert torch.allclose(ends, ends[:1].expand_as(ends), atol=1e-4)


def test_students_stand_beside_their_teacher_and_are_kept(run: Path, images: Images, mean: Mean) -> None:
    rows = nfe.students(run, images, mean, 2, 2)
    assert [row["model"] for row in rows] == ["teacher", "student, 4 NFE", "student, 2 NFE"]
    assert [row["network evaluations per sample"] for row in rows] == [3, 4, 2]
    kept = load(run.with_name("plain, 4 NFE"))
    assert kept.teacher == str(run) and kept.step == 2
    assert rows[1]["distance"] == pytest.approx(float(kept.sample(2).mean()))
