"""The forward process that a scheduler of diffusers stands for: its schedule, and what the network predicts.

A scheduler_config.json names a sampler, but its betas and its prediction are those that the network was trained on. All
samplers of a family say the same of a model, so that the sampler itself has no part in what is imported:

    betas   the table ᾱ_i = Π(1 - β_j)              DDPM, DDIM, PNDM, DPM-Solver, DEIS, UniPC, Euler, Heun, LMS, KDPM2
    EDM     σ from sigma_min to sigma_max, α = 1    Karras et al. 2022, arXiv 2206.00364
    flow    α = 1 - σ                               Lipman et al. 2023, arXiv 2210.02747

diffusers computes its tables in float32; here they are float64, and equal up to the rounding of those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from diffusion.denoiser import X0, EDMPrecond, Eps, Parameterization, V, Velocity
from diffusion.errors import nearest
from diffusion.exchange.settings import Settings
from diffusion.schedules import EDM, DiscreteBetas, Flow, Schedule

NAME = "scheduler_config.json"
# The ends of beta that a class takes where the file does not say them; all others take those of Ho et al. (2020).
BETAS, LATENT_BETAS = (1e-4, 0.02), (0.00085, 0.012)
TABLED: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(
        (
            *("DDPMScheduler", "DDPMParallelScheduler", "DDIMScheduler", "DDIMParallelScheduler", "PNDMScheduler"),
            *("DDIMInverseScheduler", "DPMSolverMultistepScheduler", "DPMSolverMultistepInverseScheduler"),
            *("DPMSolverSinglestepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler", "SASolverScheduler"),
            *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler", "RePaintScheduler"),
        ),
        BETAS,
    ),
    **dict.fromkeys(
        (
            *("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"),
            "DPMSolverSDEScheduler",
        ),
        LATENT_BETAS,
    ),
}
PRECONDITIONED = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
STRAIGHT = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
# Why the models of other schedulers cannot be imported.
REFUSED: Mapping[str, str] = {
    "ScoreSdeVeScheduler": "is that of a score network (NCSN++), whose blocks are others",
    "ScoreSdeVpScheduler": "is that of a score network (NCSN++), whose blocks are others",
    "KarrasVeScheduler": "feeds its network scaled images and noise levels of its own",
    "CMStochasticIterativeScheduler": "is that of a consistency model, which has no E[x|x_t]",
    "LCMScheduler": "is that of a model distilled to few steps, which has no E[x|x_t]; import its teacher",
    "FlowMatchLCMScheduler": "is that of a model distilled to few steps, which has no E[x|x_t]; import its teacher",
    "TCDScheduler": "is that of a model distilled to few steps, which has no E[x|x_t]; import its teacher",
    "SCMScheduler": "is that of a model of trigonometric flow",
    "VQDiffusionScheduler": "is that of a model of discrete tokens",
    "UnCLIPScheduler": "is that of a model of embeddings",
}
# Keys that say something of a model, and those of sampling alone. Of any other a line says that it is not used.
READ = {
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr"),
    *("prediction_type", "predict_epsilon", "variance_type", "clip_sample", "thresholding", "use_flow_sigmas"),
    *("sigma_min", "sigma_max", "sigma_data", "rho", "shift", "use_dynamic_shifting", "invert_sigmas", "timestep_type"),
}
SAMPLING = {
    *("timestep_spacing", "steps_offset", "set_alpha_to_one", "skip_prk_steps", "eta", "stochastic_sampling"),
    *("solver_order", "solver_type", "solver_p", "algorithm_type", "predictor_order", "corrector_order", "tau_func"),
    *("lower_order_final", "euler_at_final", "disable_corrector", "predict_x0", "lambda_min_clipped"),
    *("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "final_sigmas_type"),
    *("interpolation_type", "sigma_schedule", "flow_shift", "shift_terminal", "time_shift_type"),
    *("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"),
    *("clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value"),
}
PREDICTIONS: Mapping[str, Parameterization] = {"epsilon": Eps(), "sample": X0(), "v_prediction": V()}
# The largest beta of a table that is made of ᾱ, and the most timesteps that a file may ask for.
MAX_BETA, MOST_STEPS = 0.999, 2**20


@dataclass(frozen=True)
class Process:
    """The forward process of an imported model, and how its network relates to it.

    `time` and `steps` are those of `UNet2DConfig`: the number that tells the network the noise level. With
    `learned_variance` the network has channels that place the reverse variance. `negated` says that its target has the
    other sign than that of the parameterization. `changes` says line by line what was dropped or changed.
    """

    schedule: Schedule
    parameterization: Parameterization
    time: str
    steps: int
    learned_variance: bool = False
    negated: bool = False
    changes: tuple[str, ...] = ()


def process_of(values: Mapping[str, Any], where: str = NAME) -> Process:
    """Returns the process of the values of a scheduler_config.json; `where` names the file in errors.

    Raises InputError, which names the file, the key and its value, for another kind of model and for values that no
    process has.
    """
    settings = Settings(values, where)
    name = settings.text("_class_name", "")
    if name in TABLED:
        process = _straight_table(settings) if settings.flag("use_flow_sigmas", False) else _tabled(settings, name)
    elif name in PRECONDITIONED:
        process = _preconditioned(settings)
    elif name in STRAIGHT:
        process = _straight(settings)
    else:
        raise settings.refused("_class_name", name, _advice(name))
    return replace(process, changes=(*process.changes, *_dropped(settings)))


def _advice(name: str) -> str:
    """Says why no model of a scheduler can be imported, and which can."""
    if name in REFUSED:
        return f"cannot be imported: it {REFUSED[name]}"
    known = [*TABLED, *PRECONDITIONED, *STRAIGHT]
    return f"is not known{nearest(name, known)}; models of {', '.join(known)} can be imported"


def _tabled(settings: Settings, name: str) -> Process:
    """The process of a table of betas."""
    if settings.text("timestep_type", "discrete") != "discrete":
        raise settings.refused(
            "timestep_type", settings.values["timestep_type"], "must be discrete with a table of betas"
        )
    schedule, changes = _schedule(settings, *TABLED[name])
    kind = settings.text("prediction_type", "epsilon")
    # The key of files of 2022.
    if not settings.flag("predict_epsilon", True):
        kind = "sample"
    if kind not in PREDICTIONS:
        advice = "needs use_flow_sigmas" if kind == "flow_prediction" else f"is none of {', '.join(PREDICTIONS)}"
        raise settings.refused("prediction_type", kind, advice)
    return Process(
        schedule, PREDICTIONS[kind], "index", len(schedule.table), _learns_variance(settings), changes=tuple(changes)
    )


def _learns_variance(settings: Settings) -> bool:
    """Whether half of the channels of the network are a variance."""
    variance = settings.text("variance_type", "fixed_small")
    if variance == "learned":
        raise settings.refused(
            "variance_type", variance, "is a variance without limits, which no reverse step here has; learned_range is"
        )
    return variance == "learned_range"


def _schedule(settings: Settings, low: float, high: float) -> tuple[DiscreteBetas, list[str]]:
    """The table of betas, and what was changed about it."""
    steps, kind = _steps(settings), settings.text("beta_schedule", "linear")
    low, high = settings.number("beta_start", low), settings.number("beta_end", high)
    rescaled, trained = settings.flag("rescale_betas_zero_snr", False), settings.numbers("trained_betas")
    if trained is None and kind not in BETA_SCHEDULES:
        raise settings.refused("beta_schedule", kind, f"is none of {', '.join(BETA_SCHEDULES)}")
    if trained is not None and len(trained) != steps:
        raise settings.refused("trained_betas", f"{len(trained)} values", f"must be {steps}, num_train_timesteps")
    if trained is None and kind == "linear" and not rescaled:
        return settings.checked(lambda: DiscreteBetas(steps, low, high)), []
    if trained is None:
        settings.checked(lambda: DiscreteBetas(steps, low, high))
    betas = BETA_SCHEDULES[kind](steps, low, high) if trained is None else torch.tensor(trained, dtype=torch.float64)
    changes = []
    if rescaled:
        betas = _without_snr_zero(betas)
        changes.append(
            f"rescale_betas_zero_snr: the last of {steps} timesteps has no signal, a log-SNR of -inf, and is dropped: "
            "samples begin at the one before"
        )
    return settings.checked(lambda: DiscreteBetas(len(betas), betas=tuple(betas.tolist()))), changes


def _steps(settings: Settings) -> int:
    return settings.whole("num_train_timesteps", 1000, least=2, most=MOST_STEPS)


def _without_snr_zero(betas: Tensor) -> Tensor:
    """Betas whose √ᾱ is shifted to end at 0 and scaled to begin as before, without the last (Lin et al. 2024, arXiv
    2305.08891, algorithm 1): (n,) -> (n - 1,).
    """
    root = torch.log1p(-betas).cumsum(0).div(2).exp()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alpha_bar = root[:-1].square()
    return 1 - alpha_bar / torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])


def _linear(steps: int, low: float, high: float) -> Tensor:
    return torch.linspace(low, high, steps, dtype=torch.float64)


def _scaled_linear(steps: int, low: float, high: float) -> Tensor:
    """The squares of evenly spaced roots (Rombach et al. 2022, arXiv 2112.10752)."""
    return torch.linspace(low**0.5, high**0.5, steps, dtype=torch.float64).square()


def _sigmoid(steps: int, low: float, high: float) -> Tensor:
    """A sigmoid of evenly spaced values (Xu et al. 2022, arXiv 2203.02923)."""
    return torch.linspace(-6, 6, steps, dtype=torch.float64).sigmoid() * (high - low) + low


def _cosine(steps: int, low: float, high: float) -> Tensor:
    """Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 17; the ends of beta have no part in it."""
    return _from_alpha_bar(steps, lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2)


def _laplace(steps: int, low: float, high: float) -> Tensor:
    """The table of diffusers of that name, which takes √(SNR/(1 + SNR)) for ᾱ."""

    def alpha_bar(u: float) -> float:
        half = -0.5 * math.copysign(1, 0.5 - u) * math.log(1 - 2 * abs(0.5 - u) + 1e-6)
        snr = math.exp(half)
        return math.sqrt(snr / (1 + snr))

    return _from_alpha_bar(steps, alpha_bar)


def _from_alpha_bar(steps: int, alpha_bar: Callable[[float], float]) -> Tensor:
    """β_i = 1 - ᾱ((i + 1)/n)/ᾱ(i/n), at most MAX_BETA: (n,)."""
    values = [alpha_bar(i / steps) for i in range(steps + 1)]
    return torch.tensor([min(1 - b / a, MAX_BETA) for a, b in pairwise(values)], dtype=torch.float64)


BETA_SCHEDULES: Mapping[str, Callable[[int, float, float], Tensor]] = {
    "linear": _linear,
    "scaled_linear": _scaled_linear,
    "squaredcos_cap_v2": _cosine,
    "sigmoid": _sigmoid,
    "laplace": _laplace,
}


def _preconditioned(settings: Settings) -> Process:
    """The process of a model with the preconditioning of Karras et al. (2022)."""
    low, high = settings.number("sigma_min", 0.002), settings.number("sigma_max", 80.0)
    spread, rho = settings.number("sigma_data", 0.5), settings.number("rho", 7.0)
    kind = settings.text("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise settings.refused("prediction_type", kind, "is neither epsilon nor v_prediction")
    schedule, precond = settings.checked(lambda: EDM(low, high, rho)), settings.checked(lambda: EDMPrecond(spread))
    process = Process(schedule, precond, "edm", _steps(settings))
    if kind == "epsilon":
        return process
    return replace(process, negated=True, changes=(f"prediction_type: {kind}: the output changes its sign",))


def _straight(settings: Settings) -> Process:
    """The process of flow matching. A shift moves the times that are drawn, and with them the first and the last."""
    steps, shift = _steps(settings), settings.number("shift", 1.0)
    if settings.flag("invert_sigmas", False):
        raise settings.refused("invert_sigmas", True, "is not supported: the times run from data to noise")
    if shift <= 0:
        raise settings.refused("shift", shift, "must be positive")
    change = (
        f"num_train_timesteps: the last of {steps} has no signal, a log-SNR of -inf: samples begin at the one before"
    )
    # The shares of the noise at the first timestep, and of the data at the last one but for that of noise alone.
    low, high = shift / (steps + shift - 1), 1 / (1 + shift * (steps - 1))
    schedule = settings.checked(lambda: Flow(low, high))
    return Process(schedule, Velocity(), "flow", steps, changes=(change,))


def _straight_table(settings: Settings) -> Process:
    """The process of flow matching under a scheduler of betas, which then has no part in it."""
    kind = settings.text("prediction_type", "epsilon")
    if kind != "flow_prediction":
        raise settings.refused("prediction_type", kind, "must be flow_prediction with use_flow_sigmas")
    return _straight(settings)


def _dropped(settings: Settings) -> list[str]:
    """What is said of clipping, which is no part of a model, and of keys that are not known."""
    why = "dropped: a clipped x̂ is not the E[x|x_t] that likelihoods and restorations take it for"
    lines = [f"{key}: {why}" for key in ("clip_sample", "thresholding") if settings.flag(key, False)]
    others = {key: value for key, value in settings.values.items() if value and not key.startswith("_")}
    return lines + [
        f"{ascii(key)[1:-1][:40]}: {ascii(others[key])[:40]} is not known, and has no part in it"
        for key in sorted(others.keys() - READ - SAMPLING)
    ]
