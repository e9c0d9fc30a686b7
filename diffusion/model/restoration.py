"""Restorations by a trained model: n samples of an example u given y = A(u) + N(0, noise²), all in the units of the
data, and how they came about.

The model's values are x = (u - m)/s. With A(m) for an example that is m everywhere, what was seen of x is

    (y - A(m))/s = (A(m + s x) - A(m))/s + N(0, (noise/s)²)

whose operator is A itself where A is linear (`Observation.standardized`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffusion import distributed
from diffusion.data import DataSpec
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import InputError, require
from diffusion.operators import Identity, Mask, Operator
from diffusion.randomness import ExampleNoise, example_seed
from diffusion.restoration import METHODS, Method, Observation, default, statistics, windows
from diffusion.restoration import restore as draw
from diffusion.restoration.counting import CountingDenoiser
from diffusion.restoration.posterior import Isotropic, Posterior
from diffusion.samplers import Sampler

AUTO = "auto"
# Steps of a restoration, which guidance by y bends more than the path of a sample is bent.
RESTORATION_STEPS = 32


@dataclass(frozen=True)
class Diagnostics:
    """How restorations came about.

    `nfe` of the denoiser and `backward` passes through it are those of a batch, on average, each of as many `windows`
    as cover what is restored; `seconds` those of all. `residual` is the root mean square of y - A(u): in units of the
    noise, about 1 for samples of the posterior, or in those of the data without noise. None of what a method does not
    know: `log_evidence`, log p(y) in nats, the density of y in its own units, if all of y was looked at;
    `relative_ess`, the least share of effective particles on the way, (Σw)²/(N Σw²); `ancestors`, how many of the first
    particles have descendants among the samples.
    """

    method: Method
    nfe: float
    backward: float
    seconds: float
    residual: float
    windows: int = 1
    log_evidence: float | None = None
    relative_ess: float | None = None
    ancestors: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them: the method by its name, and with its options as Python writes them."""
        return {**vars(self), "method": self.method.name, "options": str(self.method)}


@dataclass(frozen=True)
class Restoration:
    """Restorations of one example: `samples` (n, *) in the units of the data, on the CPU, and their diagnostics."""

    samples: Tensor
    diagnostics: Diagnostics

    @property
    def mean(self) -> Tensor:
        """(C, H, W) or (D,)."""
        return self.samples.mean(0)

    @property
    def std(self) -> Tensor:
        """The standard deviation by pixel, (C, H, W) or (D,); 0 for a single sample and wherever all are the same."""
        return self.samples.std(0, correction=min(1, len(self.samples) - 1))

    def interval(self, confidence: float = 0.9) -> tuple[Tensor, Tensor]:
        """The bounds by pixel that hold that share of all restorations, (C, H, W) or (D,) each, if there are enough
        (`restoration.statistics.interval`).
        """
        return statistics.interval(self.samples, confidence=confidence)

    def quantile(self, q: float | Sequence[float]) -> Tensor:
        """The quantiles by pixel, (*) for one q in [0, 1] and (Q, *) for several, linear between samples.

        Raises InputError for other q.
        """
        places = torch.as_tensor(q, dtype=self.samples.dtype)
        require(((places >= 0) & (places <= 1)).all(), "q", "in [0, 1]", q)
        return self.samples.quantile(places, dim=0)


def shape_of(size: Sequence[int] | None, spec: DataSpec) -> tuple[int, ...]:
    """The shape of examples of a size, (H, W) of images, or without one of those that the model was trained on."""
    given = spec.shape[1:] if size is None else tuple(size) if isinstance(size, Sequence) else (size,)
    fits = len(given) == len(spec.shape) - 1 and all(isinstance(side, int) and side >= 1 for side in given)
    rule = "(height, width) in pixels" if spec.is_image else "left out for points"
    require(fits, "size", rule, size)
    return spec.shape[0], *given


def observation(y: Tensor, operator: Operator, noise: float, whole: tuple[int, ...]) -> Observation:
    """y (*), in the units of the data, of an example of a shape. Raises InputError for what `Model.restore` does not
    take.
    """
    # Of a mask it may have been given as `image`, to `Model.inpaint`.
    name, hides = ("image, or y", " where known") if isinstance(operator, Mask) else ("y", "")
    require(0 <= noise < math.inf, "noise", "finite, 0 or more", noise)
    like = torch.zeros(1, *whole)
    shape = tuple(_seen(operator, like).shape[1:])
    rule = f"of the shape {shape} that the operator makes of {whole}"
    require(tuple(y.shape) == shape, "y", rule, tuple(y.shape))
    require(y.is_floating_point(), name, "floating point, white as 1 in images (divide bytes by 255)", y.dtype)
    given = y[None].detach().cpu().float()
    # What a mask hides is not looked at: it may hold anything.
    seen = Observation(operator, operator(given) if isinstance(operator, Mask) else given, noise)
    bad = int((~seen.y.isfinite()).sum())
    require(not bad, name, f"finite{hides}", f"NaN or infinity in {bad} of {y.numel()} values")
    if not isinstance(operator, Mask):  # Of which y was just made.
        seen.check(like)
    return seen


def _seen(operator: Operator, x: Tensor) -> Tensor:
    try:
        return operator(x)
    except InputError as error:
        if not isinstance(operator, Mask):
            raise
        # So it is called where it was given, to `Model.inpaint` as to the mask.
        raise InputError(f"known, the {error}") from error


