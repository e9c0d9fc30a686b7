"""A model restores in the units of its data: the exact posterior of Gaussian data, and what cannot be restored."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion import config
from diffusion.data import DataSpec
from diffusion.denoiser import Prediction
from diffusion.errors import InputError
from diffusion.model import Model, restoration
from diffusion.model.restoration import Diagnostics, Restoration
from diffusion.operators import JPEG, Downsample, GaussianBlur, Mask, Matrix, Operator
from diffusion.restoration.methods import METHODS, Guided, Method, RePaint, Resampling, Twisted
from diffusion.restoration.statistics import interval
from diffusion.samplers import DDIM
from diffusion.schedules import EDM, Schedule
from tests.oracles import GaussianOracle, short_correlations

MEAN, STD, NOISE = 3.0, 2.0, 0.5
COVARIANCE = torch.tensor([[1.0, 0.6, 0.0], [0.6, 0.8, 0.2], [0.0, 0.2, 0.5]], dtype=torch.float64)
ORACLE = GaussianOracle(EDM(), torch.tensor([0.2, -0.3, 0.1], dtype=torch.float64), COVARIANCE)
MATRIX = torch.tensor([[0.5, 0.0, 1.0], [0.2, -0.4, 0.0]], dtype=torch.float64)
Y = torch.tensor([5.5, 0.2], dtype=torch.float64)
STEPS = 48


@pytest.fixture(scope="module")
def exact() -> Model:
    """A model of Gaussian points, in units of their own."""
    experiment = config.from_dict({"data": {"source": "swiss_roll"}, "sampling": {"precision": "fp32"}})
    spec = DataSpec((3,), None, mean=MEAN, std=STD)
    return Model(ORACLE, spec, experiment)  # type: ignore[arg-type]


@pytest.fixture
def image() -> Tensor:
    return torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))


def posterior() -> tuple[Tensor, Tensor, float]:
    """Returns the mean and covariance of the data given Y, and log p(Y), all in the units of the data."""
    mean, covariance = MEAN + STD * ORACLE.mean, STD**2 * COVARIANCE
    evidence = torch.distributions.MultivariateNormal(
        MATRIX @ mean, MATRIX @ covariance @ MATRIX.mT + NOISE**2 * torch.eye(2).double()
    ).log_prob(Y)
    given_y = GaussianOracle(EDM(), mean, covariance).posterior(MATRIX, Y, NOISE)
    return given_y.mean, given_y.covariance, float(evidence)


@pytest.mark.parametrize("method", [Guided(), Twisted(2), Resampling(8)], ids=["mmps", "particles", "resampling"])
def test_samples_are_those_of_the_posterior_in_the_units_of_the_data(exact: Model, method: Method) -> None:
    result = exact.restore(Y.float(), Matrix(MATRIX), noise=NOISE, n=1500, method=method, steps=STEPS)
    mean, covariance, evidence = posterior()
    scale = covariance.diagonal().sqrt()
    assert ((result.mean - mean) / scale).abs().max() < 0.12
    assert ((result.std / scale) - 1).abs().max() < 0.1
    low, high = result.quantile((0.05, 0.95))
    width = 2 * 1.645 * scale
    assert (((high - low) / width) - 1).abs().max() < 0.12
    assert torch.equal(result.quantile(0.5), result.samples.quantile(0.5, dim=0))
    found = result.diagnostics
    assert found.method == method and 0.5 < found.residual < 1.2
    if method == Guided():
        assert found.log_evidence is found.relative_ess is found.ancestors is None
    else:
        assert found.log_evidence == pytest.approx(evidence, abs=0.1)
        assert 0 < found.relative_ess <= 1 and found.ancestors > 100


def test_images_of_another_size_are_restored_as_by_their_own_model(exact_images: Model) -> None:
    """Windows have the model's size. The reference is the exact posterior of the large image, in units of images."""
    size, n, spec = (11, 20), 40, exact_images.spec
    whole = short_correlations(EDM(), *size, 1.5)
    known = torch.ones(1, *size, dtype=torch.bool)
    known[:, 4:8, 7:13] = False
    image = spec.decode(whole.sample(1, torch.Generator().manual_seed(0)))[0].float()
    found = exact_images.inpaint(image, known, n=n, steps=STEPS, method="mmps")
    assert found.diagnostics.windows == 2 * 4 and found.samples.shape == (n, 1, *size)
    assert torch.equal(found.samples[:, known], image[known].expand(n, -1))
    matrix = torch.eye(220).double()[known.flatten()]
    exact = whole.posterior(matrix, spec.standardize(image).double().flatten()[known.flatten()], 1e-3)
    std = exact.covariance.diagonal().sqrt()
    z = ((spec.standardize(found.samples).flatten(1) - exact.mean.flatten()) / std)[:, ~known.flatten()]
    # The mean of exact samples would be off by 1 / sqrt(40) = 0.16.
    assert float(z.mean(0).square().mean().sqrt()) < 0.27 and float(z.var(0).mean()) == pytest.approx(1, abs=0.15)


