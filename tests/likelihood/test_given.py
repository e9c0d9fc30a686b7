"""The likelihood of what is hidden given what is known, and of what has been seen, against exact oracles.

Expectations over data and noise are taken by quadrature. The bound of Gaussian data is quadratic, for which sigma
points are exact.
"""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.errors import InputError
from diffusion.grids import UniformLogSNR
from diffusion.levels import UNSEEN
from diffusion.likelihood.bound import Bound, Quantization, bound
from diffusion.likelihood.given import levels_of
from diffusion.samplers import RandN
from diffusion.schedules import EDM, Cosine, Schedule, VPLinear
from tests.oracles import GaussianOracle, MixtureOracle, correlated, hermite, sigma_points

SHAPE = (1, 2, 3)
KNOWN = torch.tensor([[True, False, False], [False, True, False]]).reshape(1, *SHAPE)
SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(), EDM(), VPLinear()], ids=["cosine", "edm", "linear"])
# Its ends are so far away that nothing is left of them in six digits.
WIDE = EDM(1e-4, 1e4)


def given(noise: Tensor) -> RandN:
    return lambda like: noise.reshape(like.shape)


def entropy(covariance: Tensor) -> float:
    return float(torch.logdet(2 * math.pi * math.e * covariance)) / 2


def parts(oracle: GaussianOracle, known: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the covariance of what is known, and that of what is hidden given it."""
    k, covariance = known.flatten(), oracle.covariance
    inner, cross = covariance[k][:, k], covariance[~k][:, k]
    return inner, covariance[~k][:, ~k] - cross @ torch.linalg.solve(inner, cross.mT)


def points(oracle: GaussianOracle) -> tuple[Tensor, RandN]:
    """Returns the sigma points of data and noise: (24, 1, 2, 3), and the source of their noise."""
    both, (values, vectors) = sigma_points(12), oracle.eigen
    return (oracle.mean.flatten() + (both[:, :6] * values.sqrt()) @ vectors.mT).reshape(-1, *SHAPE), given(both[:, 6:])


@SCHEDULES
def test_the_conditional_bound_is_above_the_entropy_by_one_over_the_steps(schedule: Schedule) -> None:
    oracle = correlated(schedule, SHAPE)
    x, randn = points(oracle)
    _, hidden = parts(oracle, KNOWN)
    gaps = []
    for steps in (128, 512):
        found = bound(oracle, x, UniformLogSNR()(schedule, steps), randn=randn, known=KNOWN)
        gaps.append(float(found.total.mean()) - entropy(hidden))
    assert 3.9 < gaps[0] / gaps[1] < 4.3
    assert 0 < gaps[1] < 0.6, "nats for four numbers at 512 steps: 0.57 measured for cosine, 0.44 for edm"


def continuous(oracle: GaussianOracle | MixtureOracle, x: Tensor, randn: RandN, **masks: Tensor) -> Bound:
    ends = UniformLogSNR()(oracle.schedule, 1)
    return bound(oracle, x, ends, continuous=True, draws=200, randn=randn, **masks)  # type: ignore[arg-type]


def test_the_chain_rule_holds_to_a_millionth_in_continuous_time() -> None:
    """Measured: the parts are 6e-8 and 1.7e-7 nats from their exact entropies, and their sum 2e-9 from the whole."""
    oracle = correlated(WIDE, SHAPE)
    x, randn = points(oracle)
    whole, known = float(continuous(oracle, x, randn).total.mean()), continuous(oracle, x, randn, seen=KNOWN)
    hidden = continuous(oracle, x, randn, known=KNOWN)
    exact = parts(oracle, KNOWN)
    assert float(known.total.mean()) == pytest.approx(entropy(exact[0]), abs=1e-6)
    assert float(hidden.total.mean()) == pytest.approx(entropy(exact[1]), abs=1e-6)
    assert float((known.total + hidden.total).mean()) == pytest.approx(whole, abs=1e-6)
    assert known.counted is not None and known.counted.tolist() == [2] * 24
    assert hidden.counted is not None and hidden.counted.tolist() == [4] * 24


def test_every_example_has_its_own_conditional_density() -> None:
    """On average over noise, by sigma points, the bound of one example is its -log p(hidden | known)."""
    oracle, k = correlated(WIDE, SHAPE), KNOWN.flatten()
    examples = oracle.sample(3, torch.Generator().manual_seed(0))
    noise = sigma_points(6)
    for x in examples:
        rows = x.expand(len(noise), *SHAPE)
        found = float(continuous(oracle, rows, given(noise), known=KNOWN).total.mean())
        exact = oracle.posterior(torch.eye(6, dtype=torch.float64)[k], x.flatten()[k], 0.0)
        hidden = torch.distributions.MultivariateNormal(exact.mean.flatten()[~k], exact.covariance[~k][:, ~k])
        assert found == pytest.approx(-float(hidden.log_prob(x.flatten()[~k])), abs=2e-5)


@pytest.mark.parametrize("variance_interp", [0.0, 0.7])
@pytest.mark.parametrize("learned", [False, True])
def test_it_is_the_bound_of_the_conditional_distribution(variance_interp: float, learned: bool) -> None:
    """The same noise gives the same number as the oracle of the hidden coordinates alone, on a grid of any steps."""
    schedule, k = Cosine(), KNOWN.flatten()
    oracle, times = correlated(schedule, SHAPE), UniformLogSNR()(Cosine(), 7)
    x = oracle.sample(1, torch.Generator().manual_seed(0))
    noise = torch.randn(1, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise[:, k] = 0
    alpha, sigma = (float(v) for v in schedule(torch.zeros((), dtype=torch.float64)))
    posterior = oracle.posterior(torch.eye(6, dtype=torch.float64)[k], x.flatten()[k], sigma / alpha)
    alone = GaussianOracle(schedule, posterior.mean.flatten()[~k], posterior.covariance[~k][:, ~k])

    class Learned:
        def __init__(self, oracle: GaussianOracle) -> None:
            self.oracle, self.schedule = oracle, oracle.schedule

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            return Prediction(self.oracle(x_t, t).mean, torch.full_like(x_t, variance_interp))

    def measured(oracle: GaussianOracle, x: Tensor, noise: Tensor, known: Tensor | None) -> Bound:
        denoiser = Learned(oracle) if learned else oracle
        return bound(
            denoiser, x, times, randn=given(noise), known=known, variance_interp=0.0 if learned else variance_interp
        )

    found = measured(oracle, x, noise, KNOWN)
    expected = measured(alone, x.flatten(1)[:, ~k], noise[:, ~k], None)
    for term in ("prior", "diffusion", "decoder"):
        assert float(getattr(found, term)) == pytest.approx(float(getattr(expected, term)), rel=1e-9), term


def plane(schedule: Schedule) -> tuple[MixtureOracle, Tensor, Tensor, RandN]:
    """Returns two modes in the plane, and a quadrature over them and the noise: points, weights, the noise."""
    means = torch.tensor([[-0.9, -0.6], [0.5, 0.8]], dtype=torch.float64)
    oracle = MixtureOracle(schedule, means, 0.09, torch.tensor([0.3, 0.7], dtype=torch.float64))
    z, w = hermite(8)
    square, weights = torch.cartesian_prod(z, z), torch.outer(w, w).flatten()
    x = torch.cat([mean + 0.3 * square for mean in means])
    weight = torch.cat([share * weights for share in oracle.weights])
    # Noise of the first coordinate, which is known, or of the second, which is hidden, but not of both.
    return (
        oracle,
        x.repeat_interleave(8, 0),
        torch.outer(weight, w).flatten(),
        given(z.repeat(len(x))[:, None].expand(-1, 2)),
    )


def line(oracle: MixtureOracle) -> MixtureOracle:
    """The distribution of the first coordinate alone."""
    return MixtureOracle(oracle.schedule, oracle.means[:, :1], oracle.variance, oracle.weights)


FIRST = torch.tensor([[True, False]])


def test_the_conditional_bound_of_a_mixture_is_tight_to_first_order() -> None:
    oracle, x, weight, randn = plane(Cosine())
    exact = float((weight * (oracle.nll(x) - line(oracle).nll(x[:, :1]))).sum())
    gaps = []
    for steps in (128, 512):
        found = bound(oracle, x, UniformLogSNR()(Cosine(), steps), randn=randn, known=FIRST)
        gaps.append(float((weight * found.total).sum()) - exact)
    assert 3.9 < gaps[0] / gaps[1] < 4.3
    assert 0 < gaps[1] < 0.14, "nats at 512 steps: 0.132 measured"


def test_the_chain_rule_of_a_mixture() -> None:
    oracle, x, weight, randn = plane(WIDE)
    known, hidden = (
        float((weight * continuous(oracle, x, randn, **mask).total).sum())
        for mask in ({"seen": FIRST}, {"known": FIRST})
    )
    marginal, whole = (float((weight * part).sum()) for part in (line(oracle).nll(x[:, :1]), oracle.nll(x)))
    assert known == pytest.approx(marginal, abs=4e-4), "2.2e-4 measured, of the quadrature"
    assert hidden == pytest.approx(whole - marginal, abs=1e-4), "3.2e-5 measured"


def test_gray_levels_have_their_conditional_probability() -> None:
    """Two pixels take 3 pairs of 256 values; given the first, the second is certain or one of two."""
    schedule, levels = EDM(), Quantization(256, -2.1, 2.6)
    pairs = torch.tensor([[100, 40], [100, 180], [101, 180]])
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    atoms = (levels.low + levels.spacing * pairs).double()
    oracle = MixtureOracle(schedule, atoms, 0.0, weights)
    z, w = hermite(48)
    x, noise = atoms.repeat_interleave(48, 0), torch.stack([torch.zeros_like(z), z], 1).repeat(3, 1)
    gaps = []
    for steps in (100, 400):
        found = bound(oracle, x, UniformLogSNR()(schedule, steps), quantization=levels, randn=given(noise), known=FIRST)
        each = (found.total.reshape(3, 48) * w).sum(1)
        gaps.append(each + torch.tensor([0.4, 0.6, 1.0], dtype=torch.float64).log())
    assert (gaps[1][:2] > 0).all() and gaps[1][2] < 1e-4, "the last is certain, but for the prior"
    assert (gaps[1] - (gaps[0] - gaps[1]) / 3).abs().max() < 3e-3, "nothing is left as the steps grow"


@pytest.mark.parametrize("levels", [None, Quantization(16, -2.0, 2.0)], ids=["continuous", "quantized"])
def test_what_nobody_has_seen_has_no_influence(levels: Quantization | None) -> None:
    oracle, times = correlated(Cosine(), SHAPE), UniformLogSNR()(Cosine(), 9)
    generator = torch.Generator().manual_seed(0)
    x = (-2 + 4 / 15 * torch.randint(16, (5, *SHAPE), generator=generator)).double()
    seen = torch.rand(5, *SHAPE, generator=generator) < 0.6
    seen[:, 0, 1, 2] = True
    known = torch.tensor([[True, True, False], [False, False, False]]).reshape(1, *SHAPE)
    noise = torch.randn(5, *SHAPE, generator=generator, dtype=torch.float64)

    def total(x: Tensor, **masks: Tensor) -> Tensor:
        return bound(oracle, x, times, quantization=levels, randn=given(noise), **masks).total  # type: ignore[arg-type]

    for masks in ({"seen": seen}, {"seen": seen, "known": known}):
        plain = total(x, **masks)
        for other in (math.nan, 1e30, -0.123):
            assert torch.equal(total(torch.where(seen, x, other), **masks), plain)
    both = total(x, seen=seen, known=known)
    # What was not seen is not known, whatever is said of it.
    assert torch.equal(total(x, seen=seen, known=known & seen), both)
    moved = total(torch.where(known & seen, x + 4 / 15 * (x < 0) - 4 / 15 * (x > 0), x), seen=seen, known=known)
    assert torch.equal(moved != both, (known & seen).flatten(1).any(1)), "what is known has an influence"


def test_without_masks_the_denoiser_is_asked_for_times_of_trajectories() -> None:
    oracle, times = correlated(Cosine(), SHAPE), UniformLogSNR()(Cosine(), 3)
    asked: list[Tensor] = []

    class Spy:
        schedule = oracle.schedule

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            asked.append(t)
            return oracle(x_t, t)

    x = oracle.sample(2, torch.Generator().manual_seed(0))
    plain = bound(Spy(), x, times, randn=torch.ones_like)
    assert [t.shape for t in asked] == [(2,)] * 3 and plain.counted is None
    # Nothing known, and all seen, is the same in other words.
    everything = torch.ones(1, *SHAPE, dtype=torch.bool)
    for masks in ({"known": ~everything}, {"seen": everything}):
        found = bound(Spy(), x, times, randn=torch.ones_like, **masks)  # type: ignore[arg-type]
        assert torch.allclose(found.total, plain.total, rtol=1e-10)
    assert [t.shape for t in asked[3:]] == [(2, 1, 2, 3)] * 6
    asked.clear()
    bound(
        Spy(),
        x,
        times,
        randn=torch.ones_like,
        known=KNOWN,
        seen=everything.clone().index_fill(3, torch.tensor(2), False),
    )
    assert bool((asked[0][:, KNOWN[0]] == 0).all()) and bool((asked[0][..., 2] == UNSEEN).all())


def test_levels_of_points_and_batches() -> None:
    x = torch.zeros(2, 3)
    known = torch.tensor([[True, False, False], [False, False, True]])
    seen = torch.tensor([[True, True, False]])
    assert levels_of(x, None, None) is None
    assert levels_of(x, known, seen).tolist() == [[0, 1, UNSEEN], [1, 1, UNSEEN]]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"known": torch.ones(1, 1, 2, 3)}, "known: must be of bool, got float32"),
        ({"seen": torch.ones(1, 1, 2, 3).byte()}, "seen: must be of bool, got uint8"),
        (
            {"known": torch.zeros(1, 1, 3, 2).bool()},
            "known: must be of the shape (2 or 1, 1, 2, 3), with a value for every pixel, got (1, 1, 3, 2)",
        ),
        (
            {"seen": torch.ones(1, 3, 2, 3).bool()},
            "seen: must be of the shape (2 or 1, 1, 2, 3), with a value for every pixel, got (1, 3, 2, 3)",
        ),
        (
            {"known": torch.ones(1, 1, 2, 3).bool()},
            "known: must leave something of each example to measure, got nothing of the examples",
        ),
        (
            {"seen": torch.tensor([True, False]).reshape(2, 1, 1, 1).expand(2, 1, 2, 3)},
            "seen: must leave something of each example to measure, got nothing of example 1",
        ),
        (
            {"known": KNOWN, "seen": KNOWN},
            "known: must leave something of each example to measure, got nothing of the examples",
        ),
    ],
)
def test_masks_that_cannot_be_used_are_named(masks: dict[str, Tensor], message: str) -> None:
    x = torch.zeros(2, 3, 2, 3, dtype=torch.float64)
    with pytest.raises(InputError, match=re.escape(message)):
        bound(correlated(Cosine(), (3, 2, 3)), x, torch.tensor([1.0, 0.0]), **masks)  # type: ignore[arg-type]
