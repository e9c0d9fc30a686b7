"""Every estimator on models whose likelihood is known: oracles in the place of a network."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion import distributed, figures
from diffusion.config import Config
from diffusion.data import Dataset, DataSpec
from diffusion.data.observing import Observing
from diffusion.denoiser import Denoiser, V
from diffusion.errors import InputError
from diffusion.evaluation import BoundEstimator, Evaluation, FlowEstimator, ImportanceEstimator, evaluate, likelihood
from diffusion.evaluation.likelihood import Estimator, Measurements
from diffusion.model import Model, clocks
from diffusion.model.likelihood import Likelihood
from diffusion.schedules import EDM
from tests.oracles import GaussianOracle, MixtureOracle, OracleNetwork

# A schedule with a closed inverse, which the oracle's network needs at every step.
SCHEDULE = EDM(0.01, 100.0)
PLANE = GaussianOracle(
    SCHEDULE, torch.zeros(2, dtype=torch.float64), torch.tensor([[1.3, 0.4], [0.4, 0.7]], dtype=torch.float64)
)
LEVELS = 256
RESTORING = Config(observed=Observing(share=0.5))
# Images of 5 x 5 pixels of one color, in units of 40 gray levels about the middle.
SPEC = DataSpec((1, 5, 5), LEVELS, (), 127.5, 40.0)
WHITE = GaussianOracle(SCHEDULE, torch.zeros(1, 5, 5, dtype=torch.float64), torch.eye(25, dtype=torch.float64))


def model(oracle: GaussianOracle | MixtureOracle, spec: DataSpec, experiment: Config | None = None) -> Model:
    denoiser = Denoiser(OracleNetwork(oracle, V()), oracle.schedule, V())  # type: ignore[arg-type]
    return Model(denoiser, spec, experiment or Config())


def points(n: int, seed: int = 0) -> Dataset:
    values = PLANE.sample(n, torch.Generator().manual_seed(seed)).float().numpy()
    return Dataset(values, DataSpec((2,), None), None, [str(i) for i in range(n)])


def images(n: int, seed: int = 0) -> Dataset:
    x = torch.randn(n, 1, 5, 5, generator=torch.Generator().manual_seed(seed))
    values = (127.5 + 40 * x).round().clamp(0, 255).to(torch.uint8).numpy()
    return Dataset(values, SPEC, None, [str(i) for i in range(n)])


def exact_bits_per_dim(dataset: Dataset) -> Tensor:
    """Returns -log2 of the probability of each value under a normal distribution of deviation 40 gray levels: (N,)."""
    normal, levels = torch.distributions.Normal(127.5, 40.0), torch.from_numpy(np.asarray(dataset.values)).double()
    return -(normal.cdf(levels + 0.5) - normal.cdf(levels - 0.5)).log2().flatten(1).mean(1)


PLANE_BITS = PLANE.entropy / math.log(2)


@pytest.mark.parametrize(
    "method", [BoundEstimator(draws=32), FlowEstimator(), ImportanceEstimator(steps=200, paths=4)], ids=lambda m: m.name
)
def test_every_method_measures_points_within_its_interval(method: Estimator) -> None:
    dataset = points(200)
    result = evaluate(model(PLANE, dataset.spec), dataset, method=method)
    truth = (PLANE.nll(torch.from_numpy(np.asarray(dataset.values)).double()) / math.log(2)).mean().item()
    total = result.terms["total"]
    assert result.unit == "bits/vector" and result.examples == 200
    # For points K is -total, and L_null that of a unit normal distribution in the plane.
    assert result.k["K"].mean == pytest.approx(-total.mean)
    assert result.k["K - L_null"].mean == pytest.approx(-total.mean + math.log2(2 * math.pi * math.e))
    assert "K, K - L_null: bits/vector, of density at unit variance" in result.table()
    assert total.half_width is not None and total.half_width < 0.8
    assert abs(total.mean - PLANE_BITS) < 1.5 * total.half_width
    inner = math.hypot(*(error for name, error in total.errors.items() if name not in ("examples", "solver")))
    # The bound of a finite number of steps is above; the numbers share their examples with the truth.
    assert (
        -4 * inner - 1e-3
        < total.mean - truth
        < 4 * inner + {"bound": 2e-3, "ode": 2e-3, "importance": 0.25}[method.name]
    )


def test_continuous_data_of_any_scale_have_the_density_of_their_standardized_values() -> None:
    spec = DataSpec((2,), None, mean=0.3, std=2.0)
    standard = points(20)
    dataset = replace(standard, values=0.3 + 2 * np.asarray(standard.values), spec=spec)
    result = evaluate(model(PLANE, spec), dataset, method=FlowEstimator())
    truth = (PLANE.nll(torch.from_numpy(np.asarray(standard.values)).double()) / math.log(2)).mean().item()
    assert result.mean["total"] == pytest.approx(truth, abs=2e-3)
    # That is a density at unit variance, as in 2015.
    assert result.k["K"].mean == -result.mean["total"]
    assert result.k["K - L_null"].mean == pytest.approx(-result.mean["total"] + math.log2(2 * math.pi * math.e))


def test_the_flow_of_images_has_the_bits_per_dim_of_their_gray_levels() -> None:
    """The images have 25 white pixels; the probability of a gray level is a difference of two normal probabilities."""
    dataset = images(40)
    result = evaluate(model(WHITE, SPEC), dataset, method=FlowEstimator(probes=2))
    total = result.terms["total"]
    truth = exact_bits_per_dim(dataset).mean().item()
    inner = math.hypot(*(error for name, error in total.errors.items() if name not in ("examples", "solver")))
    assert result.unit == "bits/dim" and "upper bound" in result.kind
    assert abs(total.mean - truth) < 4 * inner + total.errors.get("solver", 0) + 2e-3
    # In the unit of 2015: a unit normal has K = L_null.
    assert result.k["K - L_null"].mean == pytest.approx(0, abs=0.1)
    assert result.k["K"].mean == pytest.approx(math.log2(40) - total.mean)
    assert set(total.errors) == {"examples", "dequantization", "probes", "solver"}


@pytest.mark.parametrize(
    ("levels", "mean", "std"), [(4096, 2047.5, 400.0), (65536, 20_000.0, 3000.0)], ids=["12 bits", "16 bits"]
)
@pytest.mark.parametrize("method", [BoundEstimator(draws=64), FlowEstimator(probes=2)], ids=["bound", "flow"])
def test_deep_images_have_the_entropy_of_their_levels(method: Estimator, levels: int, mean: float, std: float) -> None:
    """White images of a normal distribution, whose entropy in gray levels is log2(std sqrt(2 pi e)) per pixel."""
    top = float(levels - 1)
    spec = DataSpec((1, 5, 5), levels, (), mean, std, (0.0, top))
    x = torch.randn(60, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    values = (mean + std * x).round().clamp(0, top).numpy().astype(np.uint16)
    dataset = Dataset(values, spec, None, [str(i) for i in range(60)])
    oracle = replace(WHITE, schedule=EDM(0.002, 100.0))
    result = evaluate(model(oracle, spec), dataset, method=method)
    normal = torch.distributions.Normal(mean, std)
    gray = torch.from_numpy(values.astype(np.float64))
    truth = -(normal.cdf(gray + 0.5) - normal.cdf(gray - 0.5)).log2().mean().item()
    entropy = math.log2(std * math.sqrt(2 * math.pi * math.e))
    total = result.terms["total"]
    inner = math.hypot(*(error for name, error in total.errors.items() if name not in ("examples", "solver")))
    assert abs(total.mean - truth) < 4 * inner + total.errors.get("solver", 0) + 4e-3
    assert abs(truth - entropy) < 0.1
    assert result.unit == "bits/dim"
    assert f"of {levels:,} gray levels, the values 0 to {levels - 1:,} of the files" in result.table()
    assert f"a uniform guess has {math.log2(levels):.4f}" in result.table()


def test_continuous_images_say_the_unit_of_their_density() -> None:
    spec = DataSpec((1, 5, 5), None, (), 0.5, 0.125, (-4.0, 4.0))
    x = torch.randn(20, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    dataset = Dataset((0.5 + 0.125 * x).numpy(), spec, None, [str(i) for i in range(20)])
    result = evaluate(model(WHITE, spec), dataset, method=FlowEstimator(probes=2))
    truth = (WHITE.nll(x.double()) / math.log(2)).mean().item()
    assert result.unit == "bits/vector" and result.mean["total"] == pytest.approx(truth, abs=0.2)
    # The deviation is 1 in the values of the files, in which the density is the same.
    assert "standard deviation, 1 in the values of the files; of their density in the values of the files it is +0" in (
        result.table()
    )


def test_images_in_another_range_are_refused() -> None:
    dataset = images(4)
    other = replace(dataset, spec=replace(SPEC, value_range=(0.0, 100.0)))
    with pytest.raises(
        InputError, match="data: must be of 256 levels, as the model's, got of 256 levels from 0 to 100"
    ):
        evaluate(model(WHITE, SPEC), other, method=BoundEstimator(draws=2))


ATOMS = [
    BoundEstimator(draws=64),
    ImportanceEstimator(steps=400, paths=4),
    FlowEstimator(dequantization="noise"),
    FlowEstimator(),
]


@pytest.mark.parametrize("method", ATOMS, ids=["bound", "importance", "flow, noise", "flow, uniform"])
def test_the_bound_of_images_has_the_bits_per_dim_of_their_gray_levels(method: Estimator) -> None:
    """The images have one pixel with 8 gray levels far from each other, and the denoiser is exact."""
    spec = DataSpec((1, 1, 1), LEVELS, (), 127.5, 70.0)
    values, weights = 30 * torch.arange(8) + 20, torch.arange(1.0, 9.0, dtype=torch.float64) / 36
    atoms = spec.encode(values).double().reshape(8, 1, 1, 1)
    chosen = torch.arange(8).repeat_interleave(torch.arange(1, 9))
    gray = values[chosen].to(torch.uint8).reshape(-1, 1, 1, 1).numpy()
    dataset = Dataset(gray, spec, None, [str(i) for i in range(36)])
    # The clean end is below the spacing of the 256 gray levels, among which the decoder has to choose.
    oracle = MixtureOracle(EDM(0.002, 100.0), atoms, 0.0, weights)
    result = evaluate(model(oracle, spec), dataset, method=method)
    total, truth = result.terms["total"], -(weights * weights.log2()).sum().item()
    inner = math.hypot(*(error for name, error in total.errors.items() if name != "examples"))
    assert result.unit == "bits/dim" and "upper bound" in result.kind
    if method == FlowEstimator():
        # A density as narrow as the noise of the clean end is met by uniform noise as wide as a gray level.
        std = 0.002 * spec.std
        truth += math.log2(math.sqrt(2 * math.pi) * std) + 1 / (24 * std**2 * math.log(2))
    # The flow starts from noise without the mean of these data, 0.01 bits at 100 times their width.
    below, above = {"bound": (0, 0.01), "importance": (0, 0.1), "ode": (0.01, 0.01)}[method.name]
    assert -3 * inner - below < total.mean - truth < 3 * inner + above


def test_intervals_of_the_bound_cover_the_truth() -> None:
    """It makes 95 % intervals of 12 points each, 100 times. In continuous time the truth is the entropy."""
    covered = 0
    for repetition in range(100):
        dataset = points(12, seed=100 + repetition)
        method = BoundEstimator(draws=4, steps=1, continuous=True, seed=repetition)
        result = evaluate(model(PLANE, dataset.spec), dataset, method=method)
        total = result.terms["total"]
        assert total.half_width is not None
        covered += abs(total.mean - PLANE_BITS) < total.half_width
    assert 90 <= covered <= 98


@pytest.mark.parametrize("repeats", [2, 3])
def test_the_bound_makes_as_many_draws_as_asked_for(repeats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], OracleNetwork.__call__
    monkeypatch.setattr(OracleNetwork, "__call__", lambda *given: calls.append(1) or real(*given))  # type: ignore[func-returns-value]
    dataset = points(3)
    evaluate(model(PLANE, dataset.spec), dataset, method=BoundEstimator(18, repeats=repeats))
    assert len(calls) == 18


@pytest.mark.parametrize("draws", [-2, 0, 1, 17])
def test_draws_that_are_no_halves_are_refused(draws: int) -> None:
    with pytest.raises(InputError, match=f"draws: must be a positive multiple of 2, got {draws}"):
        BoundEstimator(draws)


def test_the_kl_by_log_snr_adds_up_to_the_diffusion_term() -> None:
    dataset = points(60)
    result = evaluate(model(PLANE, dataset.spec), dataset, method=BoundEstimator(draws=12))
    width = (SCHEDULE.log_snr_max - SCHEDULE.log_snr_min) / len(result.by_log_snr)
    area = sum(value for _, value, _ in result.by_log_snr) * width
    assert area == pytest.approx(result.mean["diffusion"], rel=1e-9)
    assert all(error > 0 for _, _, error in result.by_log_snr)


def test_the_figure_of_the_kl_by_log_snr_has_the_marks_of_the_run(tmp_path: Path) -> None:
    dataset = points(60)
    result = evaluate(model(PLANE, dataset.spec), dataset, method=BoundEstimator(draws=2))
    result.draw(tmp_path / "plain.png", "held-out")
    clocks.record(tmp_path, dataset)
    result.draw(tmp_path / "marked.png", "held-out")
    assert set(clocks.marks(tmp_path)) == {"speciation", "collapse"}
    assert figures.read_info(tmp_path / "marked.png")["marks"] == clocks.marks(tmp_path)
    assert "marks" not in figures.read_info(tmp_path / "plain.png")


def test_a_bound_of_few_paths_is_not_called_reliable() -> None:
    dataset, plane = points(6), replace(PLANE, schedule=EDM(0.1, 10.0))
    loose = evaluate(model(plane, dataset.spec), dataset, method=ImportanceEstimator(steps=8, paths=4))
    assert "not reliable: for 6 of 6 examples the effective sample size is below 10 of 4 paths" in loose.table()
    tight = evaluate(model(plane, dataset.spec), dataset, method=ImportanceEstimator(steps=64, paths=32))
    assert (
        "reliable: the effective sample size of every example is at least" in tight.table()
        and "not reliable" not in tight.table()
    )
    assert len(tight.log_weights) == 6 and len(tight.log_weights[0]) == 32
    curve = tight.notes[-1].removeprefix("total by the number of paths: ").split(", ")
    assert [text.partition(": ")[0] for text in curve] == ["1", "2", "4", "8", "16", "32"]
    totals = [float(text.partition(": ")[2]) for text in curve]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] == pytest.approx(tight.mean["single path"], abs=1e-4)
    assert totals[-1] == pytest.approx(tight.mean["total"], abs=1e-4) and totals[-1] < totals[0]


@pytest.mark.parametrize("steps", [4, 8])
def test_the_error_by_paths_is_that_of_their_repetitions_where_the_bound_is_loose(steps: int) -> None:
    """The 400 values of one point differ by their paths alone. Log-weights here have a longer tail than normal
    ones.
    """
    dataset, plane = points(1).subset([0] * 400), replace(PLANE, schedule=EDM(0.1, 10.0))
    result = evaluate(model(plane, dataset.spec), dataset, method=ImportanceEstimator(steps=steps, paths=4))
    assert np.std(result.log_weights) > 3, "nats"
    measured = np.std(result.values, ddof=1) / math.sqrt(400)
    assert result.terms["total"].errors["paths"] == pytest.approx(measured, rel=0.25)


@pytest.mark.parametrize(
    "method", [BoundEstimator(draws=4), ImportanceEstimator(steps=8, paths=2)], ids=lambda m: m.name
)
def test_an_example_has_the_same_value_in_any_batch(method: Estimator, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = points(7)
    whole = evaluate(model(PLANE, dataset.spec), dataset, method=method)
    monkeypatch.setattr(likelihood, "BATCH", 2)
    parts = evaluate(model(PLANE, dataset.spec), dataset, method=method)
    assert parts.values == pytest.approx(whole.values, abs=1e-5)
    # Every third of 7: with the random numbers of the first three, which the values depend on.
    some = evaluate(model(PLANE, dataset.spec), dataset, method=method, limit=3)
    chosen = evaluate(model(PLANE, dataset.spec), dataset.subset([0, 3, 6]), method=method)
    assert some.values == pytest.approx(chosen.values, abs=1e-5)


def test_a_limit_takes_examples_of_all_classes() -> None:
    """The points are of two classes, one after the other as in a folder, the second far out."""
    near, far = np.zeros((20, 2), dtype=np.float32), np.full((20, 2), 9, dtype=np.float32)
    dataset = Dataset(np.concatenate([near, far]), DataSpec((2,), None), None, [str(i) for i in range(40)])
    whole = evaluate(model(PLANE, dataset.spec), dataset, method=FlowEstimator())
    some = evaluate(model(PLANE, dataset.spec), dataset, method=FlowEstimator(), limit=8)
    assert some.examples == 8
    assert some.mean["total"] == pytest.approx(whole.mean["total"], rel=1e-2)


@pytest.mark.parametrize(
    ("device", "shape", "most"),
    [
        ("cuda", (3, 32, 32), 1024),
        ("cuda", (3, 64, 64), 256),
        ("cuda", (3, 256, 256), 16),
        ("cuda", (2,), 1024),
        ("mps", (3, 256, 256), 4),
        ("mps", (3, 32, 32), 256),
    ],
)
def test_a_gpu_takes_more_unless_the_numbers_depend_on_it(device: str, shape: tuple[int, ...], most: int) -> None:
    spec, gpu, cpu = DataSpec(shape, 256 if len(shape) > 1 else None), torch.device(device), torch.device("cpu")
    assert BoundEstimator().batch(spec, gpu) == FlowEstimator(solver_steps=8).batch(spec, gpu) == most
    adaptive = FlowEstimator()
    assert not adaptive.independent and adaptive.batch(spec, gpu) == BoundEstimator().batch(spec, cpu) < most


def test_processes_measure_as_many_at_once_as_the_one_that_takes_least(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise their shares of the batches would not be those of the same batches."""
    dataset, sizes, real = points(12), [], BoundEstimator.measure

    def measure(self: BoundEstimator, likelihood: Likelihood, x: Tensor, *others: object) -> Measurements:
        sizes.append(len(x))
        return real(self, likelihood, x, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(BoundEstimator, "measure", measure)
    monkeypatch.setattr(distributed, "largest", lambda number: max(number, -4))  # Another process takes 4.
    evaluate(model(PLANE, dataset.spec), dataset, method=BoundEstimator(draws=2), shared=True)
    assert sizes == [4, 4, 4]


@pytest.mark.parametrize(("shape", "most"), [((3, 32, 32), 128), ((3, 256, 256), 2), ((1, 600, 600), 1), ((2,), 128)])
def test_large_examples_are_fewer_in_a_batch(
    shape: tuple[int, ...], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def measure(self: BoundEstimator, likelihood: Likelihood, x: Tensor, *others: object) -> Measurements:
        sizes.append(len(x))
        return Measurements.of(
            torch.zeros(len(x), 4), torch.zeros(len(x), 1, 4), by_log_snr=torch.zeros(len(x), BoundEstimator.bins)
        )

    monkeypatch.setattr(BoundEstimator, "measure", measure)
    spec = DataSpec(shape, None)
    values = np.broadcast_to(np.float32(0), (most + 1, *shape))
    evaluate(model(PLANE, spec), Dataset(values, spec, None, [""] * (most + 1)))
    assert sizes == [most, 1]


def short(monkeypatch: pytest.MonkeyPatch, name: str, most: int) -> list[int]:
    """Lets at most `most` examples at once through a likelihood; returns the sizes that were tried."""
    real, tried = getattr(Likelihood, name), []

    def limited(self: Likelihood, x: Tensor, **options: object) -> object:
        tried.append(len(x))
        if len(x) > most:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, x, **options)

    monkeypatch.setattr(Likelihood, name, limited)
    return tried


SHORT = [BoundEstimator(draws=4), ImportanceEstimator(steps=8, paths=2), FlowEstimator(solver_steps=8)]


@pytest.mark.parametrize("method", SHORT, ids=lambda m: m.name)
def test_a_batch_that_memory_does_not_hold_is_halved(method: Estimator, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = points(11)
    whole = evaluate(model(PLANE, dataset.spec), dataset, method=method)
    tried = short(monkeypatch, {"bound": "bound", "importance": "path_weights", "ode": "flow"}[method.name], 3)
    halved = evaluate(model(PLANE, dataset.spec), dataset, method=method)
    assert tried[:3] == [11, 5, 2] and max(tried[2:]) == 6
    assert halved.values == pytest.approx(whole.values, abs=1e-5)
    assert halved.terms["total"].errors == pytest.approx(whole.terms["total"].errors, abs=1e-5)


def test_a_batch_that_cannot_be_halved_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = points(4)
    short(monkeypatch, "bound", 0)
    with pytest.raises(
        InputError, match=r"evaluation: out of memory on cpu with 1 examples at once; use a device with more memory"
    ):
        evaluate(model(PLANE, dataset.spec), dataset)
    short(monkeypatch, "flow", 3)
    with pytest.raises(InputError, match=r"out of memory on cpu with 4 examples at once; set solver_steps"):
        evaluate(model(PLANE, dataset.spec), dataset, method=FlowEstimator())


def strict(result: Evaluation) -> dict[str, object]:
    """Returns a result as it comes back from strict JSON, which knows no NaN."""
    return json.loads(json.dumps(result.to_dict(), allow_nan=False))


ESTIMATORS = [BoundEstimator(draws=4), FlowEstimator(probes=2), ImportanceEstimator(steps=16, paths=4)]


@pytest.mark.parametrize("method", ESTIMATORS, ids=lambda m: m.name)
def test_one_image_and_images_of_one_color_have_an_answer(method: Estimator) -> None:
    one = evaluate(model(WHITE, SPEC), images(1), method=method)
    assert one.examples == 1 and "one example: nothing is known of others" in one.table()
    assert one.terms["total"].half_width is not None and "examples" not in one.terms["total"].errors
    assert strict(one)["examples"] == 1
    flat = np.full((3, 1, 5, 5), 127, dtype=np.uint8)
    same = evaluate(model(WHITE, SPEC), Dataset(flat, SPEC, None, ["a", "b", "c"]), method=method)
    assert strict(same)["unit"] == "bits/dim"
    middle = -math.log2(math.erf(0.5 / 40 / math.sqrt(2))) + (0.5 / 40) ** 2 / 2 / math.log(2)
    # A denoiser that has not learned gray levels spends bits on the values between them, but for uniform noise there.
    above = same.mean["total"] - middle
    assert abs(above) < 0.02 if method.name == "ode" else 0 < above < 20


def test_one_point_by_the_exact_flow_says_that_nothing_tells_its_interval() -> None:
    result = evaluate(model(PLANE, DataSpec((2,), None)), points(1), method=FlowEstimator())
    assert result.terms["total"].half_width is None and "?" in result.table() and strict(result)["examples"] == 1


def test_labels_of_other_classes_are_refused() -> None:
    """A label is the number of a class: 0 is a cat here and a dog there."""
    spec = DataSpec((2,), None, ("cat", "dog"))
    labeled = replace(points(3), labels=np.zeros(3, dtype=np.int64), spec=replace(spec, classes=("dog", "cat")))
    with pytest.raises(
        InputError, match=r"data: must be of the model's classes \('cat', 'dog'\), .*got \('dog', 'cat'\)"
    ):
        evaluate(model(PLANE, spec), labeled)
    assert evaluate(model(PLANE, replace(spec, classes=())), labeled, method=FlowEstimator()).examples == 3
    assert evaluate(model(PLANE, spec), replace(labeled, labels=None), method=FlowEstimator()).examples == 3


def test_examples_of_another_kind_are_refused() -> None:
    with pytest.raises(InputError, match=r"data: must be of the model's shape \(2,\), got \(1, 5, 5\)"):
        evaluate(model(PLANE, DataSpec((2,), None)), images(2))
    gray = images(2)
    smooth = replace(gray, values=gray.values.astype(np.float32), spec=DataSpec((1, 5, 5), None))
    with pytest.raises(InputError, match=r"data: must be of 256 levels, as the model's, got continuous"):
        evaluate(model(WHITE, SPEC), smooth)
    nothing = Dataset(np.zeros((0, 2), dtype=np.float32), DataSpec((2,), None), None, [])
    with pytest.raises(InputError, match=r"data.held_out: must be positive"):
        evaluate(model(PLANE, DataSpec((2,), None)), nothing)
    broken = Dataset(np.array([[0.0, 1.0], [math.nan, 0.0]], dtype=np.float32), DataSpec((2,), None), None, ["a", "b"])
    with pytest.raises(InputError, match="x: must be finite, got nan in example 1"):
        evaluate(model(PLANE, DataSpec((2,), None)), broken)


def test_what_is_hidden_is_measured_given_what_is_known() -> None:
    dataset, k = points(400), 0.4 / 1.3
    x = torch.from_numpy(np.asarray(dataset.values)).double()
    exact = -torch.distributions.Normal(k * x[:, 0], (0.7 - k * 0.4) ** 0.5).log_prob(x[:, 1]) / math.log(2)
    method = BoundEstimator(draws=16, known="half")
    result = evaluate(model(PLANE, dataset.spec, RESTORING), dataset, method=method)
    total = result.terms["total"]
    assert result.kind == "upper bound on -log p(hidden | known)" and result.unit == "bits/vector"
    assert abs(total.mean - float(exact.mean())) < 4 * total.errors["noise"] < 0.7
    assert total.mean == pytest.approx(sum(result.mean[term] for term in ("prior", "diffusion", "decoder")))
    assert result.counted == 1 and result.k is None
    assert result.table().splitlines()[-1] == (
        "hidden: 1 of the 2 scalars of an example, of which the bits are, given 50.0% of the pixels"
    )
    assert strict(result)["counted"] == 1


def damaged(n: int) -> Dataset:
    """Images of which each has other unseen pixels, within a margin of one pixel of which all has been seen."""
    whole = images(n)
    generator = torch.Generator().manual_seed(1)
    seen = torch.ones(n, 1, 7, 7, dtype=torch.uint8)
    seen[:, :, 1:-1, 1:-1] = (
        torch.rand(n, 1, 5, 5, generator=generator) < torch.linspace(0.4, 0.9, n)[:, None, None, None]
    )
    values = np.pad(np.asarray(whole.values), ((0, 0), (0, 0), (1, 1), (1, 1)))
    return replace(whole, values=values, seen=seen.numpy(), margin=1)


def test_damaged_images_have_bits_per_seen_dimension() -> None:
    """Each example is divided by its own scalars; the values of pixels that nobody has seen have no influence."""
    dataset, method = damaged(12), BoundEstimator(draws=8)
    white = model(WHITE, SPEC, RESTORING)
    result = evaluate(white, dataset, method=method)
    seen = torch.from_numpy(np.asarray(dataset.seen))[:, :, 1:-1, 1:-1] != 0
    counts = seen.flatten(1).sum(1)
    halves = [white.likelihood().bound(images(12).values, draws=4, repeat=i, seen=seen).total for i in (0, 1)]
    expected = (sum(halves) / 2 / math.log(2) / counts).tolist()  # type: ignore[operator]
    assert result.values == pytest.approx(expected, rel=1e-12) and len(set(counts.tolist())) > 4
    assert result.unit == "bits/dim" and result.counted == pytest.approx(float(counts.double().mean()))
    assert f"seen: {result.counted:.6g} of the 25 scalars of an example on average" in result.table()
    spoiled = np.where(np.asarray(dataset.seen) != 0, np.asarray(dataset.values), 255 - np.asarray(dataset.values))
    assert evaluate(white, replace(dataset, values=spoiled), method=method) == result
    # Where all has been seen the number is that of a plain dataset, up to rounding; the same network is asked.
    full = replace(images(12), seen=np.ones((12, 1, 5, 5), dtype=np.uint8))
    plain = evaluate(white, images(12), method=method)
    assert plain.counted is None and plain.k is not None
    assert evaluate(white, full, method=method).values == pytest.approx(plain.values, rel=1e-5)


def test_images_seen_more_or_less_cost_the_same_bits_per_dimension() -> None:
    """The pixels are independent, so a part of them costs as many bits each as the whole."""
    spec = DataSpec((1, 5, 5), None)
    x = torch.randn(40, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    seen = (torch.rand(40, 1, 5, 5, generator=torch.Generator().manual_seed(1)) < 0.4).numpy().astype(np.uint8)
    dataset = Dataset(x.numpy(), spec, None, [str(i) for i in range(40)], seen=seen)
    result = evaluate(model(WHITE, spec, RESTORING), dataset, method=BoundEstimator(draws=32))
    exact = 0.5 * math.log2(2 * math.pi) + (x.square() * torch.from_numpy(seen)).sum() / seen.sum() / 2 / math.log(2)
    assert result.counted is not None and result.unit == "bits/vector"
    total = result.terms["total"]
    assert abs(total.mean / result.counted - float(exact)) < 4 * total.errors["noise"] / result.counted < 0.6


def test_known_pixels_of_damaged_images_are_those_that_were_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, white = damaged(6), model(WHITE, SPEC, RESTORING)
    dataset.seen[3, :, 2:5, 2:5] = 0  # type: ignore[index]
    method = BoundEstimator(draws=4, known="box")
    result = evaluate(white, dataset, method=method)
    # Nothing of the box has been seen in one of them: it is left out, and said to be.
    assert result.examples == 5 and result.names == ("0", "1", "2", "4", "5") and result.unit == "bits/hidden dim"
    assert "left out: 1 examples, of which nothing that is to be measured has been seen" in result.table()
    monkeypatch.setattr(likelihood, "BATCH", 2)
    assert evaluate(white, dataset, method=method).values == pytest.approx(result.values, rel=1e-5)
    some = evaluate(white, dataset, method=method, limit=3)
    assert some.names == ("0", "2", "5") and some.examples == 3
    alone = evaluate(white, dataset.subset([0, 2, 5]), method=method)
    assert alone.names == () and alone.values == some.values
    short(monkeypatch, "bound", 1)
    assert evaluate(white, dataset, method=method).values == pytest.approx(result.values, rel=1e-5)


def test_parts_that_cannot_be_measured_are_refused() -> None:
    dataset, white = damaged(4), model(WHITE, SPEC, RESTORING)
    for method in (FlowEstimator(), ImportanceEstimator()):
        with pytest.raises(InputError, match=f"data: must be seen everywhere for {method.name}; take --method bound"):
            evaluate(white, dataset, method=method)
    with pytest.raises(InputError, match="data: must be seen everywhere for this model, which takes one noise level"):
        evaluate(model(WHITE, SPEC), dataset)
    with pytest.raises(InputError, match="known: must be left out with this model, which takes one noise level"):
        evaluate(model(WHITE, SPEC), images(2), method=BoundEstimator(known="box"))
    nothing = replace(dataset, seen=np.zeros((4, 1, 7, 7), dtype=np.uint8))
    with pytest.raises(InputError, match="data: must be seen where it is to be measured, in one example or more"):
        evaluate(white, nothing)
