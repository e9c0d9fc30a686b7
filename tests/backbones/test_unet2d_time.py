"""The numbers that tell a network its time are those of schedules, and their features those of the papers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion.backbones.unet2d_time import Clock, Fourier, Learned, Positional, Times
from diffusion.schedules import EDM, DiscreteBetas, Flow
from tests.backbones.conftest import images


def test_the_default_table_is_that_of_the_schedule() -> None:
    for steps in (1000, 17):
        assert torch.equal(Clock("index", steps).log_snrs, DiscreteBetas(steps).table)


def test_an_index_is_the_time_of_the_discrete_schedule_to_the_last_digits() -> None:
    """Of every entry, of places between them, and of the log-SNR that the schedule itself gives."""
    schedule, clock = DiscreteBetas(), Clock("index", 1000)
    entries = torch.arange(1000, dtype=torch.float64)
    assert torch.equal(clock(schedule.table), entries)
    t = torch.rand(500, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (clock(schedule.log_snr(t)) / 999 - t).abs().max() < 1e-12
    assert (schedule.time(schedule.log_snr(t)) - t).abs().max() < 1e-12


def test_another_table_may_be_copied_into_it() -> None:
    betas = tuple((0.01 + 0.3 * torch.rand(12, generator=torch.Generator().manual_seed(1))).tolist())
    schedule, clock = DiscreteBetas(betas=betas), Clock("index", 12)
    clock.log_snrs.copy_(schedule.table)
    t = torch.linspace(0, 1, 61, dtype=torch.float64)
    assert (clock(schedule.log_snr(t)) - 11 * t).abs().max() < 1e-12


def test_an_index_goes_on_beyond_the_ends_as_between_the_entries_there() -> None:
    clock = Clock("index", 1000)
    table = clock.log_snrs
    for end, inner, beyond in ((0, 1, -3), (-1, -2, 999 + 3)):
        log_snr = table[end] + 3 * (table[end] - table[inner])
        assert abs(float(clock(log_snr[None])) - beyond) < 1e-9


def test_an_index_has_the_slope_of_the_table() -> None:
    clock = Clock("index", 1000)
    log_snr = torch.tensor([20.0, 3.3, -4.2, -12.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(clock, log_snr, eps=1e-7)


def test_times_of_edm_and_of_flows_are_those_of_their_schedules() -> None:
    t = torch.linspace(0, 1, 50, dtype=torch.float64)
    for schedule in (EDM(), Flow()):
        alpha, sigma = schedule(t)
        log_snr = schedule.log_snr(t)
        for kind, expected in (
            ("edm", (sigma / alpha).log() / 4),
            ("sigma", sigma / alpha),
            ("flow", 500 * sigma / (alpha + sigma)),
        ):
            assert (Clock(kind, 500)(log_snr) - expected).abs().max() < 1e-12 * expected.abs().max()


def test_a_device_without_float64_has_the_table_in_float32() -> None:
    clock = Clock("index", 1000)

    def moved(value: Tensor) -> Tensor:
        if value.dtype == torch.float64:
            raise TypeError("MPS has no float64")
        return value + 0

    clock._apply(moved)
    assert clock.log_snrs.dtype == torch.float32
    found = clock(DiscreteBetas().table.float())
    assert found.dtype == torch.float32 and (found - torch.arange(1000)).abs().max() < 1e-3


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("flip", [False, True])
def test_positional_features_are_waves_of_geometric_periods(shift: int, flip: bool) -> None:
    features = Positional(11, shift, flip)(torch.tensor([0.0, 0.5, 700.25]))
    for row, t in zip(features, (0.0, 0.5, 700.25), strict=True):
        angles = [t * math.exp(-math.log(10_000) * k / (5 - shift)) for k in range(5)]
        sines, cosines = [math.sin(a) for a in angles], [math.cos(a) for a in angles]
        expected = torch.tensor([*cosines, *sines, 0.0] if flip else [*sines, *cosines, 0.0])
        # Angles up to 700 are float32.
        assert (row - expected).abs().max() < 1e-4


def test_fourier_features_are_waves_of_the_logarithm() -> None:
    layer = Fourier(6).double()
    assert list(layer.state_dict()) == ["weight"] and not list(layer.parameters()), "their frequencies are not trained"
    times = torch.tensor([0.01, 3.0, 80.0], dtype=torch.float64)
    angles = 2 * math.pi * torch.outer(times.log(), layer.weight)
    assert (layer(times) - torch.cat([angles.sin(), angles.cos()], dim=1)).abs().max() < 1e-11


def test_learned_features_are_those_of_the_nearest_step() -> None:
    layer = Learned(8, 5)
    found = layer(torch.tensor([-2.0, 0.4, 0.6, 3.0, 6.9, 40.0], dtype=torch.float64))
    assert torch.equal(found, layer.weight[[0, 0, 1, 3, 7, 7]])


GOOD = {
    "channels": 8,
    "time": "index",
    "steps": 1000,
    "time_embedding_type": "positional",
    "num_train_timesteps": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time": "sigmas"}, "time: must be one of index, edm, flow, sigma, got 'sigmas'; did you mean sigma?"),
        ({"steps": 1}, "steps: must be 2 to 1,048,576, got 1"),
        ({"time_embedding_type": "fourier"}, "time: must be flow or sigma with time_embedding_type = fourier"),
        ({"time_embedding_type": "learned", "time": "edm"}, "time: must be index with time_embedding_type = learned"),
        ({"time_embedding_type": "learned"}, "num_train_timesteps: must be 1 to 1,048,576 with time_embedding_type"),
        ({"freq_shift": 4}, "freq_shift: must be from 0 to below 4, half of the"),
    ],
)
def test_times_that_are_none_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Times(**{**GOOD, **options})  # type: ignore[arg-type]
    assert Times(**GOOD).features == 8  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Clock, Positional])
def test_tables_survive_a_cast_of_the_network(kind: Callable[..., torch.nn.Module]) -> None:
    """What is computed in float64 and in float32 stays so where a network is cast to float64."""
    layer = Clock("index", 1000) if kind is Clock else Positional(64, 0, True)
    values = images(9) * 5
    expected = layer(values)
    assert torch.equal(layer.double()(values), expected)
