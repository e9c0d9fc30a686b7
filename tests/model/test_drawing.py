"""Samples by number: batch by batch, from given noise, and from a noised example."""

from __future__ import annotations

import gc
import math
import weakref
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion import config
from diffusion.data import DataSpec
from diffusion.denoiser import Denoiser, V
from diffusion.errors import InputError
from diffusion.model import Model
from diffusion.randomness import ExampleNoise, example_seed
from diffusion.samplers import SAMPLERS
from diffusion.schedules import EDM
from tests.oracles import GaussianOracle, OracleNetwork, correlated

CLOSE = {"rtol": 0.0, "atol": 1e-5}
ORACLE = correlated(EDM())


def exact(oracle: GaussianOracle = ORACLE) -> Model:
    """A model of Gaussian points, whose denoiser is exact."""
    network = OracleNetwork(oracle, V())
    return Model(Denoiser(network, oracle.schedule, V()), DataSpec((2,), None), config.Config())  # type: ignore[arg-type]


def noise_of(numbers: range, seed: int = 0) -> Tensor:
    """The noise with which the samples of points begin."""
    return ExampleNoise([example_seed(seed, 0, number) for number in numbers])(torch.zeros(len(numbers), 2))


def test_batches_are_the_samples_with_their_numbers(model: Model) -> None:
    whole = model.sample(7, seed=3, batch=3)
    found = list(model.samples(7, seed=3, batch=3))
    assert [numbers for numbers, _ in found] == [range(3), range(3, 6), range(6, 7)]
    assert torch.equal(torch.cat([x for _, x in found]), whole)
    later = list(model.samples(4, first=3, seed=3, batch=3))
    assert [numbers for numbers, _ in later] == [range(3, 6), range(6, 7)]
    assert torch.equal(torch.cat([x for _, x in later]), whole[3:])
    assert torch.equal(model.sample(4, first=3, seed=3, batch=3), whole[3:])


def test_labels_belong_to_the_samples_from_the_first_on(model: Model) -> None:
    mixed = torch.cat([x for _, x in model.samples(4, first=2, label=["square", "disk", 0, 1], batch=4)])
    for row, label in enumerate(("square", "disk", "disk", "square")):
        torch.testing.assert_close(mixed[row], model.sample(1, first=2 + row, label=label)[0], **CLOSE)
    assert model.in_turn(4, first=3) == [1, 0, 1, 0]


def test_the_memory_of_samples_does_not_depend_on_their_number() -> None:
    """A thousand billion samples begin at once, and each batch is dropped when the next one is drawn."""
    alive = []
    for _, x in islice(exact().samples(10**12, steps=2, batch=4), 5):
        alive.append(weakref.ref(x))
        del x
        gc.collect()
        assert sum(ref() is not None for ref in alive) <= 1


