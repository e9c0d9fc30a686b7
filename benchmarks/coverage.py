"""Whether the 95 % intervals of `diffusion evaluate` cover the truth as often as they promise.

    python -m benchmarks.coverage [--repetitions 400] [--examples 12] [--out FILE] [--check]

Each repetition draws new examples of a Gaussian distribution, whose own denoiser takes the place of a network, and
measures them by one method with its own random numbers. The truth for points is their entropy. The truth for white
images of 256 gray levels, which the flow measures, is the expectation of -log2 of the density at dequantized values.
The goal is a coverage of 90 to 98 %. The total from importance weights is a bound, so its interval may miss the truth
from above; the table has the mean distance above the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from tqdm import tqdm

from benchmarks import common
from benchmarks.common import Goal, Rows
from diffusion.config import Config
from diffusion.data import Dataset, DataSpec
from diffusion.denoiser import Denoiser, V
from diffusion.evaluation import BoundEstimator, FlowEstimator, ImportanceEstimator, evaluate
from diffusion.evaluation.estimators import Estimator
from diffusion.model import Model
from diffusion.schedules import EDM
from tests.oracles import GaussianOracle, OracleNetwork

STD, MEAN = 40.0, 127.5
POINTS = DataSpec((2,), None)
IMAGES = DataSpec((1, 5, 5), 256, (), MEAN, STD)
PLANE = torch.tensor([[1.3, 0.4], [0.4, 0.7]], dtype=torch.float64)
Draw = Callable[[int, torch.Generator], Dataset]


def oracle(shape: tuple[int, ...], covariance: torch.Tensor) -> GaussianOracle:
    return GaussianOracle(EDM(0.01, 100.0), torch.zeros(shape, dtype=torch.float64), covariance)


def model(exact: GaussianOracle, spec: DataSpec) -> Model:
    network = OracleNetwork(exact, V())
    return Model(Denoiser(network, exact.schedule, V()), spec, Config())  # type: ignore[arg-type]


def points(n: int, generator: torch.Generator) -> Dataset:
    values = oracle((2,), PLANE).sample(n, generator).float().numpy()
    return Dataset(values, POINTS, None, tuple(map(str, range(n))))


def images(n: int, generator: torch.Generator) -> Dataset:
    x = MEAN + STD * torch.randn(n, *IMAGES.shape, generator=generator, dtype=torch.float64)
    return Dataset(x.round().clamp(0, 255).byte().numpy(), IMAGES, None, tuple(map(str, range(n))))


def dequantized_bits() -> float:
    """E -log2 N(u; MEAN, STD²) for u = gray level + U(0, 1) - ½, per scalar."""
    normal = torch.distributions.Normal(torch.tensor(MEAN, dtype=torch.float64), torch.tensor(STD, dtype=torch.float64))
    levels = torch.arange(256, dtype=torch.float64)
    below, above = normal.cdf(levels - 0.5), normal.cdf(levels + 0.5)
    below[0], above[-1] = 0, 1  # Values beyond the ends are clamped to them.
    square = ((levels - MEAN).square() + 1 / 12) / STD**2
    return float(((above - below) * square).sum() / 2 + math.log(2 * math.pi * STD**2) / 2) / math.log(2)


def covered(
    measured: Model, draw: Draw, method: Callable[[int], Estimator], truth: float, repetitions: int, examples: int
) -> tuple[float, float, float]:
    """Returns the share of intervals that cover `truth`, their mean half width, and the mean excess over the truth."""
    hits, widths, above = 0, 0.0, 0.0
    for repetition in tqdm(range(repetitions), leave=False):
        dataset = draw(examples, torch.Generator().manual_seed(1000 + repetition))
        total = evaluate(measured, dataset, method=method(repetition)).terms["total"]
        assert total.half_width is not None
        hits += abs(total.mean - truth) < total.half_width
        widths += total.half_width / repetitions
        above += (total.mean - truth) / repetitions
    return hits / repetitions, widths, above


def main() -> None:
    parser = common.parser(__doc__, "coverage")
    parser.add_argument("--repetitions", type=int, default=400, help="intervals of each method")
    parser.add_argument("--examples", type=int, default=12, help="examples in each repetition")
    options = parser.parse_args()
    plane, white = oracle((2,), PLANE), oracle((1, 5, 5), torch.eye(25, dtype=torch.float64))
    entropy = plane.entropy / math.log(2)
    cases: dict[str, tuple[Model, Draw, Callable[[int], Estimator], float]] = {
        "points, bound in continuous time": (
            model(plane, POINTS), points, lambda seed: BoundEstimator(draws=4, continuous=True, seed=seed), entropy,
        ),
        "points, flow with the exact trace": (
            model(plane, POINTS), points, lambda seed: FlowEstimator(solver_steps=24, seed=seed), entropy,
        ),
        "points, importance weights of 16 paths of 400 steps": (
            model(plane, POINTS), points, lambda seed: ImportanceEstimator(steps=400, paths=16, seed=seed), entropy,
        ),
        "images of 256 gray levels, flow with 2 probes": (
            model(white, IMAGES), images, lambda seed: FlowEstimator(2, solver_steps=24, seed=seed), dequantized_bits(),
        ),
    }  # fmt: skip
    rows: Rows = []
    goals = []
    for name, (measured, draw, method, truth) in cases.items():
        share, width, above = covered(measured, draw, method, truth, options.repetitions, options.examples)
        rows.append({"": name, "covered": share, "half width": width, "mean above the truth": above})
        goals += [Goal(f"{name}, covered", share, 0.90), Goal(f"{name}, covered", share, 0.98, "at most")]
    tables = {"95 % intervals, bits": rows}
    common.finish(goals, tables, options.out, check=options.check, values="means over the repetitions")


if __name__ == "__main__":
    main()
