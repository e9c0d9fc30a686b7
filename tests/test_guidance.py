"""Guidance is the stated combination of two estimates, within its interval, and leaves unlabeled examples alone."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.guidance import ClassifierFree, Labeled, LastEstimate
from diffusion.schedules import EDM, Cosine
from tests.oracles import MixtureOracle

SCHEDULE = Cosine()
MEANS = torch.tensor([[-1.0, 0.5], [1.0, 1.0]], dtype=torch.float64)
ORACLE = MixtureOracle(SCHEDULE, MEANS, 0.3, torch.tensor([0.4, 0.6], dtype=torch.float64))
LABEL = torch.tensor([0, 1, -1, 0, 1, -1])
X_T = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TIMES = [torch.tensor(0.6, dtype=torch.float64), torch.full((6,), 0.6, dtype=torch.float64)]
EITHER = pytest.mark.parametrize("t", TIMES, ids=["one time", "a time each"])


def component(k: int, t: Tensor) -> Tensor:
    """Returns E[x|x_t] of one class from its formula."""
    alpha, sigma = SCHEDULE(t.flatten()[0])
    return MEANS[k] + alpha * 0.3 / (alpha**2 * 0.3 + sigma**2) * (X_T - alpha * MEANS[k])


def unconditional(t: Tensor) -> Tensor:
    """Returns E[x|x_t] of both classes, weighted by the posterior of the class by Bayes' rule."""
    alpha, sigma = SCHEDULE(t.flatten()[0])
    density = [
        w * (-(X_T - alpha * m).square().sum(1) / (2 * (alpha**2 * 0.3 + sigma**2))).exp()
        for w, m in zip((0.4, 0.6), MEANS, strict=True)
    ]
    share = (density[0] / (density[0] + density[1]))[:, None]
    return share * component(0, t) + (1 - share) * component(1, t)


@EITHER
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.5, 7.0])
def test_the_guided_mean_is_the_closed_form(t: Tensor, scale: float) -> None:
    conditional = torch.where((LABEL == 0)[:, None], component(0, t), component(1, t))
    expected = torch.where((LABEL < 0)[:, None], unconditional(t), (1 - scale) * unconditional(t) + scale * conditional)
    assert torch.allclose(ClassifierFree(ORACLE, scale)(X_T, t, LABEL).mean, expected, rtol=1e-12, atol=1e-12)


@EITHER
def test_scale_one_is_conditional_and_zero_is_unconditional(t: Tensor) -> None:
    assert torch.equal(ClassifierFree(ORACLE, 1.0)(X_T, t, LABEL).mean, ORACLE(X_T, t, LABEL).mean)
    assert torch.allclose(ClassifierFree(ORACLE, 0.0)(X_T, t, LABEL).mean, ORACLE(X_T, t).mean, rtol=1e-14)
    assert torch.equal(ClassifierFree(ORACLE, 4.0)(X_T, t).mean, ORACLE(X_T, t).mean), "no label, no guidance"


@EITHER
def test_it_is_linear_in_the_scale(t: Tensor) -> None:
    means = [ClassifierFree(ORACLE, scale)(X_T, t, LABEL).mean for scale in (0.0, 2.0, 4.0)]
    assert torch.allclose(means[2] - means[1], means[1] - means[0], rtol=1e-12, atol=1e-12)
    assert (means[1] - means[0])[LABEL >= 0].abs().min() > 1e-3


@pytest.mark.parametrize(("log_snr", "inside"), [(-3.1, False), (-2.9, True), (0.0, True), (0.9, True), (1.1, False)])
def test_the_interval_turns_it_on_and_off(log_snr: float, inside: bool) -> None:
    t = SCHEDULE.time(torch.tensor(log_snr, dtype=torch.float64))
    guided = ClassifierFree(ORACLE, 3.0, interval=(-3.0, 1.0))(X_T, t, LABEL).mean
    reference = ClassifierFree(ORACLE, 3.0) if inside else ORACLE
    assert torch.equal(guided, reference(X_T, t, LABEL).mean)
    assert torch.equal(guided, ORACLE(X_T, t, LABEL).mean) == (not inside)


def test_the_learned_variance_is_the_conditional_one() -> None:
    class Learned:
        schedule = EDM()

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            assert label is not None
            return Prediction(x_t, (label[:, None] + 2) / 4 * torch.ones_like(x_t))

    variance_interp = ClassifierFree(Learned(), 2.0)(X_T, TIMES[0], LABEL).variance_interp
    assert variance_interp is not None and torch.equal(variance_interp[:, 0], (LABEL + 2) / 4)


def test_a_fixed_label_gives_way_to_one_that_is_given() -> None:
    fixed, t = Labeled(ORACLE, LABEL), TIMES[0]
    assert fixed.schedule is SCHEDULE and ClassifierFree(ORACLE, 2.0).schedule is SCHEDULE
    assert torch.equal(fixed(X_T, t).mean, ORACLE(X_T, t, LABEL).mean)
    other = torch.zeros_like(LABEL)
    assert torch.equal(fixed(X_T, t, other).mean, ORACLE(X_T, t, other).mean)


def test_one_fixed_label_is_that_of_any_number_of_examples() -> None:
    fixed, t = Labeled(ORACLE, torch.tensor([1])), TIMES[0]
    for guided in (fixed, Labeled(ClassifierFree(ORACLE, 1.0), torch.tensor([1]))):
        for count in (1, 2, 6):
            assert torch.equal(guided(X_T[:count], t).mean, component(1, t)[:count])


def test_the_last_estimate_is_kept_and_returned_as_it_is() -> None:
    last = LastEstimate(ORACLE)
    assert last.schedule is SCHEDULE and last.mean.shape == (0,)
    for label in (LABEL, LABEL.flip(0), None):
        prediction = last(X_T, TIMES[1], label)
        assert torch.equal(prediction.mean, ORACLE(X_T, TIMES[1], label).mean)
        assert last.mean is prediction.mean and prediction.variance_interp is None


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=re.escape("scale: must be 0 or more, got -1.0")):
        ClassifierFree(ORACLE, -1.0)
    with pytest.raises(
        ValueError, match=re.escape("interval: must be an increasing pair of log-SNRs, got (2.0, -inf)")
    ):
        ClassifierFree(ORACLE, 2.0, interval=(2.0, -math.inf))
    with pytest.raises(ValueError, match=re.escape("interval: must be an increasing pair of log-SNRs, got (2.0, 2.0)")):
        ClassifierFree(ORACLE, 2.0, interval=(2.0, 2.0))


def test_every_example_is_guided_where_its_own_log_snr_is_within_the_interval() -> None:
    t = SCHEDULE.time(torch.tensor([-5.0, 0.0, 0.0, 5.0, 0.5, 0.0], dtype=torch.float64))
    guided = ClassifierFree(ORACLE, 3.0, (-1.0, 1.0))
    together = guided(X_T, t, LABEL).mean
    for i in range(6):
        one = guided(X_T[i : i + 1], t[i], LABEL[i : i + 1]).mean[0]
        assert torch.allclose(together[i], one, rtol=1e-12)
    assert torch.equal(together[[0, 3]], ORACLE(X_T, t, LABEL).mean[[0, 3]])
