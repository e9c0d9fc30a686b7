"""The scheduler of diffusers that samples a model of this package: the inverse of `schedulers`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion.backbones.unet2d_time import Clock
from diffusion.denoiser import PARAMETERIZATIONS, EDMPrecond, Parameterization, Velocity
from diffusion.errors import InputError
from diffusion.exchange.schedulers import PRECONDITIONED, PREDICTIONS, STRAIGHT
from diffusion.model import Model
from diffusion.schedules import EDM, DiscreteBetas

TABLED = "DDPMScheduler"
# Log-SNRs of tables of the same betas, which machines sum in other orders, are as near as this.
NEAR = 1e-9


@dataclass(frozen=True)
class Scheduler:
    """The values of a scheduler_config.json, whether a pipeline of diffusers takes it, and lines about it.

    `negated` says that the output of the network has to change its sign.
    """

    values: Mapping[str, Any]
    pipeline: bool
    lines: tuple[str, ...] = ()
    negated: bool = False


def scheduler_of(model: Model, clock: Clock) -> Scheduler:
    """Returns the scheduler of a model, whose network is told its time by a clock.

    Raises InputError for a model whose time and parameterization no scheduler has together.
    """
    kind = model.denoiser.parameterization
    if clock.time == "index" and (kind in PREDICTIONS.values() or kind == EDMPrecond(1.0)):
        return _tabled(model, clock.log_snrs)
    if clock.time == "edm" and isinstance(kind, EDMPrecond):
        return _preconditioned(model, clock, kind)
    if clock.time == "flow" and isinstance(kind, Velocity):
        values = {"_class_name": STRAIGHT[0], "num_train_timesteps": clock.steps, "shift": 1.0}
        return Scheduler(values, False, (_alone(STRAIGHT[0]),))
    raise InputError(
        f"parameterization.name, backbone.time: {_named(kind)} and {clock.time} have no scheduler together; eps, x0, v "
        "and edm with sigma_data = 1 go with index, any edm with edm, and flow with flow"
    )


def _tabled(model: Model, table: Tensor) -> Scheduler:
    """The scheduler of the table of log-SNRs that the network knows."""
    schedule, kind = model.denoiser.schedule, model.denoiser.parameterization
    lines: tuple[str, ...] = ()
    if isinstance(schedule, DiscreteBetas) and _same(schedule.table, table):
        betas = {"trained_betas": list(schedule.betas)} if schedule.betas else _linear(schedule)
    else:
        usual, (first, last) = DiscreteBetas(len(table)), table[[0, -1]].tolist()
        betas = _linear(usual) if _same(usual.table, table) else {"trained_betas": _betas(table)}
        lines = (
            f"schedule: diffusers samples on the {len(table):,} timesteps that the network was told, log-SNR "
            f"{first:.3g} to {last:.3g}, instead of on that of the run",
        )
    # With sigma_data = 1 the network predicts -v where α² + σ² = 1.
    negated = isinstance(kind, EDMPrecond)
    learned = model.config.model.learned_variance and model.denoiser.linear_variance
    values = {
        "_class_name": TABLED,
        "num_train_timesteps": len(table),
        **betas,
        "prediction_type": "v_prediction" if negated else _prediction(kind),
        "variance_type": "learned_range" if learned else "fixed_small",
        # A clipped estimate is not that of the model.
        "clip_sample": False,
        # Few steps begin at the last timestep too.
        "timestep_spacing": "trailing",
    }
    return Scheduler(values, True, lines, negated)


def _linear(schedule: DiscreteBetas) -> dict[str, Any]:
    return {"beta_schedule": "linear", "beta_start": schedule.beta_min, "beta_end": schedule.beta_max}


def _betas(table: Tensor) -> list[float]:
    """The β_i = 1 - ᾱ_i/ᾱ_(i-1) of log-SNRs (n,)."""
    log_alpha_bar = torch.nn.functional.logsigmoid(table.double())
    before = torch.cat([log_alpha_bar.new_zeros(1), log_alpha_bar[:-1]])
    found: list[float] = (-torch.expm1(log_alpha_bar - before)).tolist()
    return found


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a.double() - b.double()).abs() <= NEAR * b.abs().clamp_min(1)).all())


def _prediction(kind: Parameterization) -> str:
    return next(name for name, known in PREDICTIONS.items() if known == kind)


def _preconditioned(model: Model, clock: Clock, kind: EDMPrecond) -> Scheduler:
    """The scheduler of a model with the preconditioning of Karras et al. (2022)."""
    schedule = model.denoiser.schedule
    low, high = (math.exp(-level / 2) for level in (schedule.log_snr_max, schedule.log_snr_min))
    if isinstance(schedule, EDM):
        low, high = schedule.sigma_min, schedule.sigma_max
    values = {
        "_class_name": PRECONDITIONED[0],
        "num_train_timesteps": clock.steps,
        "sigma_min": low,
        "sigma_max": high,
        "sigma_data": kind.sigma_data,
        "rho": schedule.rho if isinstance(schedule, EDM) else 7.0,
        "prediction_type": "epsilon",
    }
    return Scheduler(values, False, (_alone(PRECONDITIONED[0]),))


def _alone(name: str) -> str:
    return (
        f"{name}: no pipeline of diffusers samples a UNet2DModel by it, so that there is no model_index.json; load "
        "network and scheduler on their own (subfolder='unet', subfolder='scheduler')"
    )


def _named(kind: Parameterization) -> str:
    spread = f" with sigma_data = {kind.sigma_data:g}" if isinstance(kind, EDMPrecond) else ""
    return f"{next(name for name, known in PARAMETERIZATIONS.items() if known is type(kind))}{spread}"