def choose(method: str | Method, sampler: Sampler | None, seen: Observation) -> Method:
    """The method of that name, with another sampler than its own if one is given."""
    if isinstance(method, str):
        require(method in (AUTO, *METHODS), "method", f"one of {', '.join((AUTO, *METHODS))}", repr(method))
        method = default(seen) if method == AUTO else METHODS[method]()
    return method if sampler is None else method.with_sampler(sampler)


def heaviest(denoiser: AnyDenoiser, method: Method) -> AnyDenoiser:
    """What takes as much memory in a call as the method does."""
    return Posterior(denoiser, Identity(), torch.zeros(()), 1.0, Isotropic()) if method.differentiates else denoiser


def restore(
    denoiser: AnyDenoiser,
    seen: Observation,
    method: Method,
    times: Tensor,
    spec: DataSpec,
    device: torch.device,
    *,
    shape: tuple[int, ...],
    n: int,
    seed: int,
    label: Tensor | None,
    batch: int,
    shared: bool,
    progress: bool,
) -> Restoration:
    """n restorations of examples of that shape on a grid of times, of what was seen in the units of the data. `label`:
    (1,) int64. Of the network's own examples a `batch` is taken at once.

    Raises FloatingPointError, in all processes, for restorations that are not finite.
    """
    start = time.perf_counter()
    std, window = spec.std / spec.top, spec.shape[1:]
    place, size, local = windows.near(seen, window, shape[1:])
    inner = local.standardized(spec.mean / spec.top, std, torch.zeros(1, shape[0], *size, device=device))
    fitted = windows.fitted(denoiser, window, inner, size, batch=batch)
    like = torch.zeros(1, shape[0], *fitted.size, device=device)
    runs = division(n, max(1, batch * math.prod(window) // math.prod(fitted.size)), method, shared=shared)
    parts, rows = [torch.zeros(0, *shape)], [torch.zeros(0, 5, dtype=torch.float64)]
    with tqdm(total=len(runs) * (len(times) - 1), desc="restoring", unit="step", disable=not progress) as bar:
        for done, numbers in enumerate(runs):
            counted = CountingDenoiser(fitted.denoiser, _advance(bar, done, times))
            randn = ExampleNoise([example_seed(seed, 0, number) for number in numbers])
            noise = randn(like.expand(len(numbers), *like.shape[1:]))
            found = draw(counted, fitted.seen, noise, times, method=method, label=label, randn=randn)
            # Decoding would clamp infinity to white.
            x = torch.where(found.x.isfinite(), found.x, torch.nan)
            parts.append(kept(seen, spec.decode(fitted.crop(x)).cpu(), place))
            least = float(found.relative_ess.min()) if len(found.relative_ess) else math.nan
            evidence = float(found.log_evidence) - seen.compact.y.numel() * math.log(std)
            row = [counted.nfe, counted.backward, evidence, least, found.ancestors]
            rows.append(torch.tensor([row], dtype=torch.float64))
        bar.update(bar.total - bar.n)
    samples, table = torch.cat(parts), torch.cat(rows)
    if shared:
        samples, table = distributed.gather(samples), distributed.gather(table)
    require_finite(samples, method)
    nfe, backward, evidence, least, ancestors = table.mean(0).tolist()
    weighted = not method.independent
    return Restoration(
        samples,
        Diagnostics(
            method,
            nfe,
            backward,
            time.perf_counter() - start,
            float(seen.residual(samples)) / (seen.noise or 1.0),
            fitted.windows,
            evidence if weighted and size == shape[1:] and math.isfinite(evidence) else None,
            least if weighted else None,
            int(ancestors) if weighted else None,
        ),
    )


def require_finite(samples: Tensor, method: Method) -> None:
    """Raises FloatingPointError that says how many of the restorations (n, *) by a method are not finite."""
    bad = int((~samples.isfinite()).flatten(1).any(1).sum())
    if bad:
        raise FloatingPointError(
            f"method: {method.name} gave {bad} of {len(samples)} restorations that are not finite; take more steps, "
            "more noise or another method"
        )


def division(n: int, batch: int, method: Method, *, shared: bool) -> list[range]:
    """The numbers of the restorations that this process draws, at most `batch` at once where they are independent;
    else all at once, in the main process.
    """
    if method.independent:
        return distributed.batches(n, batch, shared=shared)
    return [range(n)] if distributed.is_main() or not shared else []


def kept(seen: Observation, samples: Tensor, place: windows.Place) -> Tensor:
    """Whole samples (n, *) of samples of the part at `place`: what a mask shows without noise is as it is."""
    if seen.noise or not isinstance(seen.operator, Mask):
        return samples
    whole = seen.y.repeat(len(samples), *[1] * (seen.y.ndim - 1))
    whole[place] = samples
    return torch.where(seen.operator.known.cpu(), seen.y, whole)


def _advance(bar: tqdm[Any], done: int, times: Tensor) -> Callable[[Tensor], None]:
    """What moves a bar to the step that a time belongs to, after so many runs along all times."""
    steps, later = len(times) - 1, times.cpu().flip(0)

    def advance(t: Tensor) -> None:
        passed = steps - int(torch.searchsorted(later, t.detach().cpu().double().max()))
        bar.update(max(0, done * steps + passed - bar.n))

    return advance
