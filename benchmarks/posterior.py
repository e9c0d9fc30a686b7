"""Methods of restoration against posteriors that are known exactly.

    python -m benchmarks.posterior [--seeds 20] [--dims 8 80 800] [--check] [--out FILE]

Mixtures (Cardoso et al. 2023, arXiv 2308.07983, MCGdiff): the sliced Wasserstein distance of samples of 20 denoiser
steps from exact ones, as mean ± 1.96 standard errors over the seeds. Beside it stand the published numbers and the
floor, which is the distance between two sets of exact samples. Problems are drawn as by that paper's code, with 2,000
samples each. The schedule is the package's, and its timestep grids are measured once on the prior. Steps are counted
per sample: the several particles of "particles" do not count as steps.

Fields: Gaussian images of 32x32 pixels, seen through a mask, a blur and a downsampling, in noise, and through the mask
without any and in noise that differs from pixel to pixel. For masks "learned" has a denoiser that takes a noise level
for every pixel, as it is exact here for every map, and the package's default grid. The columns are the error of the
mean and the variance relative to the exact ones, and the exact probability of intervals that hold 90 % of the draws of
an exact sampler. A probability below 88 % is over-confident.
"""

from __future__ import annotations

import math
import statistics
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import common
from benchmarks.common import Goal, Rows
from benchmarks.fields import Field, Known
from benchmarks.mixture import STD, Mixture, Problem, directions, sliced_wasserstein
from diffusion import restoration
from diffusion.errors import InputError
from diffusion.grids import Karras, measure
from diffusion.memory import tune_malloc
from diffusion.operators import Downsample, GaussianBlur, Linear, Mask, Matrix
from diffusion.restoration.counting import CountingDenoiser
from diffusion.restoration.methods import DPS, METHODS, Learned, Method, PiGDM, Resampling, default
from diffusion.restoration.noise_maps import Noise, most
from diffusion.restoration.particles import Particles
from diffusion.restoration.posterior import Isotropic

OBSERVATIONS = (1, 2, 4)
# Sliced Wasserstein at 20 steps ± half its 95 % interval, from the data that their table is made of.
PUBLISHED = {
    (8, 1): ("1.43 ± 0.55", "5.88 ± 1.16", "4.86 ± 1.01"),
    (8, 2): ("0.49 ± 0.24", "5.20 ± 1.32", "5.79 ± 1.96"),
    (8, 4): ("0.38 ± 0.25", "2.51 ± 1.29", "3.48 ± 1.52"),
    (80, 1): ("1.39 ± 0.45", "5.64 ± 1.10", "4.98 ± 1.14"),
    (80, 2): ("0.67 ± 0.24", "7.07 ± 1.35", "5.10 ± 1.23"),
    (80, 4): ("0.28 ± 0.14", "7.81 ± 1.48", "4.28 ± 1.26"),
    (800, 1): ("2.40 ± 1.00", "7.44 ± 1.15", "6.49 ± 1.16"),
    (800, 2): ("1.31 ± 0.60", "8.95 ± 1.12", "6.88 ± 1.01"),
    (800, 4): ("0.47 ± 0.19", "8.39 ± 1.48", "5.51 ± 1.18"),
}
STEPS, MANY = 20, 100
FOR_MASKS = ("replacement", "repaint", "learned")
# The methods with importance weights, and the default method for as few observations as the mixtures have.
WEIGHTED, DEFAULT = ("particles", "resampling"), "resampling"
SAMPLES, LINES, PATHS = 2000, 100, 512
# Particles for each sample at many steps.
MORE = 16
# Log-SNRs of the last evaluations: below the scale of the components, and below the noise of the images' observations.
LAST, LAST_IMAGE = 4.6, 8.0
# Draws of a pixel: the second smallest and the second largest of 39 hold 36/40 of all further ones.
DRAWS = 39
NOISE = 0.05
# The ends of the standard deviations in a map of noise, log-uniform between them.
MAP = (0.02, 2.0)
# The noise of y in the exact posterior of an exact observation, for a covariance that can be inverted.
NEARLY_EXACT = 1e-3
# Beyond any distance of samples that did not diverge: the modes lie within 16 of the middle in each coordinate.
WILD = 1e4


