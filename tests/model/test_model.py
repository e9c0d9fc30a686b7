"""The methods of a trained model: sampling, restoration and likelihood."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

import diffusion
from diffusion import checkpoint, config, grids, memory, samplers, schedules
from diffusion.backbones import Backbone
from diffusion.backbones.unet import UNet
from diffusion.data import DataSpec, open_source
from diffusion.denoiser import Prediction
from diffusion.draw import Draw
from diffusion.errors import InputError
from diffusion.model import Model, load
from diffusion.operators import Mask, Matrix
from diffusion.randomness import ExampleNoise
from diffusion.restoration import Problem
from diffusion.restoration.methods import METHODS, Method, PiGDM, RePaint
from diffusion.samplers import SAMPLERS
from diffusion.schedules import DiscreteBetas, Schedule
from diffusion.training import train
from tests.conftest import tiny

CLOSE = {"rtol": 0.0, "atol": 1e-5}
# A fortieth of an 8-bit gray level: float32 rounding after steps that go through the network's gradient.
FORTIETH = {"atol": 1e-4, "rtol": 0.0}


@pytest.fixture(scope="module")
def images(model: Model) -> Tensor:
    """Returns held-out images, uint8."""
    dataset = open_source(model.config.data, lambda text: None)
    values, _ = dataset.split(model.config.data.held_out, model.config.data.seed)[1].batch(range(6))
    return values


@pytest.fixture
def known() -> Tensor:
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    mask[:, 2:6, 3:7] = False
    return mask


def test_load_gives_the_averaged_weights_and_the_description(trained: Path) -> None:
    model = diffusion.load(trained)
    folder, _ = checkpoint.find(trained)
    saved, trainings = (checkpoint.read(folder, part).tensors for part in ("model", "training"))
    loaded = model.denoiser.backbone.state_dict()  # type: ignore[attr-defined]
    assert loaded.keys() == saved.keys() and all(torch.equal(loaded[name], saved[name]) for name in saved)
    assert any(not torch.equal(loaded[name], trainings[f"network/{name}"]) for name in saved)
    assert model.step == 40 and model.spec.classes == ("disk", "square") and model.spec.shape == (3, 8, 8)
    assert model.config.training.steps == 40
    assert not any(p.requires_grad for p in model.denoiser.backbone.parameters())  # type: ignore[attr-defined]


def test_a_network_sees_the_gray_levels_of_its_own_data(shapes: Path, tmp_path: Path) -> None:
    experiment = tiny(
        shapes, backbone={"fourier": 2}, training={"steps": 1}, data={"held_out": 0.0}, report={"pictures": 1}
    )
    assert train(experiment, tmp_path) == 0
    model = load(tmp_path)
    backbone = model.denoiser.backbone
    assert isinstance(backbone, UNet) and backbone.features is not None
    levels = model.spec.encode(torch.arange(256.0)).double()
    for n, frequency in enumerate(backbone.features.frequencies):
        assert torch.allclose((frequency * (levels - levels[0]) * 2**n).cos(), torch.ones(()).double(), atol=1e-4)


def test_an_older_checkpoint_loads_by_its_folder(trained: Path) -> None:
    older = load(trained / "checkpoints" / "step-00000020")
    assert older.step == 20
    assert not torch.equal(older.sample(1), load(trained).sample(1))


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_a_sample_depends_on_its_seed_and_number_alone(model: Model, sampler: str) -> None:
    whole = model.sample(7, sampler=sampler, seed=3)
    assert whole.shape == (7, 3, 8, 8) and whole.dtype == torch.float32
    assert float(whole.min()) >= 0 and float(whole.max()) <= 1 and float(whole.std()) > 0.05
    torch.testing.assert_close(model.sample(7, sampler=sampler, seed=3, batch=1), whole, **CLOSE)
    torch.testing.assert_close(model.sample(7, sampler=sampler, seed=3, batch=3), whole, **CLOSE)
    torch.testing.assert_close(model.sample(2, sampler=sampler, seed=3), whole[:2], **CLOSE)
    other = model.sample(7, sampler=sampler, seed=4)
    assert all(float((a - b).abs().max()) > 1e-3 for a, b in zip(whole, other, strict=True))
    assert all(float((whole[0] - b).abs().max()) > 1e-3 for b in whole[1:])


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_samples_in_bf16_are_those_in_float32_within_rounding(model: Model, sampler: str) -> None:
    """The mean differences were 0.0006 to 0.002, in units where black is 0 and white 1."""
    autocast = replace(model, config=replace(model.config, sampling=replace(model.config.sampling, precision="bf16")))
    difference = (autocast.sample(8, sampler=sampler) - model.sample(8, sampler=sampler)).abs()
    assert 0 < float(difference.mean()) < 0.004


def test_likelihoods_stay_in_float32(model: Model, images: Tensor) -> None:
    autocast = replace(model, config=replace(model.config, sampling=replace(model.config.sampling, precision="bf16")))
    assert torch.equal(autocast.log_likelihood(images, draws=2), model.log_likelihood(images, draws=2))


def test_memory_is_measured_once_for_each_way_of_evaluating(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    monkeypatch.setattr(memory, "bytes_each", lambda call, device: float(tried.append(1) or 2**20))
    monkeypatch.setattr(memory, "available", lambda device: 2**26)
    on_gpu = replace(model, device=torch.device("cuda"))
    for _ in range(3):
        assert {each._setup.batch(model.denoiser, None) for each in (on_gpu, replace(on_gpu, step=0))} == {32}
    assert len(tried) == 1
    for label in (0, 1):
        on_gpu._setup.batch(model.guided(2.0), torch.tensor([label]))
    on_gpu._setup.batch(model.guided(2.0), torch.tensor([0]), PiGDM())
    assert len(tried) == 3


def test_the_noise_is_exactly_the_same_at_any_batch_size(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Tensor] = []
    real = ExampleNoise.__call__

    def watched(self: ExampleNoise, x: Tensor) -> Tensor:
        drawn.append(real(self, x))
        return drawn[-1]

    monkeypatch.setattr(ExampleNoise, "__call__", watched)
    sequences = []
    for batch in (6, 2):
        drawn.clear()
        model.sample(6, sampler="ddpm", steps=3, batch=batch)
        calls = len(drawn) * batch // 6
        sequences.append(
            [torch.cat([drawn[part * calls + call] for part in range(6 // batch)]) for call in range(calls)]
        )
    assert len(sequences[0]) == len(sequences[1]) == 4
    assert all(torch.equal(a, b) for a, b in zip(*sequences, strict=True))


def test_the_end_of_a_trajectory_is_the_sample(model: Model) -> None:
    walk = list(model.trajectory(3, seed=5, steps=6, label="disk", guidance=2.0))
    times = [t for t, _ in walk]
    assert len(walk) == 7 and times == sorted(times, reverse=True) and times[-1] == 0.0
    torch.testing.assert_close(walk[-1][1], model.sample(3, seed=5, steps=6, label="disk", guidance=2.0), **CLOSE)


def test_the_ends_of_a_trajectory_are_those_of_its_grid(model: Model) -> None:
    even = replace(model, config=replace(model.config, grid=grids.UniformLogSNR(first=-4.0, last=5.0)))
    assert even.ends == pytest.approx((-4.0, 5.0), abs=1e-6)


def test_a_tuned_model_keeps_the_ends_of_its_grid_and_follows_the_path_more_closely(model: Model) -> None:
    tuned, schedule = model.tuned(n=24), model.denoiser.schedule
    own, measured = (m.config.grid(schedule, 12) for m in (model, tuned))
    assert torch.allclose(schedule.log_snr(own[[0, -2]]), schedule.log_snr(measured[[0, -2]]), atol=1e-4)
    path = model.sample(12, sampler="ddim", steps=120, seed=5)
    off = [float((m.sample(12, sampler="ddim", steps=12, seed=5) - path).square().mean()) for m in (tuned, model)]
    assert off[0] < 0.6 * off[1]


def test_a_film_begins_with_noise_and_ends_with_the_samples(model: Model) -> None:
    frames = model.film(3, frames=5, steps=10, seed=5)
    walk = list(model.trajectory(3, seed=5, steps=10))
    assert len(frames) == 5
    assert torch.equal(frames[0], walk[0][1]) and torch.equal(frames[-1], walk[-1][1])
    assert len(model.film(3, frames=100, steps=4)) <= 5


def test_a_trajectory_leaves_the_gradient_mode_of_its_caller_alone(model: Model) -> None:
    walk = model.trajectory(1)
    for _, x in walk:
        assert torch.is_grad_enabled() and not x.requires_grad
    assert torch.is_grad_enabled()


def test_labels_by_number_name_and_list_are_the_same(model: Model) -> None:
    squares = model.sample(3, label=1)
    assert torch.equal(squares, model.sample(3, label="square"))
    assert torch.equal(squares, model.sample(3, label="1"))
    assert torch.equal(squares, model.sample(3, label=[1, 1, 1]))
    mixed = model.sample(3, label=["square", 0, 1], batch=2)
    torch.testing.assert_close(mixed[[0, 2]], squares[[0, 2]], **CLOSE)
    torch.testing.assert_close(mixed[1], model.sample(3, label="disk")[1], **CLOSE)
    assert not torch.equal(squares, model.sample(3, label="disk"))
    assert not torch.equal(squares, model.sample(3))


def test_guidance_goes_from_unlabeled_to_labeled_and_beyond(model: Model) -> None:
    labeled, free = model.sample(2, label=1), model.sample(2)
    torch.testing.assert_close(model.sample(2, label=1, guidance=0.0), free, **CLOSE)
    torch.testing.assert_close(model.sample(2, label=1, guidance=1.0), labeled, **CLOSE)
    assert not torch.allclose(model.sample(2, label=1, guidance=3.0), labeled, atol=1e-4)


def test_guidance_of_a_model_that_has_nothing_to_guide_by_is_refused(model: Model) -> None:
    unlabeled = replace(model, spec=replace(model.spec, classes=()))
    sure = replace(model, config=replace(model.config, training=replace(model.config.training, label_dropout=0.0)))
    for other, why in (
        (unlabeled, "with labels (data.labels = false)"),
        (sure, "without labels (training.label_dropout = 0)"),
    ):
        with pytest.raises(InputError) as caught:
            other.sample(1, steps=1, guidance=2.0)
        assert str(caught.value) == f"guidance: must be 1 for this model, which was not trained {why}, got 2.0"
        with pytest.raises(InputError, match="guidance: must be 1 for this model"):
            other.likelihood(guidance=2.0)
        assert len(other.sample(1, steps=1, guidance=1.0)) == 1


def test_guidance_without_a_label_to_guide_towards_is_refused(model: Model, images: Tensor, known: Tensor) -> None:
    rule = r"^guidance: must be 1 without a label, towards which it guides, got 2\.0$"
    for draw in (
        lambda label: model.sample(1, steps=1, guidance=2.0, label=label),
        lambda label: model.inpaint(images[0], known, n=1, steps=1, guidance=2.0, label=label),
        lambda label: model.encode(images[:1], guidance=2.0, label=label, tolerance=0.1),
    ):
        with pytest.raises(InputError, match=rule):
            draw(None)
        draw("disk")


@pytest.mark.parametrize("label", [2, -1, "circle", "7", "²", 1.0, [0, 2], [True, False]])
def test_a_label_that_does_not_exist_names_those_that_do(model: Model, label: object) -> None:
    if isinstance(label, float):
        label = [label, label]
    with pytest.raises(InputError, match=r"label: must be 0 to 1 or one of disk, square, got "):
        model.sample(2, label=label)  # type: ignore[arg-type]


def test_as_many_labels_as_samples_are_needed(model: Model) -> None:
    with pytest.raises(InputError, match="label: must be one label or 3 of them"):
        model.sample(3, label=[0, 1])


def test_a_label_for_a_model_without_labels_is_refused(model: Model) -> None:
    plain = replace(model, spec=replace(model.spec, classes=()))
    with pytest.raises(InputError, match=r"trained without labels \(data.labels = false\), got 0"):
        plain.sample(1, label=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "euler"}, "sampler: must be one of ddpm, ddim, heun"),
        ({"steps": 0}, "steps: must be at least 1, got 0"),
        ({"batch": 0}, "batch: must be at least 1, got 0"),
        ({"guidance": -1.0, "label": 0}, "guidance.scale: must be 0 or more, got -1"),
    ],
)
def test_options_that_cannot_be_used_are_named(model: Model, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.sample(2, **options)  # type: ignore[arg-type]


def test_no_samples_are_refused(model: Model) -> None:
    with pytest.raises(InputError, match="n: must be at least 1, got 0"):
        model.sample(0)


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_the_schedule_may_be_another_after_training(model: Model, name: str) -> None:
    other = replace(model, denoiser=replace(model.denoiser, schedule=schedules.SCHEDULES[name]()))
    ours, theirs = (each.sample(4, steps=24, sampler="heun") for each in (model, other))
    # The ODE is the same in z = x/α, and so are its solutions at the same noise levels.
    assert float((ours - theirs).abs().max()) < 1e-5 and float((ours - ours.roll(1, 0)).abs().mean()) > 0.03


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_every_method_keeps_what_is_known_exactly(
    model: Model, mapped_model: Model, images: Tensor, known: Tensor, method: str
) -> None:
    image, model = images[0] / 255, mapped_model if method == "learned" else model
    if method == "zero":
        with pytest.raises(InputError, match="noise"):
            model.inpaint(image, known, method=method)
        return
    result = model.inpaint(image, known, n=3, method=method, steps=4)
    everywhere = known.expand_as(image)
    assert result.samples.shape == (3, 3, 8, 8) and result.diagnostics.residual == 0
    assert all(torch.equal(sample[everywhere], image[everywhere]) for sample in result.samples)
    filled = result.samples[:, ~everywhere]
    assert bool(torch.isfinite(filled).all()) and float(filled.min()) >= 0 and float(filled.max()) <= 1
    alike = method == "particles"  # Those of one ancestor may be.
    assert alike or all(float((filled[i] - filled[j]).abs().max()) > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_restorations_have_their_mean_and_standard_deviation(model: Model, images: Tensor, known: Tensor) -> None:
    result = model.inpaint(images[1] / 255, known, n=5, method="replacement", steps=3)
    values = result.samples.double()
    torch.testing.assert_close(result.mean.double(), values.sum(0) / 5, **CLOSE)
    spread = ((values - values.sum(0) / 5).square().sum(0) / 4).sqrt()
    torch.testing.assert_close(result.std.double(), spread, **CLOSE)
    everywhere = known.expand_as(result.std)
    assert bool((result.std[everywhere] == 0).all()) and bool((result.std[~everywhere] > 0).any())
    one = model.inpaint(images[1] / 255, known, n=1, method="replacement", steps=3)
    assert torch.equal(one.std, torch.zeros(3, 8, 8)) and torch.equal(one.mean, one.samples[0])


@pytest.mark.parametrize("method", [RePaint(2), PiGDM()], ids=["repaint", "pigdm"])
def test_a_restoration_depends_on_its_seed_and_number_alone(
    model: Model, images: Tensor, known: Tensor, method: Method
) -> None:
    def restore(n: int, **options: int) -> Tensor:
        given = images[2] / 255
        return model.inpaint(given, known, n=n, method=method, sampler="dpmpp_2m", steps=3, **options).samples

    whole = restore(5)
    torch.testing.assert_close(restore(5, batch=2), whole, **FORTIETH)
    torch.testing.assert_close(restore(1), whole[:1], **FORTIETH)
    assert not torch.allclose(restore(5, seed=1), whole, atol=1e-3)


def test_with_observation_noise_known_pixels_move_and_the_zero_covariance_runs(
    model: Model, images: Tensor, known: Tensor
) -> None:
    image = images[0] / 255
    off = (model.inpaint(image, known, n=2, noise=0.1, steps=6).samples - image).abs()
    assert 0 < float(off[:, known.expand_as(image)].mean()) < 0.25
    zero = model.inpaint(image, known, n=2, method="zero", noise=0.1, steps=6).samples
    assert bool(torch.isfinite(zero).all()) and float(zero.std()) > 0


def test_when_all_is_known_nothing_changes_and_when_nothing_is_all_does(model: Model, images: Tensor) -> None:
    """As limits of a problem: `inpaint` refuses both, as there is nothing to restore or nothing to go by."""
    image = images[0] / 255

    def solved(given: Tensor, known: Tensor, steps: int) -> Tensor:
        return model.solve(Problem(Mask(known), given[None], 0.0, (3, 8, 8)), Draw(2, steps=steps)).samples

    everything = solved(image, torch.ones(1, 1, 1, dtype=torch.bool), 2)
    assert torch.equal(everything, image.expand(2, -1, -1, -1))
    first, second = (solved(given, torch.tensor(False), 3) for given in (image, 1 - image))
    torch.testing.assert_close(first, second, **CLOSE)
    sampled = model.sample(2, steps=3, sampler="dpmpp_2m_sde")
    torch.testing.assert_close(first, sampled, **FORTIETH)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((8, 8), {}, r"image: must be of 3 channels, \(C, H, W\), got \(8, 8\)"),
        ((1, 8, 8), {}, r"got \(1, 8, 8\)"),
        ((3, 8, 0), {}, r"got \(3, 8, 0\)"),
        ((3, 8, 9), {}, r"mask: must be of a shape that broadcasts to \(3, 8, 9\), got \(1, 8, 8\)"),
        ((3, 8, 8), {"batch": 0}, "batch: must be at least 1, got 0"),
        ((3, 8, 8), {"label": 5}, "label: must be 0 to 1"),
    ],
)
def test_what_cannot_be_restored_is_named(
    model: Model, known: Tensor, shape: tuple[int, ...], options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        model.inpaint(torch.zeros(shape), known, **options)  # type: ignore[arg-type]


def test_the_likelihood_of_bytes_and_floats_is_the_same_number(model: Model, images: Tensor) -> None:
    nats = model.log_likelihood(images, steps=50, draws=10)
    assert nats.shape == (6,) and bool(torch.isfinite(nats).all()) and bool((nats < 0).all())
    assert torch.equal(nats, model.log_likelihood(images / 255, steps=50, draws=10))
    assert torch.equal(nats, model.log_likelihood(images, steps=50, draws=10, seed=0))
    assert not torch.equal(nats, model.log_likelihood(images, steps=50, draws=10, seed=1))
    bound = model.bound(images, steps=50, draws=10)
    torch.testing.assert_close(-nats, bound.prior + bound.diffusion + bound.decoder)


def test_some_steps_of_the_bound_stand_for_all_of_them(model: Model, images: Tensor) -> None:
    # Each of the same images has random numbers of its own.
    whole = model.bound(images[:1].expand(12, -1, -1, -1), steps=60, draws=None, seed=0).diffusion
    drawn = model.bound(images[:1].expand(80, -1, -1, -1), steps=60, draws=5, seed=1).diffusion
    assert len(whole.unique()) == 12 and len(drawn.unique()) == 80
    error = (whole.var() / len(whole) + drawn.var() / len(drawn)).sqrt()
    assert float((whole.mean() - drawn.mean()).abs()) < 4 * float(error)
    assert float(error) < 0.1 * float(whole.mean())


@dataclass(frozen=True)
class Nothing:
    """A denoiser whose every estimate is 0, on a schedule whose clean end is noisy: σ_0 = 0.01."""

    schedule: Schedule = DiscreteBetas()

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        return Prediction(0 * x_t)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sample_ends_at_the_estimate_without_the_noise_of_the_clean_end(sampler: str) -> None:
    """Ho et al. 2020, algorithm 2: with estimates of 0 every sample is 0, not noise of standard deviation σ_0."""
    spec = DataSpec((2,), None)
    model = Model(
        Nothing(), spec, config.from_dict({"data": {"source": "swiss_roll"}, "sampling": {"precision": "fp32"}})
    )  # type: ignore[arg-type]
    assert float(model.denoiser.schedule(torch.zeros(()).double())[1]) == pytest.approx(0.01, rel=1e-6)
    assert torch.equal(model.sample(400, steps=20, sampler=sampler), torch.zeros(400, 2))
    restored = model.restore(torch.tensor([1.0]), Matrix(torch.tensor([[1.0, 0.0]])), noise=1e3, n=50, method="pigdm")
    assert restored.samples.abs().max() < 1e-3


@pytest.mark.parametrize("setting", ["auto", True])
def test_sampling_compiles_the_network_if_asked_and_likelihoods_stay_the_same(
    run: Path, setting: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.compiler.reset()
    model, counter = load(run, device="cpu"), CompileCounter()
    backbone = model.denoiser.backbone
    assert isinstance(backbone, Backbone)
    real = backbone.compile_blocks
    monkeypatch.setattr(backbone, "compile_blocks", lambda **options: real(counter, **options))
    plain, images = model.sample(2, steps=2), torch.rand(2, 3, 8, 8)
    before = model.log_likelihood(images, draws=2)
    asked = replace(model, config=replace(model.config, sampling=replace(model.config.sampling, compile=setting)))
    assert torch.allclose(asked.sample(2, steps=2), plain, atol=1e-5)
    assert backbone.compiled is (setting is True) and (counter.frame_count > 0) is (setting is True)
    compiled = counter.frame_count
    assert torch.equal(asked.log_likelihood(images, draws=2), before) and counter.frame_count == compiled
    torch.compiler.reset()
