"""What draws and restores is set up by given options, else by those of the experiment, where it can run."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from diffusion.data import DataSpec
from diffusion.denoiser import Denoiser, V
from diffusion.draw import Draw, SampleDraw
from diffusion.errors import InputError
from diffusion.guidance import ClassifierFree
from diffusion.model import Model
from diffusion.model.elsewhere import Elsewhere
from diffusion.model.setup import LONG, Setup
from diffusion.operators import Mask
from diffusion.restoration import Problem
from diffusion.samplers import DDIM
from diffusion.schedules import EDM
from tests.conftest import tiny
from tests.oracles import OracleNetwork, correlated

SPEC = DataSpec((1, 2, 3), 256, ("disk", "square"), 100.0, 50.0)
HALF = Problem(Mask(torch.tensor([[True, False, True], [True, True, False]])), torch.zeros(1, 1, 2, 3), shape=(1, 2, 3))


def setup(kind: str = "cpu", **sections: dict[str, object]) -> Setup:
    """That of a model of Gaussian images, whose denoiser is exact."""
    oracle = correlated(EDM(), (1, 2, 3))
    denoiser = Denoiser(OracleNetwork(oracle, V()), oracle.schedule, V())
    return Setup(denoiser, SPEC, tiny("images", **sections), torch.device(kind))  # type: ignore[arg-type]


def test_what_is_asked_for_goes_before_what_the_experiment_has() -> None:
    own = setup(sampling={"steps": 7}, sampler={"name": "heun"})
    plain, asked = (
        own.drawing(draw, 5) for draw in (Draw(3), Draw(3, steps=4, sampler="ddim", seed=2, label="square"))
    )
    assert plain.sampler == own.config.sampler and len(plain.times) == 8 and plain.seed == 0 and plain.label is None
    assert asked.sampler == DDIM() and len(asked.times) == 5 and asked.seed == 2
    assert asked.label is not None and asked.label.tolist() == [1, 1, 1]
    assert (plain.first, plain.n) == (asked.first, asked.n) == (5, 3)
    solvers = [own.solver(HALF, draw, "ddnm") for draw in (Draw(2), Draw(2, steps=9, batch=3, seed=1))]
    assert [(each.steps, each.seed) for each in solvers] == [(32, 0), (9, 1)], "restorations have steps of their own"
    assert solvers[1].batch == 3


def test_guidance_is_that_of_the_draw_or_of_the_experiment() -> None:
    own = setup(sampling={"guidance": 3.0}, training={"label_dropout": 0.1})
    assert own.guided(1.0) is own.denoiser
    for scale, asked in ((3.0, None), (2.0, 2.0)):
        found = own.guided(asked)
        assert isinstance(found, ClassifierFree) and found.scale == scale
    with pytest.raises(InputError, match=r"guidance: must be 1 without a label"):
        own.drawing(Draw(2, guidance=2.0), 0)


def test_where_there_is_no_float64_the_network_alone_stays() -> None:
    own = setup("mps", observed={"share": 0.5}, data={"labels": False})
    own = replace(own, spec=replace(SPEC, classes=()))
    larger = own.drawing(SampleDraw(1, size=(2, 4), batch=1), 0)
    made = (larger, own.solver(HALF, Draw(1, batch=1), "ddnm"), own.latents(1, None, 1.0, 1e-5, 1))
    for each in (own.with_float64, *made):
        network = each.denoiser.backbone  # type: ignore[union-attr]
        assert each.device == torch.device("cpu")
        assert network == Elsewhere(own.denoiser.backbone, torch.device("mps"))
    assert own.drawing(Draw(1), 0).device == torch.device("mps"), "samples of the model's size need no float64"
    on_cpu = setup()
    assert on_cpu.with_float64 is on_cpu


def test_a_level_is_a_share_of_the_steps_of_a_long_path() -> None:
    own, schedule = setup(), EDM()
    path = schedule.log_snr(own.config.grid(schedule, LONG)[:-1])
    for level, expected in ((1.0, path[0]), (0.0, path[-1]), (1 - 49.5 / 99, (path[49] + path[50]) / 2)):
        assert float(schedule.log_snr(own.time(level, None))) == pytest.approx(float(expected), rel=1e-6)
    assert own.ends == pytest.approx((float(path[0]), float(path[-1])))
    for log_snr in (-3.0, 0.25, 6.0):
        assert float(schedule.log_snr(own.time(0.5, log_snr))) == pytest.approx(log_snr, abs=1e-9)
    with pytest.raises(InputError, match=r"log_snr: must be in \[.*\], the range of the schedule, got 100"):
        own.time(0.5, 100.0)


def test_a_batch_is_counted_in_samples_of_the_model_or_in_tiles_of_larger_ones() -> None:
    own = replace(setup(observed={"share": 0.5}), spec=replace(SPEC, classes=()))
    same, draw = Draw(9, batch=4), SampleDraw(9, size=(2, 6), batch=4)
    assert own.together(own.drawing(same, 0), same) == 4
    tiles = own.drawing(draw, 0)
    assert tiles.larger is not None and own.together(tiles, draw) == tiles.larger.together(4)


def test_a_student_draws_on_its_own_grid_and_nothing_else() -> None:
    own = setup(distillation={"teacher": "runs/teacher"}, sampling={"steps": 4})
    assert len(own.drawing(Draw(1, steps=4), 0).times) == 5
    with pytest.raises(InputError, match="this model was distilled for 4 steps of its own sampler"):
        own.drawing(Draw(1, steps=8), 0)
    for refused in (lambda: own.solver(HALF, Draw(1), "ddnm"), lambda: own.latents(1, None, 1.0, 1e-5, 1)):
        with pytest.raises(InputError, match="in few evaluations; ask its teacher, runs/teacher"):
            refused()


def test_a_model_is_set_up_with_its_parts() -> None:
    own = setup()
    model = Model(own.denoiser, own.spec, own.config, 3, own.device)
    assert model._setup == own and math.isclose(model.ends[0], own.ends[0])