@dataclass
class Tally:
    """The figures of a method, problem by problem."""

    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **figures: float) -> None:
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)

    def mean(self, name: str) -> float:
        values = self.figures.get(name, [])
        return statistics.fmean(values) if values else math.nan

    def wild(self, name: str) -> int:
        """Returns in how many problems the method diverged."""
        return sum(not value < WILD for value in self.figures[name])

    def interval(self, name: str) -> str:
        """Returns the mean ± 1.96 standard errors, or how often the method diverged."""
        values = self.figures[name]
        if wild := self.wild(name):
            return f"diverged in {wild} of {len(values)}"
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else math.nan
        return f"{statistics.fmean(values):.2f} ± {1.96 * error:.2f}"


Contestants = dict[str, tuple[Method, int]]


def contestants(scale: float, *, masks: bool) -> Contestants:
    """Returns every method with its defaults and its number of steps; those for masks alone only with `masks`.

    `scale` is the standard deviation of the data. The isotropic covariance model and the step of DPS take it as known.
    """
    methods = {name: kind() for name, kind in METHODS.items() if masks or name not in FOR_MASKS}
    methods["pigdm"] = PiGDM(Isotropic(scale))
    methods["dps"] = DPS(scale=scale)
    methods["resampling"] = Resampling(at=late(scale))
    return {name: (method, STEPS) for name, method in methods.items()}


def late(scale: float) -> float:
    """Returns the log-SNR at which `Resampling` resamples by default, for data of standard deviation `scale`."""
    return Resampling().at - 2 * math.log(scale)


def mixtures(chosen: Namespace) -> tuple[Rows, list[Goal]]:
    """Returns the table of the mixtures and its goals."""
    rows: Rows = []
    goals: list[Goal] = []
    for dim in chosen.dims:
        generator = torch.Generator().manual_seed(dim)
        mixture = Mixture.draw(dim, generator)
        paths = torch.randn(PATHS, dim, generator=generator, dtype=torch.float64).to(chosen.dtype)
        grid = measure(mixture, paths, first=mixture.schedule.log_snr_min, last=LAST)
        for observations in OBSERVATIONS:
            entries = contestants(STD, masks=False)
            entries[f"particles, {MANY} steps"] = entries["particles"][0], MANY
            entries[f"{DEFAULT}, {MANY} steps"] = Resampling(MORE, late(STD)), MANY
            if chosen.only:
                entries = {name: entry for name, entry in entries.items() if name in chosen.only}
            if chosen.fewer:
                entries = {name: entry for name, entry in entries.items() if entry[1] == STEPS}
            tallies = {name: Tally() for name in ("exact", *entries)}
            for seed in tqdm(range(chosen.seeds), desc=f"{dim}, {observations}", disable=None):
                draws = torch.Generator().manual_seed(1000 * observations + seed)
                problem = Problem.draw(mixture, observations, draws)
                other, exact = (problem.sample(chosen.samples, draws) for _ in range(2))
                lines = directions(dim, LINES, draws)
                compare(tallies["exact"], problem, other, exact, lines)
                for name, (method, steps) in entries.items():
                    times = grid(mixture.schedule, steps)
                    run(tallies[name], method, problem, times, (exact, lines), draws, chosen.dtype)
            cell, met = summary((dim, observations), tallies, chosen.samples)
            rows += cell
            goals += met
    return rows, goals


def compare(tally: Tally, problem: Problem, x: Tensor, exact: Tensor, lines: Tensor) -> None:
    """Adds the distances of samples x from the exact posterior to a tally."""
    tally.add(distance=sliced_wasserstein(x, exact, lines), weights=problem.weight_distance(x))


def run(
    tally: Tally,
    method: Method,
    problem: Problem,
    times: Tensor,
    exact: tuple[Tensor, Tensor],
    generator: torch.Generator,
    dtype: torch.dtype,
) -> None:
    """Restores the observation of one problem and adds its figures to a tally.

    `exact` holds exact samples (n, D) and directions (D, L) of lines.
    """
    noise = torch.randn(exact[0].shape, generator=generator, dtype=torch.float64).to(dtype)
    seen = restoration.Problem(Matrix(problem.matrix), problem.y[None].to(dtype), problem.noise)
    denoiser = CountingDenoiser(problem.mixture)
    with torch.no_grad():
        restored = method(denoiser, seen, noise, times, normal(generator))
    compare(tally, problem, restored.x, *exact)
    relative_ess = float(restored.relative_ess.mean()) if len(restored.relative_ess) else math.nan
    error = float(restored.log_evidence) - problem.log_evidence
    tally.add(nfe=denoiser.nfe, backward=denoiser.backward, relative_ess=relative_ess, evidence=error)


