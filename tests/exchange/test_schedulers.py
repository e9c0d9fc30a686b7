"""The processes of schedulers against the tables and the steps of diffusers itself."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from diffusion.errors import InputError
from diffusion.exchange.schedulers import BETA_SCHEDULES, PRECONDITIONED, REFUSED, TABLED, Process, process_of
from diffusion.schedules import EDM, DiscreteBetas, Flow

# Its class needs a package that nothing else here does.
SDE = "DPMSolverSDEScheduler"


def saved(scheduler: Any) -> dict[str, Any]:  # noqa: ANN401, any scheduler
    """What `save_pretrained` writes of a scheduler."""
    return {**scheduler.config, "_class_name": type(scheduler).__name__, "_diffusers_version": "0.36.0"}


def made(name: str, **options: Any) -> Any:  # noqa: ANN401, any scheduler
    return getattr(diffusers, name)(**options)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def alpha_bars(process: Process) -> Tensor:
    assert isinstance(process.schedule, DiscreteBetas)
    return torch.sigmoid(process.schedule.table)


def check_table(process: Process, scheduler: Any) -> None:  # noqa: ANN401, any scheduler
    """Compares ᾱ with the table of a scheduler, which is a product of float32."""
    ours, theirs = alpha_bars(process), scheduler.alphas_cumprod.double()
    assert len(ours) == len(theirs)
    assert (ours / theirs - 1).abs().max() < 3e-5
    assert (ours - theirs).abs().max() < 1e-6


@pytest.mark.parametrize("name", sorted(TABLED.keys() - {SDE}))
def test_every_class_has_its_own_table(name: str) -> None:
    scheduler = made(name, num_train_timesteps=50)
    values = saved(scheduler)
    # A file may leave out whatever is the default of its class.
    bare = {"_class_name": name, "num_train_timesteps": 50}
    for given in (values, bare):
        process = process_of(given)
        assert (process.time, process.steps) == ("index", scheduler.config.num_train_timesteps)
        check_table(process, scheduler)
        assert not any("not known" in line for line in process.changes)
    # The SDE solver has the betas of Heun's.
    if name == "HeunDiscreteScheduler":
        assert process_of({**bare, "_class_name": SDE}) == process_of(bare)


@pytest.mark.parametrize("kind", sorted(BETA_SCHEDULES))
@pytest.mark.parametrize("steps", [37, 1000])
def test_every_table_of_betas_is_that_of_diffusers(kind: str, steps: int) -> None:
    scheduler = made("DDPMScheduler", beta_schedule=kind, num_train_timesteps=steps, beta_start=2e-4, beta_end=0.03)
    process = process_of(saved(scheduler))
    assert isinstance(process.schedule, DiscreteBetas)
    betas = torch.tensor(process.schedule.betas or torch.linspace(2e-4, 0.03, steps, dtype=torch.float64).tolist())
    assert (betas / scheduler.betas - 1).abs().max() < 1e-6
    check_table(process, scheduler)
    assert (process.schedule.betas == ()) == (kind == "linear")


def test_trained_betas_are_taken_as_they_are() -> None:
    betas = [0.3, 0.01, 0.2, 0.05]
    scheduler = made("DDIMScheduler", trained_betas=betas, num_train_timesteps=4, beta_schedule="scaled_linear")
    process = process_of(saved(scheduler))
    expected = np.cumprod(1 - np.array(betas))
    assert np.abs(alpha_bars(process).numpy() / expected - 1).max() < 1e-14


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_a_rescaled_table_loses_its_last_entry_and_says_so(kind: str) -> None:
    scheduler = made("DDIMScheduler", beta_schedule=kind, num_train_timesteps=100, rescale_betas_zero_snr=True)
    process = process_of({**saved(scheduler), "clip_sample": False})
    assert scheduler.alphas_cumprod[-1] == 0  # What is dropped has no signal at all.
    ours, theirs = alpha_bars(process), scheduler.alphas_cumprod[:-1].double()
    assert len(ours) == 99 and process.steps == 99
    assert (ours - theirs).abs().max() < 3e-6
    # The signal that is left is smallest just before: its √ᾱ is a difference of float32 in diffusers.
    assert (ours.sqrt() - theirs.sqrt()).abs().max() < 3e-6
    assert len(process.changes) == 1 and "rescale_betas_zero_snr: the last of 100 timesteps" in process.changes[0]


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_estimate_is_that_of_a_step_of_diffusers(kind: str) -> None:
    scheduler = made("DDIMScheduler", prediction_type=kind, clip_sample=False, num_train_timesteps=100)
    scheduler.set_timesteps(100)
    process, output, x = process_of(saved(scheduler)), normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    denoiser = Denoiser(lambda *_: output, process.schedule, process.parameterization)
    for index in (0, 1, 42, 99):
        expected = scheduler.step(output, index, x).pred_original_sample
        mean = denoiser(x, torch.tensor(index / 99, dtype=torch.float64)).mean
        assert (mean - expected).abs().max() < 1e-5 * expected.abs().max(), index


def test_the_key_of_old_files_for_the_prediction_is_read() -> None:
    values = {"_class_name": "DDPMScheduler", "predict_epsilon": False}
    assert (
        process_of(values).parameterization
        == process_of({"_class_name": "DDPMScheduler", "prediction_type": "sample"}).parameterization
    )


@pytest.mark.parametrize("name", PRECONDITIONED)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_preconditioning_is_that_of_diffusers(name: str, kind: str) -> None:
    scheduler = made(name, sigma_min=0.01, sigma_max=20.0, sigma_data=0.7, rho=5.0, prediction_type=kind)
    process, x, output = process_of(saved(scheduler)), normal(2, 1, 3, 3), normal(2, 1, 3, 3, seed=1)
    assert not any("not known" in line for line in process.changes)
    assert process.schedule == EDM(0.01, 20.0, 5.0) and process.time == "edm"
    seen: list[Tensor] = []

    def network(x: Tensor, log_snr: Tensor, *_: object) -> Tensor:
        seen.extend((x, -log_snr / 8))  # What the clock of a network makes of it.
        return -output if process.negated else output

    denoiser = Denoiser(network, process.schedule, process.parameterization)
    for t in (0.0, 0.3, 1.0):
        seen.clear()
        _, sigma = process.schedule(torch.tensor(t, dtype=torch.float64))
        mean = denoiser(x, torch.tensor(t, dtype=torch.float64)).mean
        assert (mean - scheduler.precondition_outputs(x, output, sigma)).abs().max() < 1e-12
        assert (seen[0] - scheduler.precondition_inputs(x, sigma)).abs().max() < 1e-12
        assert (seen[1] - scheduler.precondition_noise(sigma)).abs().max() < 1e-12
    assert any("changes its sign" in line for line in process.changes) == (kind == "v_prediction")


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_is_that_of_diffusers(shift: float) -> None:
    scheduler = made("FlowMatchEulerDiscreteScheduler", num_train_timesteps=1000, shift=shift)
    process = process_of(saved(scheduler))
    assert isinstance(process.schedule, Flow) and (process.time, process.steps) == ("flow", 1000)
    assert len(process.changes) == 1 and "has no signal" in process.changes[0]
    x, eps = normal(2, 1, 3, 3), normal(2, 1, 3, 3, seed=1)
    denoiser = Denoiser(lambda *_: eps - x, process.schedule, process.parameterization)
    ends = process.schedule(torch.tensor([0.0, 1.0], dtype=torch.float64))[1]
    assert (ends - scheduler.sigmas[[-1, 1]]).abs().max() < 1e-7  # At sigmas[0] there is no signal.
    for index in (1, 400, 998):
        sigma, timestep = scheduler.sigmas[index].double(), scheduler.timesteps[index : index + 1]
        x_t = scheduler.scale_noise(x, timestep, eps)
        t = (sigma - ends[0]) / (ends[1] - ends[0])
        assert (denoiser(x_t, t.clamp(0, 1)).mean - x).abs().max() < 1e-6
        # The time that the network is told, as `Clock` makes it of log-SNR.
        told = process.steps * torch.sigmoid(-process.schedule.log_snr(t) / 2)
        assert abs(float(told) - float(timestep)) < 1e-3


def test_flow_sigmas_of_a_solver_of_betas_are_flow_matching() -> None:
    scheduler = made("DPMSolverMultistepScheduler", use_flow_sigmas=True, prediction_type="flow_prediction")
    assert process_of(saved(scheduler)) == process_of({"_class_name": "FlowMatchEulerDiscreteScheduler"})


def test_what_concerns_sampling_alone_has_no_part_and_clipping_is_dropped_with_a_line() -> None:
    plain = process_of({"_class_name": "DDPMScheduler", "clip_sample": False})
    for options in ({"timestep_spacing": "trailing", "steps_offset": 1}, {"variance_type": "fixed_large"}):
        assert process_of({"_class_name": "DDPMScheduler", "clip_sample": False, **options}) == plain
    clipped = process_of({"_class_name": "DDPMScheduler", "clip_sample": True, "thresholding": True})
    assert (clipped.schedule, clipped.parameterization) == (plain.schedule, plain.parameterization)
    assert [line.partition(":")[0] for line in clipped.changes] == ["clip_sample", "thresholding"]


def test_keys_that_are_not_known_are_said() -> None:
    process = process_of({"_class_name": "DDPMScheduler", "wobble": 3, "clip_sample": False, "unset": None})
    assert [line for line in process.changes if "wobble" in line] == ["wobble: 3 is not known, and has no part in it"]
    assert len(process.changes) == 1


def test_learned_variance() -> None:
    assert process_of({"_class_name": "DDPMScheduler", "variance_type": "learned_range"}).learned_variance
    with pytest.raises(InputError, match=r"where\.json: variance_type: 'learned' is a variance without limits"):
        process_of({"_class_name": "DDPMScheduler", "variance_type": "learned"}, "where.json")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_other_kinds_of_models_are_refused_by_name(name: str) -> None:
    with pytest.raises(InputError, match=rf"scheduler_config\.json: _class_name: '{name}' cannot be imported: it "):
        process_of({"_class_name": name})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"_class_name": "DDPMSchedular"}, r"'DDPMSchedular' is not known; did you mean DDPMScheduler\?"),
        ({}, r"_class_name: '' is not known"),
        ({"beta_schedule": "cosine"}, r"beta_schedule: 'cosine' is none of linear, scaled_linear"),
        ({"prediction_type": "velocity"}, r"prediction_type: 'velocity' is none of epsilon, sample, v_prediction"),
        ({"prediction_type": "flow_prediction"}, r"'flow_prediction' needs use_flow_sigmas"),
        ({"use_flow_sigmas": True}, r"prediction_type: 'epsilon' must be flow_prediction with use_flow_sigmas"),
        ({"num_train_timesteps": 1}, r"num_train_timesteps: must be a whole number from 2 to 1,048,576, got '1'"),
        ({"num_train_timesteps": 1e9}, r"num_train_timesteps: must be a whole number"),
        ({"beta_end": 1.5}, r"betas: must be values between 0 and 1"),
        ({"beta_end": "a"}, r"beta_end: must be a finite number, got 'a'"),
        ({"beta_start": True}, r"beta_start: must be a finite number"),
        ({"trained_betas": [0.1, 0.2]}, r"trained_betas: '2 values' must be 1000, num_train_timesteps"),
        ({"trained_betas": [0.1, float("nan")]}, r"trained_betas: must be a list of finite numbers"),
        ({"timestep_type": "continuous"}, r"timestep_type: 'continuous' must be discrete"),
        ({"clip_sample": 1}, r"clip_sample: must be true or false, got '1'"),
        ({"_class_name": "EDMEulerScheduler", "sigma_min": 100}, r"sigma_min, sigma_max: must be 0 < sigma_min"),
        ({"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}, r"is neither epsilon nor v_prediction"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, r"invert_sigmas: True is not"),
    ],
)
def test_errors_name_the_file_the_key_and_the_value(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=r"^some/file\.json: .*" + message):
        process_of({"_class_name": "DDPMScheduler", **values} if values else {}, "some/file.json")