def test_what_is_far_from_a_hole_is_kept_and_not_looked_at(exact_images: Model) -> None:
    image = torch.rand(1, 30, 40, generator=torch.Generator().manual_seed(0))
    known = torch.ones(1, 30, 40, dtype=torch.bool)
    known[:, 10:12, 5:8] = False
    found = exact_images.inpaint(image, known, n=2, steps=4)
    assert found.diagnostics.windows == 3 * 3, "of the 16 x 15 pixels within 7 of the hole, or to the border"
    changed = image.clone()
    changed[:, :, 20:] = 0.5
    again = exact_images.inpaint(changed, known, n=2, steps=4)
    assert torch.equal(again.samples[..., :20], found.samples[..., :20])
    assert torch.equal(again.samples[..., 20:], changed[..., 20:].expand(2, -1, -1, -1))


@pytest.mark.parametrize("size", [(5, 13), (12, 12)])
def test_observations_of_another_size(exact_images: Model, size: tuple[int, int]) -> None:
    """Smaller, larger and mixed sizes are compared with the exact posterior."""
    whole, spec, noise, n = short_correlations(EDM(), *size, 1.5), exact_images.spec, 0.05, 32
    image = spec.decode(whole.sample(1, torch.Generator().manual_seed(1)))
    operator = GaussianBlur(0.8)
    y = (operator(image) + noise * torch.randn(image.shape, generator=torch.Generator().manual_seed(2)))[0]
    options = {"size": size, "noise": noise, "n": n, "method": "mmps"}
    found = exact_images.restore(y, operator, **options, steps=40)  # type: ignore[arg-type]
    count = math.prod(size)
    matrix = operator(torch.eye(count).double().reshape(count, 1, *size)).flatten(1).mT
    seen = (y.flatten() - operator(torch.full_like(image, spec.mean / spec.top)).flatten()) * spec.top / spec.std
    exact = whole.posterior(matrix, seen, noise * spec.top / spec.std)
    z = (spec.standardize(found.samples).flatten(1) - exact.mean.flatten()) / exact.covariance.diagonal().sqrt()
    assert float(z.mean(0).square().mean().sqrt()) < 0.27 and float(z.var(0).mean()) == pytest.approx(1, abs=0.15)
    once, parts = (exact_images.restore(y, operator, **options, steps=4, batch=b) for b in (n, 16))  # type: ignore[arg-type]
    torch.testing.assert_close(parts.samples, once.samples, rtol=0, atol=1e-4)


def test_the_default_of_a_few_observations_weighs_particles(exact: Model) -> None:
    result = exact.restore(Y.float(), Matrix(MATRIX), noise=NOISE, n=20)
    assert result.diagnostics.method == Resampling() and result.samples.shape == (20, 3)
    written = json.loads(json.dumps(result.diagnostics.to_dict(), allow_nan=False))
    assert written["method"] == "resampling" and written["options"].startswith("Resampling(particles=4")
    assert written["nfe"] > 0 and math.isfinite(written["log_evidence"])