def test_mistakes_are_named_before_the_first_batch_is_asked_for(model: Model) -> None:
    for given, message in (
        ({"n": 0}, "n: must be at least 1, got 0"),
        ({"n": 2, "first": -1}, "first: must be a whole number, 0 or more, got -1"),
        ({"n": 2, "label": "circle"}, "label: must be 0 to 1"),
        ({"n": 2, "steps": 0}, "steps: must be at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            model.samples(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_given_noise_takes_the_place_of_the_first_noise_alone(sampler: str) -> None:
    """With the noise that a sample would have drawn, it is the same to the last bit, whatever noise its steps draw."""
    plain = exact().sample(5, sampler=sampler, steps=6, seed=2)
    given = exact().sample(noise=noise_of(range(5), seed=2), sampler=sampler, steps=6, seed=2, batch=5)
    assert torch.equal(given, plain)
    turned = exact().sample(noise=noise_of(range(5), seed=2).flip(0).numpy(), sampler=sampler, steps=6, seed=2)
    assert not torch.allclose(turned, plain, atol=1e-3)


def test_noise_of_another_shape_or_count_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match=r"noise: must be \(3, 3, 8, 8\), got \(2, 3, 8, 8\)"):
        model.sample(3, noise=torch.zeros(2, 3, 8, 8))
    with pytest.raises(InputError, match="n: must be given, the number of samples"):
        model.sample()


def variation(x: Tensor, log_snr: float, noise: Tensor) -> Tensor:
    """The example to which the probability flow takes x + σ ε: exact for Gaussian data."""
    sigma = math.exp(-log_snr / 2)
    values, vectors = ORACLE.eigen
    centered = (x + sigma * noise - ORACLE.mean).double() @ vectors
    return ORACLE.mean + (centered * (values / (values + sigma**2)).sqrt()) @ vectors.mT


@pytest.mark.parametrize("log_snr", [-3.0, 0.0, 2.0])
def test_variations_of_gaussian_data_are_those_of_the_closed_form(log_snr: float) -> None:
    """The mean is drawn towards the data's, the variance goes from 0 to that of the data."""
    x, n, sigma = torch.tensor([1.2, -0.7]), 4000, math.exp(-log_snr / 2)
    found = exact().vary(x, log_snr=log_snr, n=n, steps=120, sampler="heun", seed=1)
    expected = variation(x, log_snr, noise_of(range(n), seed=1))
    assert float((found - expected).abs().max()) < 0.02, "as the path ends at a noise of 0.03"
    values, vectors = ORACLE.eigen
    mean = variation(x, log_snr, torch.zeros(1, 2))[0]
    covariance = (vectors * (values * sigma**2 / (values + sigma**2))) @ vectors.mT
    assert torch.allclose(found.double().mean(0), mean, atol=4 * float(covariance.diagonal().max() / n) ** 0.5)
    assert torch.allclose(found.double().T.cov(), covariance, atol=0.1 * float(covariance.diagonal().max()))


def test_the_ends_of_variations_are_the_image_and_plain_samples(model: Model) -> None:
    image = model.sample(1, seed=9)[0]
    same = model.vary(image, 0.0, n=3)
    assert same.shape == (3, 3, 8, 8) and torch.equal(same, image.expand(3, -1, -1, -1))
    for sampler in ("ddim", "dpmpp_2m_sde"):
        drawn = model.vary(image, 1.0, n=3, seed=4, sampler=sampler, label=1, steps=5)
        assert torch.equal(drawn, model.sample(3, seed=4, sampler=sampler, label=1, steps=5))
    far = [float((model.vary(image, level, n=8, steps=20) - image).abs().mean()) for level in (0.05, 0.2, 0.5)]
    assert far == sorted(far) and far[0] < 0.5 * far[-1]


def test_a_level_is_a_share_of_the_path_of_the_sampler() -> None:
    """At half of a path of 100 log-SNRs the log-SNR is the middle of the 50th and the 51st."""
    model = exact()
    log_snr = model.denoiser.schedule.log_snr(model.config.grid(model.denoiser.schedule, 100)[:-1])
    x = torch.tensor([1.2, -0.7])
    middle = float(log_snr[49:51].mean())
    torch.testing.assert_close(model.vary(x, 0.5, n=4), model.vary(x, log_snr=middle, n=4), rtol=0, atol=1e-5)
    nearly = model.vary(x, 1 - 1e-9, n=4, sampler="ddim", steps=200)
    torch.testing.assert_close(nearly, model.sample(4, sampler="ddim", steps=200), rtol=0, atol=0.05)


def test_variations_depend_on_their_seed_and_number_alone(model: Model) -> None:
    image = (model.sample(1, seed=9)[0] * 255).byte()
    whole = model.vary(image, 0.5, n=5, seed=1)
    torch.testing.assert_close(model.vary(image, 0.5, n=5, seed=1, batch=2), whole, **CLOSE)
    torch.testing.assert_close(
        model.vary(image.permute(1, 2, 0).numpy(), 0.5, n=2, first=3, seed=1), whole[3:], **CLOSE
    )


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (
            torch.zeros(3, 8, 8),
            {"level": 1.5},
            r"level: must be in \[0, 1\]: 0 the image itself, 1 new samples, got 1.5",
        ),
        (torch.zeros(3, 8, 8), {"level": math.nan}, "level: must be in"),
        (torch.zeros(3, 8, 8), {"level": "0.5"}, "level: must be a number, got '0.5'"),
        (torch.zeros(3, 8, 8), {"log_snr": 1e9}, "log_snr: must be in .*, the range of the schedule"),
        (torch.zeros(3, 8, 8), {"n": 0, "level": 0.0}, "n: must be at least 1, got 0"),
        (torch.full((3, 8, 8), 200.0), {}, r"image: must lie in \[0, 1\], or be uint8, got 200; divide values"),
        (torch.zeros(3, 9, 8), {}, r"image: must be \(3, 8, 8\) as the data, got \(3, 9, 8\); resize it first"),
        (np.zeros((8, 8), np.uint8), {}, "image: must be of 3 channels"),
    ],
    ids=range(8),
)
def test_what_cannot_be_varied_is_named(model: Model, image: Tensor, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.vary(image, **options)


def test_a_student_varies_nothing(model: Model) -> None:
    student = replace(model, config=replace(model.config, distillation=replace(model.config.distillation, teacher="t")))
    for call in (lambda: student.vary(torch.zeros(3, 8, 8)), lambda: student.encode(torch.zeros(1, 3, 8, 8))):
        with pytest.raises(
            InputError, match="this model was distilled to sample in few evaluations; ask its teacher, t"
        ):
            call()


@pytest.mark.parametrize(
    ("through", "options", "message"),
    [
        (torch.ones(8, 8, dtype=torch.bool), {"size": 16}, "through: must be left out with a size, got 16"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.bool), {}, "through: must be masks that show something, got 2 that show"),
        (torch.ones(3, 3, 8, 8, dtype=torch.bool), {}, "through: must be of the shape"),
    ],
)
def test_holes_through_which_nothing_can_be_drawn_are_named(
    mapped_model: Model, through: Tensor, options: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        mapped_model.sample(2, through=through, **options)


def test_a_network_without_maps_draws_nothing_through_holes(model: Model) -> None:
    with pytest.raises(InputError, match="through: must be left out for a model that has never met"):
        model.sample(2, through=torch.ones(8, 8, dtype=torch.bool))


def test_through_masks_that_show_everything_samples_are_the_plain_ones(mapped_model: Model) -> None:
    whole = mapped_model.sample(3, steps=3, seed=2)
    torch.testing.assert_close(mapped_model.sample(3, steps=3, seed=2, through=np.ones((8, 8), bool)), whole, **CLOSE)
    masks = torch.ones(3, 1, 8, 8, dtype=torch.bool)
    masks[1, :, :4] = False
    found = mapped_model.sample(3, steps=3, seed=2, through=masks.expand(3, 3, 8, 8), batch=2)
    torch.testing.assert_close(found[[0, 2]], whole[[0, 2]], **CLOSE)
    assert (found[1] - whole[1]).abs().max() > 0.01
