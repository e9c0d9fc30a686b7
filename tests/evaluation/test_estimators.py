"""The columns that each estimator measures of a batch; `test_likelihood.py` compares totals with known likelihoods."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from diffusion.config import Config
from diffusion.data import Dataset, DataSpec
from diffusion.denoiser import Denoiser, V
from diffusion.errors import InputError
from diffusion.evaluation import BoundEstimator, FlowEstimator, ImportanceEstimator, evaluate
from diffusion.evaluation.estimators import BINS, CHECKED, EXACT, by_log_snr
from diffusion.evaluation.likelihood import Estimator, Measurements
from diffusion.evaluation.masks import Masks
from diffusion.likelihood.flow import Hutchinson
from diffusion.likelihood.importance import PathWeights
from diffusion.likelihood.ode import Adaptive, Fixed
from diffusion.model import Model
from diffusion.model.likelihood import Likelihood
from diffusion.schedules import EDM
from tests.oracles import GaussianOracle, OracleNetwork

SCHEDULE = EDM(0.1, 10.0)
PLANE = GaussianOracle(
    SCHEDULE, torch.zeros(2, dtype=torch.float64), torch.tensor([[1.3, 0.4], [0.4, 0.7]], dtype=torch.float64)
)
POINTS = DataSpec((2,), None)
IMAGES = DataSpec((1, 5, 5), 256, (), 127.5, 40.0)
WHITE = GaussianOracle(SCHEDULE, torch.zeros(1, 5, 5, dtype=torch.float64), torch.eye(25, dtype=torch.float64))
QUICK = [
    BoundEstimator(draws=4),
    FlowEstimator(probes=2, solver_steps=4),
    ImportanceEstimator(steps=4, paths=3),
]
EACH = pytest.mark.parametrize("estimator", QUICK, ids=lambda e: e.name)


def model(oracle: GaussianOracle, spec: DataSpec) -> Model:
    return Model(Denoiser(OracleNetwork(oracle, V()), oracle.schedule, V()), spec, Config())  # type: ignore[arg-type]


def likelihood(spec: DataSpec) -> Likelihood:
    return model(PLANE if spec == POINTS else WHITE, spec).likelihood()


def examples(spec: DataSpec, n: int) -> Tensor:
    oracle = PLANE if spec == POINTS else WHITE
    x = oracle.sample(n, torch.Generator().manual_seed(0))
    return x.float() if spec == POINTS else (127.5 + 40 * x).round().clamp(0, 255).to(torch.uint8)


@EACH
@pytest.mark.parametrize("spec", [POINTS, IMAGES], ids=["points", "images"])
def test_a_process_without_examples_has_the_columns_of_one_with_examples(estimator: Estimator, spec: DataSpec) -> None:
    given = likelihood(spec)
    measured = estimator.measure(given, examples(spec, 3), range(3), None)
    empty = estimator.empty(given)
    assert measured.terms.shape == (3, len(estimator.terms))
    assert measured.variances.shape == (3, len(estimator.sources(given)), len(estimator.terms))
    for field in fields(Measurements):
        one, none = getattr(measured, field.name), getattr(empty, field.name)
        assert none.shape == (0, *one.shape[1:]) and none.dtype == one.dtype == torch.float64, field.name


@EACH
def test_the_kind_says_whether_the_total_is_a_bound(estimator: Estimator) -> None:
    kinds = {
        "bound": ("upper bound on -log p", "upper bound on -log p"),
        "ode": ("estimate of -log p", "upper bound on -log P by dequantization (uniform)"),
        "importance": ("upper bound on -log p by 3 paths", "upper bound on -log p by 3 paths"),
    }
    assert (estimator.kind(likelihood(POINTS)), estimator.kind(likelihood(IMAGES))) == kinds[estimator.name]


@EACH
def test_the_sources_are_those_that_are_used(estimator: Estimator) -> None:
    sources = {"bound": (("noise",),) * 2, "ode": ((), ("dequantization", "probes")), "importance": (("paths",),) * 2}
    assert (estimator.sources(likelihood(POINTS)), estimator.sources(likelihood(IMAGES))) == sources[estimator.name]


@EACH
def test_another_seed_gives_other_numbers_and_the_same_seed_the_same(estimator: Estimator) -> None:
    given, x = likelihood(IMAGES), examples(IMAGES, 3)
    first, again, other = (
        replace(estimator, seed=seed).measure(given, x, range(3), None).terms[:, -1]  # type: ignore[type-var]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and bool((first != other).all())


def test_the_terms_of_the_bound_add_up_and_their_variance_is_that_of_the_repeats() -> None:
    given, x = likelihood(IMAGES), examples(IMAGES, 4)
    measured = BoundEstimator(draws=6, repeats=3).measure(given, x, range(4), None)
    assert torch.allclose(measured.terms[:, :3].sum(1), measured.terms[:, 3], rtol=1e-12)
    totals = torch.stack([given.bound(x, draws=2, repeat=repeat).total for repeat in range(3)])
    assert torch.allclose(measured.terms[:, 3], totals.mean(0), rtol=1e-12)
    assert torch.allclose(measured.variances[:, 0, 3], totals.var(0) / 3, rtol=1e-9)
    assert torch.allclose(measured.by_log_snr.sum(1), measured.terms[:, 1], rtol=1e-12)


def test_the_diffusion_term_is_divided_among_bins_of_log_snr() -> None:
    bound = likelihood(POINTS).bound(examples(POINTS, 2), draws=8, seed=1)
    rows, kl = by_log_snr(bound, SCHEDULE), bound.kl_samples
    assert rows.shape == (2, BINS) and kl is not None
    edges = torch.linspace(SCHEDULE.log_snr_min, SCHEDULE.log_snr_max, BINS + 1, dtype=torch.float64)
    for i in range(2):
        for j in range(BINS):
            inside = (edges[j] <= kl.log_snr[i]) & (kl.log_snr[i] < edges[j + 1])
            assert rows[i, j].item() == pytest.approx(kl.nats[i][inside].sum().item() / 8)


def test_the_solver_is_adaptive_unless_its_steps_are_given() -> None:
    assert FlowEstimator(tolerance=1e-3).solver == Adaptive(1e-3) and not FlowEstimator().independent
    assert FlowEstimator(solver_steps=7).solver == Fixed(7) and FlowEstimator(solver_steps=7).independent


def test_the_trace_is_exact_in_few_dimensions_and_estimated_by_probes_in_many() -> None:
    flow = FlowEstimator(probes=3, distribution="gaussian")
    few, many = (replace(likelihood(POINTS), spec=DataSpec((dim,), None)) for dim in (EXACT, EXACT + 1))
    assert flow.hutchinson(few) is None and flow.hutchinson(many) == Hutchinson(3, "gaussian")


def test_the_error_of_the_solver_is_measured_on_the_first_examples() -> None:
    flow, given, x = FlowEstimator(solver_steps=2), likelihood(POINTS), examples(POINTS, CHECKED + 2)
    measured = flow.measure(given, x, range(CHECKED + 2), None)
    fine = -given.flow(x[:CHECKED], solver=Fixed(2).refined()).log_likelihood
    assert torch.allclose(measured.differences, fine - measured.terms[:CHECKED, 0], rtol=1e-9)
    assert float(measured.differences.abs().max()) > 1e-3, "two steps are coarse"
    assert len(flow.measure(given, x[:3], range(CHECKED, CHECKED + 3), None).differences) == 0
    assert len(flow.measure(given, x[:3], range(CHECKED - 1, CHECKED + 2), None).differences) == 1


def test_the_variance_of_the_flow_is_divided_between_dequantization_and_probes() -> None:
    """The probes are Gaussian, because Rademacher probes have no variance with a diagonal Jacobian, as it is here."""
    probes = Hutchinson(2, "gaussian")
    flow, given, x = FlowEstimator(2, "gaussian", solver_steps=3, repeats=3), likelihood(IMAGES), examples(IMAGES, 2)
    measured = flow.measure(given, x, range(2), None)
    results = [given.flow(x, probes=probes, solver=Fixed(3), repeat=repeat) for repeat in range(3)]
    values = torch.stack([-result.log_likelihood for result in results])
    by_probes = torch.stack([result.variance for result in results]).mean(0) / 3
    assert torch.allclose(measured.terms[:, 0], values.mean(0), rtol=1e-12)
    assert torch.allclose(measured.variances[:, 1, 0], by_probes, rtol=1e-9) and bool((by_probes > 0.01).all())
    assert torch.allclose(measured.variances[:, :, 0].sum(1), values.var(0) / 3, rtol=1e-9)


def test_the_variances_of_all_terms_by_paths_are_those_of_repetitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log-weights are normal: the variance that each example estimates is that between examples."""
    drawn = 0.5 * torch.randn(20_000, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.setattr(Likelihood, "path_weights", lambda *given, **options: PathWeights(drawn))
    measured = ImportanceEstimator(paths=32).measure(likelihood(POINTS), drawn, range(len(drawn)), None)
    assert torch.allclose(measured.variances[:, 0].mean(0), measured.terms.var(0), rtol=0.05)
    assert torch.equal(measured.log_weights, drawn)
    single, cumulant, total = measured.terms.mean(0).tolist()
    assert single == pytest.approx(0, abs=2e-3) and cumulant == pytest.approx(-0.125, abs=3e-3)
    assert single > total > cumulant, "the bound of all paths is between a single path and log p"


def test_what_is_known_is_a_setting_that_names_the_result() -> None:
    plain, box = BoundEstimator(draws=4), BoundEstimator(draws=4, known="box")
    assert box.settings == {**plain.settings, "known": "box"} and "known" not in plain.settings
    assert box.kind(likelihood(IMAGES)) == "upper bound on -log p(hidden | known)"
    given = box.given(IMAGES)
    assert plain.given(IMAGES) is None and given is not None and int((~given).sum()) == 9
    plain.check(model(WHITE, IMAGES))
    with pytest.raises(InputError, match="known: must be left out with this model"):
        box.check(model(WHITE, IMAGES))
    with pytest.raises(InputError, match="known: must be one of box, half, random, or the file of a mask, got 'nose'"):
        BoundEstimator(known="nose").check(model(WHITE, IMAGES))


def test_the_bound_of_a_part_counts_its_scalars() -> None:
    given, x, known = (
        replace(likelihood(IMAGES), mapped=True),
        examples(IMAGES, 3),
        BoundEstimator(known="box").given(IMAGES),
    )
    seen = torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.8
    measured = BoundEstimator(draws=4).measure(given, x, range(3), None, Masks(known, seen))
    assert known is not None and measured.counted.tolist() == (seen & ~known).flatten(1).sum(1).tolist()
    totals = torch.stack([given.bound(x, draws=2, repeat=i, known=known, seen=seen).total for i in range(2)])
    assert torch.allclose(measured.terms[:, 3], totals.mean(0), rtol=1e-12)
    share = 25 / measured.counted
    scaled = measured.by_scalar(25)
    assert torch.equal(scaled.terms, measured.terms * share[:, None])
    assert torch.allclose(scaled.variances[:, 0], measured.variances[:, 0] * share[:, None] ** 2, rtol=1e-12)
    assert torch.allclose(scaled.by_log_snr.sum(1), scaled.terms[:, 1], rtol=1e-12)
    whole = BoundEstimator(draws=4).measure(given, x, range(3), None)
    assert whole.counted.shape == (0,) and whole.by_scalar(25) is whole


def test_the_trajectory_bound_is_the_default() -> None:
    dataset = Dataset(examples(POINTS, 3).numpy(), POINTS, None, ["a", "b", "c"])
    found, chosen = (evaluate(model(PLANE, POINTS), dataset, method=method) for method in (None, BoundEstimator()))
    assert found == chosen and found.method == "bound" and math.isfinite(found.mean["total"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BoundEstimator(repeats=1), "repeats: must be at least 2, got 1"),
        (lambda: BoundEstimator(draws=7, repeats=3), "draws: must be a positive multiple of 3, got 7"),
        (lambda: FlowEstimator(probes=1), "probes: must be at least 2, to know their error, got 1"),
        (lambda: FlowEstimator(repeats=1), "repeats: must be at least 2, got 1"),
        (lambda: FlowEstimator(solver_steps=-1), "solver_steps: must be 0 or more, got -1"),
        (lambda: ImportanceEstimator(paths=1), "paths: must be at least 2, got 1"),
    ],
)
def test_options_out_of_range_are_named(make: type[Estimator], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message