@pytest.mark.parametrize(
    ("operator", "noise"),
    [(Downsample(2), 0.0), (GaussianBlur(0.7), 0.05), (JPEG(20), 0.05), (Mask(torch.ones(1, 8, 1).bool()), 0.1)],
    ids=str,
)
def test_restorations_agree_with_what_was_seen(model: Model, image: Tensor, operator: Operator, noise: float) -> None:
    y = operator(image[None])[0]
    result = model.restore(y, operator, noise=noise, n=2, steps=8)
    assert result.samples.shape == (2, 3, 8, 8) and 0 <= float(result.samples.min()) <= float(result.samples.max()) <= 1
    missed = (operator(result.samples) - y).square().mean().sqrt()
    assert result.diagnostics.residual == pytest.approx(float(missed) / (noise or 1), rel=1e-4)
    other = (operator(model.sample(2)) - y).square().mean().sqrt()
    assert missed < 0.6 * other


def test_any_sampler_and_options_of_a_method(model: Model, image: Tensor) -> None:
    known = torch.ones(1, 8, 8).bool().tril()
    by_name = model.inpaint(image, known, n=2, steps=4, sampler="ddim", method="mmps")
    given = model.inpaint(image, known, n=2, steps=4, method=Guided(sampler=DDIM()))
    assert torch.equal(by_name.samples, given.samples) and given.diagnostics.method == Guided(sampler=DDIM())
    often = model.inpaint(image, known, n=1, steps=4, method=RePaint(3))
    assert often.diagnostics.nfe == 12 and often.diagnostics.backward == 0
    guided = model.inpaint(image, known, n=2, steps=4, label="disk", guidance=3.0)
    assert not torch.allclose(
        guided.samples, model.inpaint(image, known, n=2, steps=4, label="disk").samples, atol=1e-3
    )


def test_particles_do_not_depend_on_the_batch(model: Model, image: Tensor) -> None:
    known = torch.zeros(1, 8, 8).bool()
    known[0, 3, 3:5] = True
    whole = model.inpaint(image, known, n=3, steps=4)
    assert isinstance(whole.diagnostics.method, Resampling) and whole.diagnostics.log_evidence is not None
    assert torch.equal(model.inpaint(image, known, n=3, steps=4, batch=1).samples, whole.samples)


def test_what_a_mask_hides_is_not_looked_at(model: Model, image: Tensor) -> None:
    known = torch.ones(1, 8, 8).bool().tril()
    hidden = torch.where(known, image, torch.nan)
    torch.testing.assert_close(
        model.inpaint(hidden, known, n=1, steps=3).samples, model.inpaint(image, known, n=1, steps=3).samples
    )


