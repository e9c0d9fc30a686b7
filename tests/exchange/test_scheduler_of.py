"""The scheduler of a model, read back, is its process; that of another schedule is the table of its network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

from diffusion.backbones.unet2d_time import Clock
from diffusion.denoiser import V
from diffusion.errors import InputError
from diffusion.exchange.scheduler_of import scheduler_of
from diffusion.exchange.schedulers import process_of
from diffusion.schedules import Cosine, DiscreteBetas
from tests.own_models import discrete


def clock_of(table: torch.Tensor) -> Clock:
    clock = Clock("index", len(table))
    clock.log_snrs.copy_(table)
    return clock


@pytest.mark.parametrize(
    ("sections", "time"),
    [
        ({"schedule": {"name": "discrete", "steps": 300, "beta_max": 0.05}}, "index"),
        ({"schedule": {"name": "discrete", "steps": 3, "betas": [0.1, 0.01, 0.7]}}, "index"),
        ({"parameterization": {"name": "edm", "sigma_data": 0.4}, "schedule": {"name": "edm", "rho": 5.0}}, "edm"),
        (
            {"parameterization": {"name": "flow"}, "schedule": {"name": "flow", "sigma_min": 0.1, "alpha_min": 0.1}},
            "flow",
        ),
    ],
)
def test_a_process_goes_out_and_comes_back(sections: dict[str, Any], time: str) -> None:
    model = discrete(**sections)
    schedule = model.denoiser.schedule
    clock = clock_of(schedule.table) if isinstance(schedule, DiscreteBetas) else Clock(time, 10)
    found = process_of(scheduler_of(model, clock).values)
    assert (found.schedule, found.parameterization, found.time) == (schedule, model.denoiser.parameterization, time)
    assert not found.negated and not found.learned_variance


def test_betas_of_another_schedule_are_those_of_the_table_and_diffusers_reads_them() -> None:
    """Every digit of ᾱ that float32 has, also at the ends, where a difference of neighbors cancels."""
    table = Cosine(9, -9).log_snr(torch.linspace(0, 1, 500, dtype=torch.float64))
    found = scheduler_of(discrete(), clock_of(table))
    assert found.lines == (
        "schedule: diffusers samples on the 500 timesteps that the network was told, log-SNR 9 to -9, instead of on "
        "that of the run",
    )
    schedule = process_of(found.values).schedule
    assert isinstance(schedule, DiscreteBetas)
    error = float((schedule.table - table).abs().max())
    assert error < 1e-10, error
    theirs = DDPMScheduler.from_config(dict(found.values)).alphas_cumprod.double()
    relative = float((theirs / torch.sigmoid(table) - 1).abs().max())
    assert relative < 1e-4, relative


def test_a_table_of_linear_betas_is_known_by_its_values() -> None:
    own = DiscreteBetas(1000)
    values = scheduler_of(discrete(schedule={"name": "edm"}), clock_of(own.table + 1e-12)).values
    assert (values["beta_schedule"], values["beta_start"], values["beta_end"]) == ("linear", 1e-4, 0.02)
    other = scheduler_of(discrete(schedule={"name": "edm"}), clock_of(own.table + 1e-3)).values
    assert len(other["trained_betas"]) == 1000 and "beta_schedule" not in other


def test_the_preconditioning_of_unit_variance_predicts_minus_v() -> None:
    model = discrete(parameterization={"name": "edm", "sigma_data": 1.0})
    found = scheduler_of(model, clock_of(DiscreteBetas().table))
    assert found.negated and process_of(found.values).parameterization == V()
    alpha, sigma = DiscreteBetas()(torch.linspace(0, 1, 7, dtype=torch.float64))
    ours, theirs = (kind(alpha, sigma) for kind in (model.denoiser.parameterization, V()))
    for a, b in zip(ours, (theirs.c_in, theirs.c_skip, -theirs.c_out), strict=True):
        assert float((a - b).abs().max()) < 1e-12


@pytest.mark.parametrize(
    ("kind", "time", "named"),
    [("eps", "edm", "eps and edm"), ("flow", "index", "flow and index"), ("v", "sigma", "v and sigma")],
)
def test_a_time_that_no_scheduler_tells_such_a_network_is_refused(kind: str, time: str, named: str) -> None:
    with pytest.raises(InputError, match=f"^parameterization.name, backbone.time: {named} have no scheduler together"):
        scheduler_of(discrete(parameterization={"name": kind}), Clock(time, 10))
