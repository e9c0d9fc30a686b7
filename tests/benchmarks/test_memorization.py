"""The benchmark of memorization tests a model by its own training images, and states every share."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks import memorization, timed
from diffusion.data import open_source
from tests.conftest import draw_shapes


def test_a_trained_model_is_tested_by_the_images_it_learned(tmp_path: Path) -> None:
    experiment = memorization.experiment(draw_shapes(tmp_path / "shapes"), 8, 3)
    assert (experiment.data.shape, experiment.data.channels) == ((8, 8), 1)
    training, held_out = open_source(experiment.data, print).split(0.5, 0)
    few = training.evenly(6)
    model, seconds = timed.train(experiment, few, tmp_path / "run")
    result = memorization.tested(model, few, held_out, 5)
    names = {name for near in result.found["pixels"].near for name in near.names}
    assert names <= set(few.names) and result.training == 6
    found = memorization.row("few", model, seconds, result)
    assert found["steps"] == model.step == 3 and found["flagged"] == str(result.shares["flagged"])
    assert list(found) == ["", "images", "steps", "seconds", *result.shares]
    assert memorization.goal("by heart", result).value == result.shares["flagged"].value
    none = memorization.goal("all images", result)
    assert none.value == result.shares["copies"].low and none.met == (none.value == 0)


def test_unseen_images_and_copies_are_tested_without_a_network(tmp_path: Path) -> None:
    experiment = memorization.experiment(draw_shapes(tmp_path / "shapes", per_class=40), 8, 3)
    training, held_out = open_source(experiment.data, print).split(0.5, 0)
    rows = memorization.known(training, held_out, 4)
    assert [row[""] for row in rows][:2] == ["unseen images", "copies, noise 0.05"] and len(rows) == 6
    mirrored = next(row for row in rows if row[""] == "copies, mirrored")
    assert str(mirrored["flagged"]).startswith("1.0000 (")
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.equal(memorization.altered(x)["copies, a pixel to the left"][0, 0, 0], torch.tensor([1.0, 2, 3, 3]))