@pytest.mark.parametrize(
    ("operator", "y", "options", "message"),
    [
        (Downsample(2), (3, 8, 8), {"size": (8, 8)}, r"y: must be of the shape \(3, 4, 4\) .*, got \(3, 8, 8\)"),
        (Matrix(torch.ones(2, 7)), (2,), {}, r"matrix: must be \(m, 192\) for examples \(3, 8, 8\), got \(2, 7\)"),
        (Mask(torch.ones(1, 9, 8).bool()), (3, 8, 8), {}, r"known, the mask: must be .* \(3, 8, 8\), got \(1, 9, 8\)"),
        (Downsample(2), (3, 4, 4), {"noise": -0.1}, r"noise: must be finite, 0 or more, got -0\.1"),
        (Downsample(2), (3, 4, 4), {"noise": math.nan}, "noise: must be finite, 0 or more, got nan"),
        (Downsample(2), (3, 4, 4), {"noise": math.inf}, "noise: must be finite, 0 or more, got inf"),
        (Downsample(2), (3, 4, 4), {"size": 8}, r"size: must be \(height, width\) in pixels, got 8"),
        (Downsample(2), (3, 4, 4), {"size": (8,)}, r"size: must be \(height, width\) in pixels, got \(8,\)"),
        (Downsample(2), (3, 4, 4), {"size": (0, 8)}, r"size: must be \(height, width\) in pixels, got \(0, 8\)"),
        (Downsample(2), (3, 4, 4), {"size": (16, 8)}, r"y: must be of the shape \(3, 8, 4\) .* of \(3, 16, 8\)"),
        (Downsample(2), (3, 4, 4), {"n": 0}, "n: must be at least 1, got 0"),
        (Downsample(2), (3, 4, 4), {"method": "jacobian"}, "method: must be one of auto, product, replacement"),
        (Downsample(2), (3, 4, 4), {"method": "repaint"}, "operator: must be a mask for repaint, got Downsample"),
        (Downsample(2), (3, 4, 4), {"method": "zero"}, "noise: must be positive with the zero covariance"),
        (Downsample(2), (3, 4, 4), {"sampler": "euler"}, "sampler: must be one of ddpm"),
        (GaussianBlur(1.5, "circular"), (3, 8, 8), {}, "y: without noise it must be what the operator gives"),
    ],
)  # fmt: skip
def test_what_cannot_be_restored_is_named(
    model: Model, operator: Operator, y: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    seen = torch.rand(y, generator=torch.Generator().manual_seed(1))
    with pytest.raises(InputError, match=message):
        model.restore(seen, operator, **options)


def test_an_observation_that_is_not_finite_is_named(model: Model) -> None:
    y = torch.full((3, 4, 4), torch.nan)
    with pytest.raises(InputError, match=r"^y: must be finite, got NaN or infinity in 48 of 48 values"):
        model.restore(y, Downsample(2), noise=0.1)
    known = torch.ones(1, 8, 8).bool().tril()
    with pytest.raises(InputError, match=r"image, or y: must be finite where known, got NaN or infinity in 108 of 192"):
        model.inpaint(torch.full((3, 8, 8), torch.inf), known)


def test_bytes_are_gray_levels_and_not_numbers_whose_white_is_1(model: Model, image: Tensor) -> None:
    stored = (255 * image).to(torch.uint8)
    known = torch.ones(1, 8, 8).bool().tril()
    ways = (stored, stored / 255, (stored / 255).double())
    filled = [model.inpaint(x, known, n=1, steps=2).samples for x in ways]
    deblurred = [model.restore(x, GaussianBlur(0.7), noise=0.1, n=1, steps=2).samples for x in ways]
    for found in (filled, deblurred):
        assert torch.equal(found[0], found[1]) and torch.equal(found[1], found[2])


def test_quantiles_outside_of_the_range_are_named(model: Model, image: Tensor) -> None:
    found = model.inpaint(image, torch.ones(1, 8, 8).bool().tril(), n=2, steps=1)
    for q in (1.5, -0.1, math.nan, (0.5, 2.0)):
        with pytest.raises(InputError, match=re.escape(f"q: must be in [0, 1], got {q}")):
            found.quantile(q)
    assert torch.equal(found.quantile((0, 1))[1], found.samples.amax(0))


@pytest.mark.parametrize("channels", [1, 3], ids=["all channels alike", "by channel"])
def test_statistics_of_what_was_restored_are_those_of_whole_images(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoration, "SORTED", 35)  # The columns are sorted in several pieces.
    generator = torch.Generator().manual_seed(0)
    image, restored = torch.rand(3, 6, 5, generator=generator), torch.rand(channels, 6, 5, generator=generator) < 0.4
    samples = torch.where(restored, torch.rand(7, 3, 6, 5, generator=generator), image)
    everywhere = restored.expand(3, 6, 5)
    diagnostics = Diagnostics(Guided(), 1.0, 0.0, 0.0, 0.0)
    found = Restoration(samples[:, everywhere], diagnostics, image, restored)
    whole = Restoration(samples, diagnostics)
    assert found.n == whole.n == 7 and found.shape == whole.shape == (3, 6, 5)
    assert found.part.shape == (7, int(everywhere.sum())) and torch.equal(found.select(image), image[everywhere])
    for one, other in ((found.samples, samples), (found.sample(3), samples[3]), (whole.sample(-1), samples[6])):
        assert torch.equal(one, other)
    torch.testing.assert_close(found.mean, samples.mean(0), rtol=1e-6, atol=1e-6)
    assert torch.equal(found.mean[~everywhere], image[~everywhere]), "not the rounded mean of equal values"
    assert torch.equal(found.std[~everywhere], torch.zeros(int((~everywhere).sum())))
    torch.testing.assert_close(found.std[everywhere], samples.std(0)[everywhere])
    assert torch.equal(torch.stack(found.interval(0.5)), torch.stack(interval(samples, confidence=0.5)))
    torch.testing.assert_close(found.quantile((0.1, 0.6)), samples.quantile(torch.tensor([0.1, 0.6]), 0))
    assert torch.equal(found.quantile(0.6), found.quantile((0.1, 0.6))[1])
    for name in ("mean", "std", "samples"):
        torch.testing.assert_close(getattr(whole, name), getattr(found, name), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(whole.quantile((0.1, 0.6)), found.quantile((0.1, 0.6)))


def test_where_nothing_was_restored_all_statistics_are_the_image() -> None:
    image, nothing = torch.rand(3, 6, 5), torch.tensor(False)
    found = Restoration(torch.zeros(2, 0), Diagnostics(Guided(), 1.0, 0.0, 0.0, 0.0), image, nothing)
    for x in (found.mean, found.sample(1), *found.interval(), found.quantile(0.3), *found.quantile((0.2, 0.4))):
        assert torch.equal(x, image)
    assert torch.equal(found.std, torch.zeros(3, 6, 5))


def test_quantiles_of_large_images_are_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.quantile refuses more than 2^24 values at once."""
    part = torch.arange(2**24 + 8.0).reshape(8, -1)
    found = Restoration(part, Diagnostics(Guided(), 1.0, 0.0, 0.0, 0.0))
    assert torch.equal(found.quantile(1.0), part[-1])


@dataclass(frozen=True)
class Broken:
    """A denoiser that gives a value to the examples whose first value is positive, and 0 to the others."""

    value: float
    schedule: Schedule = EDM()

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        start = x_t.flatten(1)[:, 0].reshape(-1, 1, 1, 1)
        return Prediction(torch.where(start > 0, self.value, torch.zeros_like(x_t)), None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_restorations_that_are_not_finite_are_refused(exact_images: Model, value: float, noise: float) -> None:
    """This holds for infinite ones, which decoding would clamp to black or white, and without noise, where the residual
    is 0.
    """
    image, known = torch.rand(1, 8, 8), torch.ones(1, 8, 8).bool()
    known[:, :4] = False

    def restore(value: float) -> Tensor:
        broken = replace(exact_images, denoiser=Broken(value))  # type: ignore[arg-type]
        options = {"method": "replacement", "sampler": "ddim", "noise": noise, "n": 16, "steps": 4}
        return broken.inpaint(image, known, **options).samples  # type: ignore[arg-type]

    with pytest.raises(FloatingPointError) as caught:
        restore(value)
    found = re.fullmatch(
        "method: replacement gave ([0-9]+) of 16 restorations that are not finite; "
        "take more steps, more noise or another method",
        str(caught.value),
    )
    assert found and 1 <= int(found[1]) < 16
    assert restore(1.0).isfinite().all()


def test_every_method_is_a_name_of_the_model(model: Model, mapped_model: Model, image: Tensor) -> None:
    known = torch.ones(1, 8, 8).bool().tril()
    for name in METHODS:
        chosen = mapped_model if name == "learned" else model
        found = chosen.inpaint(image, known, n=1, steps=2, noise=0.2, method=name).diagnostics
        assert found.method == METHODS[name]() and found.nfe >= 2


def test_a_student_is_refused(model: Model) -> None:
    student = replace(
        model, config=replace(model.config, distillation=replace(model.config.distillation, teacher="runs/teacher"))
    )
    with pytest.raises(InputError, match="distilled to sample in few evaluations; ask its teacher, runs/teacher"):
        student.restore(torch.zeros(3, 4, 4), Downsample(2))
