"""The comparison of grids and noise levels: what each objective trains on, and tables that compare like with like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import steering
from diffusion import config
from diffusion.evaluation.intervals import Estimate
from diffusion.noise_levels import Dissipation, LogNormal, Measured
from diffusion.objectives import EDMError, Exact


def test_objectives_differ_in_noise_levels_alone_but_for_the_default() -> None:
    found = {name: config.load(Path("configs/digits.toml"), more) for name, more in steering.OBJECTIVES.items()}
    default, *others = found.values()
    assert isinstance(default.weighting, EDMError) and all(isinstance(each.weighting, Exact) for each in others)
    assert [each.noise_levels for each in found.values()] == [
        LogNormal(uniform=0.25),
        LogNormal(uniform=0.25),
        Measured(uniform=1.0),
        Measured(every=20),
        Dissipation(every=20),
    ]
    assert len({(each.backbone, each.training, each.data) for each in found.values()}) == 1


def test_differences_to_the_default_are_image_by_image() -> None:
    first, second = torch.tensor([1.0, 5.0, 3.0]), torch.tensor([1.5, 5.5, 3.5])
    rows = list(steering.by_objective({"a": [first, first + 1], "b": [second, second + 1]}))
    assert [row["noise levels"] for row in rows] == ["a", "b"]
    over = rows[1]["over the default"]
    assert (
        isinstance(over, Estimate) and over.mean == pytest.approx(0.5) and over.half_width == pytest.approx(0, abs=1e-6)
    )
    assert str(rows[1]["seed 1"]).startswith("4.5000 ± ")


def test_the_comparison_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ("backbone.channels=[8,8]", "training.precision=fp32", "sampling.precision=fp32", "training.batch=8")
    chosen = dict(list(steering.OBJECTIVES.items())[::4])
    for name, value in {
        "SMALL": small,
        "OBJECTIVES": chosen,
        "BOUND_STEPS": (2, 4),
        "SAMPLE_STEPS": (3,),
        "SAMPLERS": ("ddim",),
        "REFERENCE": 6,
        "MEASURED": 16,
        "DRAWS": 2,
        "DIRECTIONS": 4,
    }.items():
        monkeypatch.setattr(steering, name, value)
    out = tmp_path / "found.json"
    steering.main(["--steps", "2", "--seeds", "1", "--out", str(out)])
    objectives, bounds, samples = json.loads(out.read_text(encoding="utf-8"))["tables"].values()
    assert [row["noise levels"] for row in objectives] == list(chosen)
    assert [(row["T"], row["grid"]) for row in bounds] == [
        (steps, grid) for steps in (2, 4) for grid in ("even in log-SNR", "equal dissipation")
    ]
    # Of few steps those of equal dissipation cost far less: the error falls where they are short.
    assert all(row["over even"]["mean"] < -1 for row in bounds[1::2])
    assert len(samples) == 5 and all(row["sliced distance"] > 0 for row in samples)
    assert all(row["rms error"] > 0 for row in samples[1:])
