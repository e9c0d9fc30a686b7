"""Completions of examples with holes: what was seen stays, the rest is drawn from the exact posterior of oracles."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion import config, grids
from diffusion.data import Dataset, DataSpec
from diffusion.denoiser import AnyDenoiser, Prediction
from diffusion.errors import InputError
from diffusion.model import Model
from diffusion.model.completing import Completing, known_of, with_holes
from diffusion.schedules import EDM, Schedule
from tests.oracles import GaussianOracle, short_correlations

CPU = torch.device("cpu")
IMAGES = DataSpec((1, 6, 6), 256, mean=120.0, std=25.0)


def completing(oracle: AnyDenoiser, spec: DataSpec, steps: int = 24, seed: int = 0) -> Completing:
    return Completing(oracle, grids.UniformLogSNR()(oracle.schedule, steps), spec, CPU, seed, 64)


def damaged(count: int = 12, margin: int = 0) -> Dataset:
    """Images of random values, of which the first is wholly seen."""
    rng, shape = np.random.default_rng(0), (count, 1, 6 + 2 * margin, 6 + 2 * margin)
    seen = (rng.random(shape) < 0.6).astype(np.uint8)
    seen[0] = 1
    values = rng.integers(60, 180, shape, dtype=np.uint8)
    return Dataset(values, IMAGES, None, tuple(map(str, range(count))), margin, seen=seen)


def textbook(x: Tensor, seen: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The update of EM for a Gaussian (Dempster, Laird and Rubin 1977, section 4.1.3): its mean and covariance, and
    the mean variance of each coordinate given what was seen.
    """
    first, second, within = torch.zeros(2).double(), torch.zeros(2, 2).double(), torch.zeros(2).double()
    for row, known in zip(x, seen, strict=True):
        gain = covariance[:, known] @ torch.linalg.inv(covariance[known][:, known])
        expected = mean + gain @ (row - mean)[known]
        left = covariance - gain @ covariance[known]
        first, second = first + expected, second + expected[:, None] * expected + left
        within = within + left.diagonal()
    first, second = first / len(x), second / len(x)
    return first, second - first[:, None] * first, within / len(x)


def test_moments_of_completions_are_an_update_of_em() -> None:
    """Points of a Gaussian, whose coordinates are missing at random, completed by the oracle of another Gaussian."""
    count, draws, generator = 1000, 3, torch.Generator().manual_seed(0)
    truth = GaussianOracle(EDM(), torch.tensor([0.5, -0.3]).double(), torch.tensor([[1.0, 0.6], [0.6, 0.8]]).double())
    x = truth.sample(count, generator)
    seen = torch.rand(count, 2, generator=generator) < 0.6
    oracle = GaussianOracle(EDM(), torch.zeros(2).double(), torch.tensor([[1.5, -0.4], [-0.4, 1.2]]).double())
    values = torch.where(seen, x, 99.0).float().numpy()
    dataset = Dataset(values, DataSpec((2,), None), None, ("",) * count, seen=seen.numpy().astype(np.uint8))
    complete = completing(oracle, dataset.spec, 32)
    found = torch.cat([complete(dataset, range(i * count, (i + 1) * count)) for i in range(draws)]).double()
    mean, covariance, within = textbook(x, seen, oracle.mean, oracle.covariance)
    error = (found.mean(0) - mean) / (within / count / draws).sqrt()
    assert error.abs().max() < 4
    # A product of two normal values of variance at most 1.5 varies by less than 2 · 1.5².
    off = (torch.cov(found.mT, correction=0) - covariance).abs().max()
    assert off < 4 * (2 * 1.5**2 / count / draws) ** 0.5
    assert (covariance - oracle.covariance).abs().max() > 5 * off, "and the update goes somewhere"


