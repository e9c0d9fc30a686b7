"""The likelihoods of a trained model, by every method, for images and in both precisions."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion import config
from diffusion.data import DataSpec, open_source
from diffusion.errors import InputError
from diffusion.grids import UniformLogSNR, UniformTime
from diffusion.likelihood.bound import bound, bound_2015
from diffusion.likelihood.flow import Hutchinson
from diffusion.likelihood.ode import Adaptive, Fixed, Solver
from diffusion.model import Model
from diffusion.model.likelihood import example_noise, step_offsets


@pytest.fixture(scope="module")
def images(model: Model) -> Tensor:
    dataset = open_source(model.config.data, lambda text: None)
    values, _ = dataset.split(model.config.data.held_out, model.config.data.seed)[1].batch(range(3))
    return values


def test_an_answer_depends_on_the_number_of_its_example_alone(model: Model, images: Tensor) -> None:
    likelihood = model.likelihood()
    whole = likelihood.bound(images, draws=4).total
    for i in range(3):
        one = likelihood.bound(images[i : i + 1], draws=4, numbers=[i]).total
        assert one.item() == pytest.approx(whole[i].item(), rel=1e-4)
    assert not torch.allclose(likelihood.bound(images, draws=4, repeat=1).total, whole, rtol=1e-3)


def test_the_flow_depends_on_the_batch_by_an_adaptive_solver_alone(model: Model, images: Tensor) -> None:
    likelihood = model.likelihood(dtype=torch.float64)

    def change(solver: Solver) -> float:
        whole, one = (
            likelihood.flow(x, probes=Hutchinson(1), solver=solver).log_likelihood[0] for x in (images, images[:1])
        )
        return abs(whole.item() - one.item())

    assert change(Fixed(8)) < 1e-6 < change(Adaptive(1e-3))


def test_float64_is_float32_within_rounding(model: Model, images: Tensor) -> None:
    single, double = (model.likelihood(dtype=dtype) for dtype in (torch.float32, torch.float64))
    assert next(double.denoiser.backbone.parameters()).dtype == torch.float64  # type: ignore[attr-defined]
    assert next(model.denoiser.backbone.parameters()).dtype == torch.float32  # type: ignore[attr-defined]
    a, b = (likelihood.bound(images, draws=4).total for likelihood in (single, double))
    assert torch.allclose(a, b, rtol=1e-4) and not torch.equal(a, b)
    flows = [likelihood.flow(images, probes=Hutchinson(1), solver=Fixed(8)) for likelihood in (single, double)]
    assert torch.allclose(flows[0].log_likelihood, flows[1].log_likelihood, rtol=1e-3)


def test_k_is_that_of_dequantized_values_of_unit_variance(model: Model, images: Tensor) -> None:
    likelihood = model.likelihood(dtype=torch.float64)
    k = likelihood.bound_2015(images, draws=4, numbers=[5, 6, 7])
    x = likelihood.continuous(images, 0, 0, [5, 6, 7])
    by_hand = bound_2015(
        likelihood.denoiser, x, likelihood.times(100_000), draws=4, randn=example_noise(0, 1, 0, [5, 6, 7]),
        offset=step_offsets(0, 0, [5, 6, 7]),
    )  # fmt: skip
    assert torch.allclose(k.total, by_hand.total, rtol=1e-12)
    width = (x - likelihood.encode(images)).abs().max().item() / likelihood.quantization.spacing  # type: ignore[union-attr]
    assert 0.45 < width <= 0.5


def test_a_model_of_a_trajectory_is_measured_on_it(model: Model, images: Tensor) -> None:
    """It has its own steps, even in time, unless others are asked for. Any other model has 100,000 in log-SNR."""
    schedule = model.denoiser.schedule
    assert model.likelihood().times().equal(UniformLogSNR()(schedule, 100_000))
    short = replace(model, config=replace(model.config, training=replace(model.config.training, trajectory=5)))
    assert short.likelihood().times().equal(UniformTime()(schedule, 5))
    assert short.likelihood().times(7).equal(UniformLogSNR()(schedule, 7))
    x = images.to(torch.uint8)
    every = bound(
        model.denoiser, short.likelihood().encode(x), UniformTime()(schedule, 5),
        quantization=short.likelihood().quantization, randn=example_noise(0, 1, 0, range(3)),
    )  # fmt: skip
    assert short.bound(x, draws=None).total.equal(every.total)
    assert (
        short.likelihood()
        .path_weights(x, paths=1)
        .log_weights.equal(short.likelihood().path_weights(x, steps=5, paths=1).log_weights)
    )


def test_guidance_changes_the_likelihood_of_labeled_examples(model: Model, images: Tensor) -> None:
    label = torch.tensor([0, 1, 0])
    plain, guided = (model.likelihood(guidance=scale).bound(images, draws=4, label=label).total for scale in (1.0, 3.0))
    assert not torch.allclose(plain, guided, rtol=1e-4)


WAYS = {
    "bound": {"draws": 2},
    "bound_2015": {"draws": 2},
    "flow": {"probes": Hutchinson(1), "solver": Fixed(2)},
    "path_weights": {"steps": 4, "paths": 2},
}


def measured(model: Model, method: str, images: Tensor, **options: object) -> Tensor:
    """Returns the numbers of one method, (B,) or (B, paths)."""
    result = getattr(model.likelihood(), method)(images, **WAYS[method], **options)
    name = {"flow": "log_likelihood", "path_weights": "log_weights"}.get(method, "total")
    return getattr(result, name)  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", WAYS)
def test_a_likelihood_takes_labels_as_sampling_does(model: Model, images: Tensor, method: str) -> None:
    squares = measured(model, method, images, label=torch.tensor([1, 1, 1]))
    for label in (1, "square", "1", [1, 1, 1], ["square", 1, "1"], torch.tensor(1)):
        assert measured(model, method, images, label=label).equal(squares)
    free, disks = measured(model, method, images), measured(model, method, images, label="disk")
    assert not squares.equal(free) and not squares.equal(disks)
    assert measured(model, method, images, label=-1).equal(free)
    mixed = measured(model, method, images, label=[1, -1, 0])
    expected = torch.stack([squares[0], free[1], disks[2]])
    # Rows of one batch, up to the rounding of the network.
    torch.testing.assert_close(mixed, expected, rtol=1e-6, atol=1e-3)


def test_the_likelihoods_of_a_model_take_labels(model: Model, images: Tensor) -> None:
    squares = model.likelihood().bound(images, draws=2, label=[1, 1, 1]).total
    assert model.bound(images, draws=2, label="square").total.equal(squares)
    assert model.log_likelihood(images, draws=2, label="square").equal(-squares)


NO_LABEL = r"label: must be -1 for none, 0 to 1 or one of disk, square, got "
NOT_AS_MANY = r"label: must be one label or 3 of them, got "


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.tensor([1]), NOT_AS_MANY + r"\[1\]"),
        ([0, 1, 0, 1], NOT_AS_MANY + r"\[0, 1, 0, 1\]"),
        (torch.tensor([0, -5, 1]), NO_LABEL + "-5"),
        (torch.tensor([0, 7, 1]), NO_LABEL + "7"),
        (torch.tensor([0.0, 1.0, 1.0]), NO_LABEL + "0.0"),
        (torch.tensor([[0], [1], [1]]), NO_LABEL + r"\[0\]"),
        (torch.tensor([True, False, True]), NO_LABEL + "True"),
        (2, NO_LABEL + "2"),
        (0.5, NO_LABEL + "0.5"),
        ("circle", NO_LABEL + "'circle'"),
        ([0, None, 1], NO_LABEL + "None"),
    ],
)
@pytest.mark.parametrize("method", WAYS)
def test_a_label_that_does_not_exist_names_those_that_do(
    model: Model, images: Tensor, label: object, message: str, method: str
) -> None:
    with pytest.raises(InputError, match=message):
        measured(model, method, images, label=label)


def test_a_model_without_labels_measures_examples_without(model: Model, images: Tensor) -> None:
    plain = replace(model, spec=replace(model.spec, classes=()))
    with pytest.raises(InputError, match=r"trained without labels \(data.labels = false\), got \[0, 0, -1\]"):
        plain.bound(images, draws=2, label=torch.tensor([0, 0, -1]))
    assert plain.bound(images, draws=2, label=-1).total.equal(plain.bound(images, draws=2).total)


@pytest.mark.parametrize("method", ["bound", "bound_2015", "path_weights"])
@pytest.mark.parametrize("trajectory", [0, 5])
def test_no_steps_are_refused(model: Model, images: Tensor, method: str, trajectory: int) -> None:
    """A model with a number of steps of its own refuses them too."""
    likelihood = replace(model.likelihood(), trajectory=trajectory)
    with pytest.raises(InputError, match="steps: must be at least 1, got 0"):
        getattr(likelihood, method)(images, steps=0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x * math.nan, "x: must be finite, got nan in example 0"),
        (lambda x: x + 1, r"x: must lie in \[0, 1\], or be uint8, got .* in example 0"),
        (lambda x: -x - 0.1, r"x: must lie in \[0, 1\], or be uint8, got -.* in example 0"),
        (lambda x: (x * 255).short() + 300, r"x: must lie in \[0, 1\], or be uint8, got [3-5].* in example 0"),
        (lambda x: (x * 255).short() - 300, r"x: must lie in \[0, 1\], or be uint8, got -.* in example 0"),
        (lambda x: (x * 255).long() * 2 - 5, r"x: must lie in \[0, 1\], or be uint8, got .* in example 0"),
        (lambda x: x > 0.5, r"x: must lie in \[0, 1\], or be uint8, got bool"),
        (lambda x: x[:, :, :4], r"x: must be \(B, 3, 8, 8\) of the data, got \(3, 3, 4, 8\)"),
        (lambda x: x[:0], r"x: must be \(B, 3, 8, 8\) of the data, got \(0, 3, 8, 8\)"),
    ],
)
@pytest.mark.parametrize("method", ["bound", "bound_2015", "flow", "path_weights"])
def test_images_that_cannot_be_weighed_are_named(
    model: Model, images: Tensor, spoil: object, message: str, method: str
) -> None:
    with pytest.raises(InputError, match=message):
        getattr(model.likelihood(), method)(spoil(images / 255))  # type: ignore[operator]


def test_integers_of_any_width_are_gray_levels(model: Model, images: Tensor) -> None:
    expected = model.likelihood().bound(images, draws=2).total
    for dtype in (torch.int16, torch.int64, torch.uint16):
        assert model.likelihood().bound(images.to(dtype), draws=2).total.equal(expected)


def test_a_student_has_no_likelihood(model: Model) -> None:
    student = replace(model, config=replace(model.config, distillation=replace(model.config.distillation, teacher="t")))
    with pytest.raises(InputError, match="likelihood: this model was distilled"):
        student.likelihood()


KNOWN = torch.ones(8, 8, dtype=torch.bool)
KNOWN[2:6, 3:] = False


@pytest.fixture(scope="module")
def restoring(exact_images: Model) -> Model:
    """The model of Gaussian images, whose denoiser takes a noise level for every pixel."""
    experiment = {"data": {"path": "images", "channels": 1}, "observed": {"share": 0.5}}
    return replace(exact_images, config=config.from_dict({**experiment, "sampling": {"precision": "fp32"}}))


def drawn(model: Model, n: int) -> Tensor:
    """Images in units, or gray levels where the data have such."""
    x = model.denoiser.sample(n, torch.Generator().manual_seed(0))  # type: ignore[attr-defined]
    x = model.spec.mean + model.spec.std * x
    return x.float() if model.spec.levels is None else x.round().to(torch.uint8)


def test_what_is_hidden_has_its_conditional_density(restoring: Model) -> None:
    smooth = replace(restoring, spec=DataSpec((1, 8, 8), None, (), 0.3, 2.0))
    images, k = drawn(smooth, 24), KNOWN.flatten()
    covariance = smooth.denoiser.covariance  # type: ignore[attr-defined]
    x = ((images.double() - 0.3) / 2).flatten(1)
    gain = covariance[~k][:, k] @ torch.linalg.inv(covariance[k][:, k])
    left = covariance[~k][:, ~k] - gain @ covariance[k][:, ~k]
    exact = torch.distributions.MultivariateNormal(x[:, k] @ gain.mT, left).log_prob(x[:, ~k])
    marginal = torch.distributions.MultivariateNormal(torch.zeros(44).double(), covariance[k][:, k]).log_prob(x[:, k])
    for masks, truth in (({"known": KNOWN}, exact), ({"seen": KNOWN}, marginal), ({}, exact + marginal)):
        off = smooth.log_likelihood(images, draws=48, **masks) - truth  # type: ignore[arg-type]
        assert abs(float(off.mean())) < 3 * float(off.std()) / 24**0.5 < 10, "nats of 20, 44 and 64 numbers"
    counted = smooth.bound(images[:2], draws=1, known=KNOWN).counted
    assert counted is not None and counted.tolist() == [20, 20]
    by_hand = bound(
        smooth.denoiser, smooth.likelihood().encode(images), smooth.likelihood().times(), draws=2,
        randn=example_noise(0, 1, 0, range(24)), offset=step_offsets(0, 0, range(24)), known=KNOWN[None, None],
    )  # fmt: skip
    assert smooth.bound(images, draws=2, known=KNOWN).total.equal(by_hand.total)


def test_restorations_are_ranked_by_their_likelihood_given_what_is_known(restoring: Model) -> None:
    samples = restoring.inpaint(drawn(restoring, 1)[0], KNOWN, n=3, steps=40).samples
    spoiled = samples[:1].clone()
    spoiled[..., 3, 4] = spoiled[..., 3, 4] - 0.4
    scores = restoring.log_likelihood(torch.cat([samples, spoiled]), known=KNOWN, draws=128)
    assert int(scores.argmin()) == 3 and float(scores[:3].min() - scores[3]) > 10


def test_a_mask_may_be_given_as_for_restoration(restoring: Model, tmp_path: Path) -> None:
    images = drawn(restoring, 2)
    expected = restoring.bound(images, draws=2, known=KNOWN).total
    picture = Image.fromarray(255 * KNOWN.byte().numpy())
    picture.save(tmp_path / "mask.png")
    for known in (KNOWN[None], KNOWN.numpy(), KNOWN.expand(2, 1, 8, 8), picture, tmp_path / "mask.png"):
        assert restoring.bound(images, draws=2, known=known).total.equal(expected)
    # Hidden values that count have an influence, and those that were not seen have none.
    other = torch.where(KNOWN, images, 255 - images)
    assert not restoring.bound(other, draws=2, known=KNOWN).total.equal(expected)
    seen = restoring.bound(images, draws=2, seen=KNOWN).total
    assert restoring.bound(other, draws=2, seen=KNOWN).total.equal(seen)


@pytest.mark.parametrize("name", ["known", "seen"])
def test_masks_that_do_not_suit_are_refused(restoring: Model, exact_images: Model, name: str) -> None:
    images = drawn(restoring, 2)
    with pytest.raises(InputError, match=f"{name}: must be left out with this model, which takes one noise level for"):
        exact_images.bound(images, draws=2, **{name: KNOWN})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"{name}: must be of the shape \(1, 8, 8\) of the data, .* got \(8, 7\)"):
        restoring.log_likelihood(images, draws=2, **{name: KNOWN[:, 1:]})  # type: ignore[arg-type]
    nothing = torch.full((8, 8), name == "known")
    with pytest.raises(InputError, match=f"{name}: must leave something of each example to measure"):
        restoring.log_likelihood(images, draws=2, **{name: nothing})  # type: ignore[arg-type]
