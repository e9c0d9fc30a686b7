"""The figures of the experiments: film strips of the forward process, trajectories of points, and bars."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from diffusion import figures, gaussian
from diffusion.denoiser import Rescaled
from diffusion.model import Model
from diffusion.model.likelihood import example_noise
from diffusion.model.model import FIRST_SEEN
from diffusion.schedules import VariancePreserving

FRAMES = 9
# The log-SNR above which noise is hardly visible.
SHOWN = 4.0
LIMIT = 2.5
ARROWS = 17
FORWARD = 1
ROWS = "forward process", "reverse process", "drift of the reverse mean"


def destruction(model: Model, x: Tensor, frames: int = FRAMES) -> list[Tensor]:
    """Returns the frames of one forward trajectory of each of x (B, *), which is in model units.

    The frames are x itself, states evenly spaced in log-SNR where a picture fades, and the end. They are variance
    preserving, α² + σ² = 1, and in units of the data.
    """
    vp, randn = VariancePreserving(model.denoiser.schedule), example_noise(0, FORWARD, 0, range(len(x)))
    end = torch.ones((), dtype=torch.float64)
    times = [*vp.time(torch.linspace(SHOWN, FIRST_SEEN, frames - 2)), end]
    clean = x.double()
    states = [gaussian.marginal(vp, clean, times[0]).sample(randn(clean))]
    for s, t in pairwise(times):
        states.append(gaussian.transition(vp, states[-1], s, t).sample(randn(clean)))
    return [model.spec.decode(state) for state in (clean, *states)]


def record(model: Model, x: Tensor, folder: Path, name: str) -> None:
    """Writes two film strips: NAME-forward.png of the forward process of x (B, *), which is in model units, and
    NAME-reverse.png of the reverse process of B samples.
    """
    strips = {
        "forward": destruction(model, x),
        "reverse": model.film(len(x), frames=FRAMES, label=model.in_turn(len(x))),
    }
    for direction, frames in strips.items():
        figures.save_png(figures.film(frames), folder / f"{name}-{direction}.png", {"step": model.step})


def trajectories(model: Model, x: Tensor, path: Path) -> Path:
    """Draws figure 1 of the paper for points x (B, 2).

    The rows are the forward process, the model's reverse process, and the drift of the mean of a reverse step. The
    columns are the clean end, log-SNR 0, and the noisy end.
    """
    vp, denoiser = VariancePreserving(model.denoiser.schedule), Rescaled(model.denoiser)
    walk = list(model.trajectory(len(x), steps=max(model.config.sampling.steps, model.film_steps)))
    times = torch.tensor([t for t, _ in walk], dtype=torch.float64)
    randn = example_noise(0, FORWARD, 0, range(len(x)))
    side = torch.linspace(-0.9 * LIMIT, 0.9 * LIMIT, ARROWS)
    at = torch.cartesian_prod(side, side)
    figure = Figure(figsize=(7.4, 7.4), dpi=130, layout="constrained")
    panels = figure.subplots(3, 3)
    targets = {"t = 0": 0.0, "t = T/2": float(vp.time(torch.zeros(()))), "t = T": 1.0}
    for (name, target), column in zip(targets.items(), panels.T, strict=True):
        place = int((times - target).abs().argmin())
        # No step starts at the clean end, so it shows the drift of the last step.
        t, s = times[min(place, len(times) - 2) :][:2]
        with torch.no_grad():
            drift = gaussian.posterior(vp, denoiser(at, t).mean, at, t, s).mean - at
        figures.scatter(column[0], gaussian.marginal(vp, x, times[place]).sample(randn(x)), LIMIT)
        figures.scatter(column[1], walk[place][1], LIMIT)
        figures.scatter(column[2], at[:0], LIMIT)
        column[2].quiver(*at.T, *drift.T, angles="xy", width=0.004)
        column[0].set_title(name)
    for axes, name in zip(panels[:, 0], ROWS, strict=True):
        axes.set_ylabel(name)
    return figures.save_png(figures.rendered(figure), path, {"step": model.step})


def bars(values: Mapping[str, float], ceiling: float, label: str) -> Image.Image:
    """Draws values by name as bars, beside a line at the ceiling that none can pass."""
    figure = Figure(figsize=(4.6, 0.5 + 0.42 * len(values)), dpi=130, layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh(list(values)[::-1], list(values.values())[::-1], color="gray")
    axes.bar_label(drawn, fmt="%.3f", padding=3)
    axes.axvline(ceiling, color="black", linestyle="--", linewidth=1)
    axes.set(xlabel=f"{label} (dashed: ceiling {ceiling:.3f})", xlim=(min(0.0, *values.values()), 1.15 * ceiling))
    return figures.rendered(figure)
