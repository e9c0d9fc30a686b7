"""Imported models against diffusers: the same estimates, the same images, and the bound by diffusers' own variances."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler, UNet2DModel
from safetensors.torch import save_file
from torch import Tensor

import diffusion
from diffusion import gaussian, samplers
from diffusion.errors import InputError
from diffusion.exchange import folder, imported
from diffusion.likelihood import bound as bounds
from diffusion.model import Model
from tests.public_models import SIDE, network, pipeline

Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def load(made: Path, run: Path) -> Model:
    imported.write(folder.read(made), run)
    return diffusion.load(run, device="cpu")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exact(scheduler: DDPMScheduler) -> Tensor:
    """The table of a scheduler without its rounding: ᾱ in float64."""
    return torch.cumprod(1 - scheduler.betas.double(), 0)


def off(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, in units of the largest value if that is above 1."""
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with the scheduler DDPM and its defaults, which no test may change."""
    return pipeline(tmp_path_factory.mktemp("models") / "made")


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("betas", ["linear", "squaredcos_cap_v2"])
@torch.no_grad()
def test_the_estimate_is_that_of_a_step_of_diffusers(kind: str, betas: str, tmp_path: Path) -> None:
    scheduler = DDPMScheduler(num_train_timesteps=200, beta_schedule=betas, prediction_type=kind, clip_sample=False)
    model, theirs = load(pipeline(tmp_path / "made", scheduler), tmp_path / "run"), network()
    x, schedule = normal(2, 3, SIDE, SIDE), model.denoiser.schedule
    for index in (0, 1, 77, 199):
        expected = scheduler.step(theirs(x, index).sample, index, x).pred_original_sample
        t = torch.tensor(index / 199, dtype=torch.float64)
        # Their √ᾱ is a product of float32, up to 7e-6 off where a β is 0.999; x̂ is divided by it.
        rounding = float((schedule(t)[0] / scheduler.alphas_cumprod[index].double().sqrt() - 1).abs())
        assert rounding < 1e-5 and off(model.denoiser(x, t).mean, expected) < 1e-6 + rounding, index


@torch.no_grad()
def test_labels_are_told_to_the_network_and_their_absence_is_refused(tmp_path: Path) -> None:
    model = load(pipeline(tmp_path / "made", num_class_embeds=3), tmp_path / "run")
    assert model.spec.classes == ("0", "1", "2")
    x, label, theirs = normal(3, 3, SIDE, SIDE), torch.tensor([2, 0, 1]), network(num_class_embeds=3)
    ours = model.denoiser.network(x, torch.tensor(500 / 999, dtype=torch.float64), label)[0]
    assert off(ours, theirs(x, 500, label).sample) < 3e-6
    assert off(ours, theirs(x, 500, label.flip(0)).sample) > 1e-3
    with pytest.raises(InputError, match="label: must be given, one of 0 to 2"):
        model.sample(1, steps=2)
    with pytest.raises(InputError, match="guidance: must be 1 for this model"):
        model.sample(1, steps=2, label=1, guidance=2.0)


@torch.no_grad()
def test_a_learned_variance_is_that_of_diffusers(tmp_path: Path) -> None:
    scheduler = DDPMScheduler(num_train_timesteps=50, variance_type="learned_range", clip_sample=False)
    model = load(pipeline(tmp_path / "made", scheduler, out_channels=6), tmp_path / "run")
    theirs, x = network(out_channels=6), normal(2, 3, SIDE, SIDE)
    scheduler.alphas_cumprod = exact(scheduler)
    for index in (1, 20, 49):
        t, s = (torch.tensor(i / 49, dtype=torch.float64) for i in (index, index - 1))
        mean, interp = model.denoiser(x, t)
        assert interp is not None
        ours = gaussian.reverse(model.denoiser.schedule, mean, x, t, s, variance_interp=interp)
        output = theirs(x, index).sample
        log_variance = scheduler._get_variance(index, predicted_variance=output[:, 3:])
        step = scheduler.step(output, index, x, generator=torch.Generator().manual_seed(0))
        assert off(ours.variance.log(), log_variance) < 1e-6
        assert off(mean, step.pred_original_sample) < 1e-6


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_a_preconditioned_model_has_the_estimate_of_diffusers(kind: str, tmp_path: Path) -> None:
    scheduler = EDMEulerScheduler(prediction_type=kind)
    model = load(pipeline(tmp_path / "made", scheduler), tmp_path / "run")
    theirs, x = network(), normal(2, 3, SIDE, SIDE)
    for sigma in (0.01, 1.0, 50.0):
        told = scheduler.precondition_noise(torch.tensor(sigma))
        output = theirs(scheduler.precondition_inputs(sigma * x, sigma), told).sample
        expected = scheduler.precondition_outputs(sigma * x, output, sigma)
        t = model.denoiser.schedule.time(torch.tensor(-2 * math.log(sigma), dtype=torch.float64))
        assert off(model.denoiser(sigma * x, t).mean, expected) < 1e-6, sigma


@torch.no_grad()
def test_a_model_of_flow_matching_has_the_estimate_of_diffusers(tmp_path: Path) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=2.0)
    model = load(pipeline(tmp_path / "made", scheduler), tmp_path / "run")
    theirs, x = network(), normal(2, 3, SIDE, SIDE)
    for index in (1, 500, 999):
        sigma, told = scheduler.sigmas[index].double(), scheduler.timesteps[index]
        expected = x - sigma.float() * theirs(x, told).sample
        t = model.denoiser.schedule.time(2 * torch.log((1 - sigma) / sigma))
        assert off(model.denoiser(x, t).mean, expected) < 1e-5, index


@torch.no_grad()
def test_fifty_steps_of_ddim_draw_the_images_of_diffusers(tmp_path: Path) -> None:
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False)
    model, theirs = load(pipeline(tmp_path / "made", scheduler), tmp_path / "run"), network()
    noise = normal(2, 3, SIDE, SIDE)
    scheduler.set_timesteps(50)
    expected = noise
    for index in scheduler.timesteps:
        expected = scheduler.step(theirs(expected, index).sample, index, expected, eta=0.0).prev_sample
    # The last of their steps leads from index 0 to itself, and so changes nothing.
    times = scheduler.timesteps.double() / 999
    drawn = samplers.sample(model.denoiser, samplers.DDIM(), noise, times)
    assert off(drawn, expected) < 1e-4
    assert expected.std() > 0.1 and off(drawn, noise) > 0.1


@torch.no_grad()
def test_the_bound_is_the_sum_of_the_divergences_of_diffusers_own_steps(tmp_path: Path) -> None:
    """All of its terms by the variances and the means of the scheduler, on a grid of 20 steps, in float64."""
    count = 20
    scheduler = DDPMScheduler(num_train_timesteps=count, beta_start=0.001, beta_end=0.3, clip_sample=False)
    model, theirs = load(pipeline(tmp_path / "made", scheduler), tmp_path / "run"), network().double()
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    x, noise = images.double() / 127.5 - 1, normal(count, 3, SIDE, SIDE, seed=1).double()

    # Each of the steps of one image has its own noise, in the order in which the estimate asks for it.
    diffusion_loss = torch.zeros(2, dtype=torch.float64)
    scheduler.alphas_cumprod = exact(scheduler)
    for index in range(1, count):
        alpha_bar, before = scheduler.alphas_cumprod[index], scheduler.alphas_cumprod[index - 1]
        x_t = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise[index]
        step = scheduler.step(theirs(x_t, index).sample, index, x_t, generator=torch.Generator().manual_seed(0))
        # The means of q(x_s|x_t, x) and p(x_s|x_t) differ by the weight of x in them (Ho et al. 2020, eq. 7).
        weight = before.sqrt() * (1 - alpha_bar / before) / (1 - alpha_bar)
        distance = (weight * (step.pred_original_sample - x)).square().flatten(1).sum(1)
        diffusion_loss += distance / (2 * scheduler._get_variance(index))
    last, first = scheduler.alphas_cumprod[-1], scheduler.alphas_cumprod[0]
    # Of q(x_T|x) and N(0, 1 - ᾱ_T), from which samples begin.
    prior = (last * x.square() / (2 * (1 - last))).flatten(1).sum(1)

    # The decoder by brute force over all 256 values.
    values, scale = torch.arange(256, dtype=torch.float64) / 127.5 - 1, (1 - first) / first
    logits = -(x + scale.sqrt() * noise[0] - values[:, None, None, None, None]).square() / (2 * scale)
    decoder = -logits.log_softmax(0).gather(0, images.long()[None])[0].flatten(1).sum(1)

    likelihood, numbers = model.likelihood(dtype=torch.float64), iter(range(count - 1, -1, -1))
    found = bounds.bound(
        likelihood.denoiser,
        x,
        torch.linspace(1, 0, count, dtype=torch.float64),
        quantization=likelihood.quantization,
        randn=lambda like: noise[next(numbers)].to(like).expand_as(like),
    )
    for ours, theirs_too in ((found.prior, prior), (found.diffusion, diffusion_loss), (found.decoder, decoder)):
        assert (ours / theirs_too - 1).abs().max() < 1e-6


@torch.no_grad()
def test_a_flat_folder_of_2022_is_the_model_that_it_was(tmp_path: Path) -> None:
    """The files of google/ddpm-cifar10-32 but for their widths, without the keys that came later, and pickled."""
    config = {
        **{"_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu", "attention_head_dim": None},
        **{"block_out_channels": [8, 16, 16, 16], "center_input_sample": False, "downsample_padding": 0},
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        **{"flip_sin_to_cos": False, "freq_shift": 1, "in_channels": 3, "layers_per_block": 2, "out_channels": 3},
        **{"mid_block_scale_factor": 1, "norm_eps": 1e-06, "norm_num_groups": 8, "sample_size": SIDE},
        "time_embedding_type": "positional",
    }
    scheduler = {
        **{"_class_name": "DDPMScheduler", "_diffusers_version": "0.1.1", "beta_end": 0.02, "beta_schedule": "linear"},
        **{"beta_start": 0.0001, "clip_sample": True, "num_train_timesteps": 1000, "trained_betas": None},
        "variance_type": "fixed_large",
    }
    index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "x"]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = UNet2DModel(**{key: value for key, value in config.items() if not key.startswith("_")}).eval()
    made = tmp_path / "made"
    made.mkdir()
    for name, values in (("config", config), ("scheduler_config", scheduler), ("model_index", index)):
        (made / f"{name}.json").write_text(json.dumps(values))
    torch.save(theirs.state_dict(), made / "diffusion_pytorch_model.bin")
    model, x = load(made, tmp_path / "run"), normal(2, 3, SIDE, SIDE)
    steps = DDPMScheduler.from_pretrained(made, clip_sample=False)
    for step in (0, 500, 999):
        expected = steps.step(theirs(x, step).sample, step, x).pred_original_sample
        assert off(model.denoiser(x, torch.tensor(step / 999, dtype=torch.float64)).mean, expected) < 2e-6, step


def test_images_are_from_minus_one_to_one_exactly(made: Path) -> None:
    spec = folder.read(made).spec
    levels = spec.encode(torch.tensor([0, 51, 255]))
    assert levels.tolist() == [-1.0, pytest.approx(-0.6, abs=1e-7), 1.0]


def test_a_run_says_where_it_comes_from_and_is_never_overwritten(tmp_path: Path, made: Path) -> None:
    model = folder.read(made)
    imported.write(model, tmp_path / "run")
    record = json.loads((tmp_path / "run" / imported.RECORD).read_text())
    assert record["files"].keys() == model.origin["files"].keys() and "clip_sample" in record["changes"][0]
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="run: is there already, and nothing is overwritten"):
        imported.write(model, tmp_path / "run")
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def without(name: str) -> Change:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("conv_in.bias"), "conv_in.bias is missing: they are those of another network"),
        (lambda tensors: tensors | {"extra\x1b[2J": torch.ones(1)}, r"extra\\x1b\[2J is left over"),
        (
            lambda tensors: tensors | {"conv_in.bias": torch.ones(9)},
            r"conv_in\.bias: must be of shape \(8,\) .* \(9,\)",
        ),
        (
            lambda tensors: tensors | {"conv_in.bias": torch.full((8,), math.nan)},
            "conv_in.bias: has values that are not",
        ),
        (
            lambda tensors: {},
            r"conv_in\.bias, conv_in\.weight, conv_norm_out\.bias and \d+ more are missing",
        ),
    ],
)
def test_weights_of_another_network_are_named_and_nothing_is_written(
    change: Change, message: str, tmp_path: Path, made: Path
) -> None:
    model = folder.read(made)
    with pytest.raises(InputError, match="weights: " + message):
        imported.write(replace(model, tensors=change(dict(model.tensors))), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_files_from_before_2023_have_the_same_weights(tmp_path: Path) -> None:
    model = folder.read(pipeline(tmp_path / "made"))
    assert any("to_q" in name for name in model.tensors)
    path = tmp_path / "made" / "unet" / "diffusion_pytorch_model.safetensors"
    old = {}
    for name, value in model.tensors.items():
        for new, was in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(new, was)
        old[name] = value
    save_file(old, path)
    again = folder.read(tmp_path / "made")
    assert all(torch.equal(again.tensors[name], value) for name, value in model.tensors.items())