def normal(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def summary(cell: tuple[int, int], tallies: dict[str, Tally], samples: int) -> tuple[Rows, list[Goal]]:
    """Returns the rows and goals of one pair of dimension and number of observations."""
    rows: Rows = []
    floor = tallies["exact"].mean("distance")
    for name, tally in tallies.items():
        rows.append(
            {
                "d, d_y": f"{cell[0]}, {cell[1]}",
                "method": name,
                "sliced Wasserstein": tally.interval("distance"),
                "times the floor": "" if tally.wild("distance") else tally.mean("distance") / floor,
                "mode weights, TV": tally.mean("weights"),
                "error of log p(y)": tally.mean("evidence") if name.startswith(WEIGHTED) else "",
                "relative ESS": tally.mean("relative_ess") if name.startswith(WEIGHTED) else "",
                "NFE": tally.mean("nfe") if tally.figures.get("nfe") else "",
                "backward": tally.mean("backward") if tally.figures.get("nfe") else "",
            }
        )
    for name, published in zip(("MCGdiff", "DDRM", "DPS"), PUBLISHED.get(cell, ()), strict=False):
        rows.append(
            {"d, d_y": f"{cell[0]}, {cell[1]}", "method": f"{name}, published", "sliced Wasserstein": published}
        )
    goals = []
    where = f"mixture {cell[0]}, {cell[1]}"
    if DEFAULT in tallies and cell in PUBLISHED:
        ours, theirs = tallies[DEFAULT].mean("distance"), float(PUBLISHED[cell][0].split()[0])
        goals.append(Goal(f"{where}: the default over MCGdiff", ours / theirs, 1.0, "at most"))
        goals.append(Goal(f"{where}: the default over the floor", ours / floor, 2.0, "at most"))
    many = f"{DEFAULT}, {MANY} steps"
    if many in tallies:
        goals.append(Goal(f"{where}: {many}, over the floor", tallies[many].mean("distance") / floor, 1.2, "at most"))
    return rows, goals


def operators(side: int) -> dict[str, tuple[Linear, Noise]]:
    """Returns the operators of the images, each with its noise: a mask that hides 70 % of the pixels, in noise, exact,
    and in noise of a map, a blur, and means over 4x4 blocks.
    """
    generator = torch.Generator().manual_seed(0)
    known = torch.rand(1, side, side, generator=generator) < 0.3
    low, high = map(math.log, MAP)
    levels = (low + (high - low) * torch.rand(1, 1, side, side, generator=generator)).exp()
    return {
        "mask": (Mask(known), NOISE),
        "mask, exact": (Mask(known), 0.0),
        "noise map": (Mask(known), levels),
        "blur": (GaussianBlur(1.5, "circular"), NOISE),
        "downsample": (Downsample(4), NOISE),
    }


def images(chosen: Namespace) -> tuple[Rows, list[Goal]]:
    """Returns the table of the fields and its goals."""
    prior = Field(chosen.side)
    generator = torch.Generator().manual_seed(0)
    shape = (1, chosen.side, chosen.side)
    paths = torch.randn(16, *shape, generator=generator).to(chosen.dtype)
    grid = measure(prior, paths, first=prior.schedule.log_snr_min, last=LAST_IMAGE)
    rows: Rows = []
    goals = []
    for where, (operator, noise) in operators(chosen.side).items():
        if chosen.operators and where not in chosen.operators:
            continue
        mapped = isinstance(noise, Tensor)
        known = Known(prior, operator, noise if isinstance(noise, Tensor) else max(noise, NEARLY_EXACT))
        entries: Contestants = {}
        for name, (method, steps) in contestants(1.0, masks=isinstance(operator, Mask)).items():
            if (name == "zero" and most(noise) == 0) or (mapped and not method.takes_maps):
                continue  # It needs noise, or that it is a number.
            entries |= {f"{name}, {count} steps": (method, count) for count in (steps, MANY)}
        for name, (method, steps) in tqdm(entries.items(), desc=where, disable=None):
            if chosen.only and name.partition(",")[0] not in chosen.only:
                continue
            chosen_grid = Karras() if isinstance(method, Learned) else grid
            figures = field_figures(prior, known, noise, method, chosen_grid(prior.schedule, steps), chosen)
            if figures is None:
                continue
            rows.append({"operator": where, "method": name, **figures})
            problem = restoration.Problem(operator, operator(torch.zeros(1, *shape)), noise)
            for chosen_by, learned, count in (("the default", False, MANY), ("learned", True, STEPS)):
                chooses = default(problem, learned=learned)
                if type(chooses) is type(method) and steps == count and isinstance(figures["coverage"], float):
                    what = f"{where}: coverage of {chosen_by} in {count} steps"
                    goals.append(Goal(what, figures["coverage"], 0.88))
                    goals.append(Goal(what, figures["coverage"], 0.92, "at most"))
    return rows, goals


def field_figures(
    prior: Field, known: Known, noise: Noise, method: Method, times: Tensor, chosen: Namespace
) -> dict[str, object] | None:
    """Returns the figures of a method over `chosen.images` observations, or None if it cannot take the operator."""
    tally = Tally()
    for seed in range(chosen.images):
        generator = torch.Generator().manual_seed(seed)
        x = prior.sample(1, generator)
        y = known.operator(x)
        y = y + noise * known.operator(torch.ones_like(x)).ne(0) * torch.randn(
            y.shape, generator=generator, dtype=y.dtype
        )
        start = torch.randn(DRAWS, *x.shape[1:], generator=generator, dtype=torch.float64).to(chosen.dtype)
        denoiser = CountingDenoiser(prior)
        try:
            with torch.no_grad():
                seen = restoration.Problem(known.operator, y.to(chosen.dtype), noise)
                restored = method(denoiser, seen, start, times, normal(generator))
        except InputError:
            return None
        tally.add(nfe=denoiser.nfe, backward=denoiser.backward, **moments(restored, known, y))
    coverage = tally.mean("coverage")
    return {
        "error of the mean": tally.mean("mean"),
        "variance": tally.mean("variance"),
        "coverage": coverage,
        "verdict": "over-confident" if coverage < 0.88 else "" if coverage <= 0.92 else "under-confident",
        "NFE": tally.mean("nfe"),
        "backward": tally.mean("backward"),
    }


def moments(restored: Particles, known: Known, y: Tensor) -> dict[str, float]:
    """Compares draws with the exact posterior, over the pixels that are judged (`Known.judged`).

    Returns "mean", the root of the mean square error of the mean in posterior standard deviations, less the part due to
    the finite number of draws and with the sign of the difference; "variance", the mean ratio of variances; and
    "coverage", the exact probability of the 90 % intervals.
    """
    mean, std = known.mean(y)[known.judged], known.std[known.judged]
    draws = restored.x.flatten(1).double()[:, known.judged]
    excess = float(((draws.mean(0) - mean) / std).square().mean()) - float((draws.var(0) / std.square()).mean()) / len(
        draws
    )
    ordered = ((draws - mean) / std).sort(0).values
    covered = torch.special.ndtr(ordered[-2]) - torch.special.ndtr(ordered[1])
    return {
        "mean": math.copysign(abs(excess) ** 0.5, excess),
        "variance": float((draws.var(0) / std.square()).mean()),
        "coverage": float(covered.mean()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = common.parser(__doc__, "posterior")
    options.add_argument("--seeds", type=int, default=20, help="problems of each mixture")
    options.add_argument("--dims", type=int, nargs="*", default=[8, 80, 800], help="dimensions of the mixtures, even")
    options.add_argument("--samples", type=int, default=SAMPLES, help="samples of each problem")
    options.add_argument("--images", type=int, default=10, help="observations of each operator; 0 for none")
    options.add_argument("--operators", nargs="*", default=[], help="operators of the images; by default all")
    options.add_argument("--side", type=int, default=32, help="side of the images in pixels")
    options.add_argument("--fewer", action="store_true", help="leave out the mixtures at 100 steps")
    options.add_argument("--only", nargs="*", default=[], help="methods; by default all")
    chosen = options.parse_args(arguments)
    chosen.dtype = torch.float32
    # At 800 dimensions a step of the particles allocates gigabytes.
    tune_malloc()
    tables: dict[str, Rows] = {}
    goals: list[Goal] = []
    if chosen.dims:
        tables[f"Mixtures, {STEPS} steps unless said"], found = mixtures(chosen)
        goals += found
    if chosen.images:
        tables[f"Fields of {chosen.side}x{chosen.side}"], found = images(chosen)
        goals += found
    common.finish(goals, tables, chosen.out, check=chosen.check, values="means over problems ± 1.96 standard errors")


if __name__ == "__main__":
    main()