def test_what_was_seen_stays_and_the_rest_is_drawn() -> None:
    dataset, complete = damaged(), completing(short_correlations(EDM(), 6, 6, 1.5), IMAGES)
    one, other = complete(dataset, range(12)), complete(dataset, range(12, 24))
    known, values = torch.from_numpy(np.asarray(dataset.seen)) != 0, torch.from_numpy(np.asarray(dataset.values))
    assert one.dtype == torch.uint8 and torch.equal(one[known], values[known]) and torch.equal(one[0], values[0])
    assert (one[~known] != other[~known]).float().mean() > 0.9
    again = replace(dataset, values=np.where(known.numpy(), dataset.values, 0))
    assert torch.equal(complete(again, range(12)), one), "what is under a hole has no part in it"


def test_a_draw_is_the_same_in_any_batch_and_another_with_another_seed() -> None:
    oracle = short_correlations(EDM(), 6, 6, 1.5)
    dataset, complete = damaged(), completing(oracle, IMAGES)
    whole = complete(dataset, range(12)).int()
    parts = torch.cat([complete(dataset.subset(some), some) for some in map(range, (0, 4, 8), (4, 8, 12))]).int()
    assert (whole - parts).abs().max() <= 1, "up to the rounding of the network"
    assert not torch.equal(completing(oracle, IMAGES, seed=1)(dataset, range(12)).int(), whole)


@dataclass
class Recording:
    """A denoiser that remembers the labels it was given."""

    schedule: Schedule = field(default_factory=EDM)
    labels: list[Tensor] = field(default_factory=list)

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        assert label is not None
        self.labels.append(label)
        return Prediction(torch.zeros_like(x_t))


def test_the_network_is_told_the_label_of_each_example() -> None:
    labels, denoiser = np.arange(12) % 3, Recording()
    spec = replace(IMAGES, classes=("a", "b", "c"))
    completing(denoiser, spec, 3)(replace(damaged(), labels=labels, spec=spec), range(12))
    assert len(denoiser.labels) == 3 and all(each.tolist() == labels[1:].tolist() for each in denoiser.labels)


def test_examples_without_holes_are_returned_without_the_network() -> None:
    dataset, denoiser = damaged(), Recording()
    whole = replace(dataset, seen=np.ones_like(np.asarray(dataset.seen)))
    assert torch.equal(completing(denoiser, IMAGES)(whole, range(12)), torch.from_numpy(np.asarray(dataset.values)))
    assert with_holes(whole).tolist() == with_holes(replace(dataset, seen=None)).tolist() == []
    assert known_of(replace(dataset, seen=None), range(3)).all()
    assert with_holes(dataset).tolist() == list(range(1, 12))


def test_holes_in_the_margin_are_none() -> None:
    dataset = damaged(margin=2)
    seen = np.zeros_like(np.asarray(dataset.seen))
    seen[..., 2:-2, 2:-2] = 1
    assert with_holes(replace(dataset, seen=seen)).tolist() == []
    found = completing(short_correlations(EDM(), 6, 6, 1.5), IMAGES, 4)(dataset, range(12))
    assert found.shape == (12, 1, 6, 6)


def test_completions_that_are_not_finite_are_an_error() -> None:
    class Broken(Recording):
        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            return Prediction(torch.full_like(x_t, torch.nan))

    with pytest.raises(FloatingPointError, match=r"complete: 11 of 11 completions are not finite"):
        completing(Broken(), IMAGES, 3)(damaged(), range(12))


def test_models_that_have_not_learned_it_are_refused(exact_images: Model) -> None:
    with pytest.raises(InputError, match=r"observed.share: must be above 0 in the configuration of a run"):
        exact_images.completing(4)
    learned = replace(exact_images, config=config.override(exact_images.config, ["observed.share=0.5"]))
    made = learned.completing(4, steps=5, seed=3)
    assert len(made.times) == 6 and made.seed == 3 and made.batch >= 1
    with pytest.raises(InputError, match="steps: must be a whole number, 1 or more, got 0"):
        learned.completing(4, steps=0)
    student = replace(exact_images, config=config.override(exact_images.config, ["distillation.teacher=runs/a"]))
    with pytest.raises(InputError, match="completion: this model was distilled"):
        student.completing(4)
