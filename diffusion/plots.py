"""Plots of numbers: over log-SNR, and of their distribution, saved as PNGs whose metadata have the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion import figures

Curve = Sequence[tuple[float, float]]
# What an axis of log-SNR says.
LOG_SNR = "log-SNR (noise on the left, clean on the right)"
# The share of the height of a plot that the label of a mark takes, and that of its width where labels turn to the left.
ROW, TURN = 0.075, 0.55


def plain(text: str) -> str:
    """Returns a text that somebody chose, such as a name, as plots show it: without formulas between dollars."""
    return text.replace("$", r"\$")


def loss_by_log_snr(curve: Curve, path: Path, step: int, marks: Mapping[str, float] | None = None) -> Path:
    """Plots the weighted loss against log-SNR, from the points (log-SNR, loss) of `curve`, with named `marks`.

    With the EDM parameterization and weighting, a network whose output is 0 has the loss 1.
    """
    figure, (axes,) = figures.blank(1, width=5.0)
    axes.plot([log_snr for log_snr, _ in curve], [value for _, value in curve], "o-", color="black", markersize=3)
    axes.set(
        xlabel=LOG_SNR,
        ylabel="loss",
        title=f"loss by log-SNR, step {step}",
    )
    axes.set_ylim(bottom=0)
    info = {"step": step, "log_snr": [list(point) for point in curve], **mark(axes, marks or {})}
    return figures.save_png(figures.rendered(figure), path, info)


def by_log_snr(
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    path: Path,
    unit: str,
    marks: Mapping[str, float] | None = None,
) -> Path:
    """Plots named curves of (log-SNR, value, standard error), with bands of two standard errors, and named `marks`.

    They show how much each log-SNR adds to the bound, and where training and held-out data differ: what is memorized.
    """
    figure, (axes,) = figures.blank(1, width=5.0)
    for (name, rows), style in zip(curves.items(), ("-", "--", ":", "-."), strict=False):
        log_snrs, values, errors = zip(*rows, strict=True)
        axes.plot(log_snrs, values, style, color="black", linewidth=1, label=plain(name))
        low, high = ([v + sign * 2 * e for v, e in zip(values, errors, strict=True)] for sign in (-1, 1))
        axes.fill_between(log_snrs, low, high, color="black", alpha=0.15, linewidth=0)
    axes.set(xlabel=LOG_SNR, ylabel=f"{unit} per unit of log-SNR")
    axes.set_title("the diffusion term by log-SNR")
    marked = mark(axes, marks or {})
    axes.legend(frameon=False)
    info = {"unit": unit, "curves": {k: [list(r) for r in v] for k, v in curves.items()}, **marked}
    return figures.save_png(figures.rendered(figure), path, info)


def mark(axes: Any, marks: Mapping[str, float]) -> dict[str, dict[str, float]]:  # noqa: ANN401, untyped axes
    """Marks named log-SNRs by thin vertical lines, and returns them as an entry of the metadata; empty without any.

    Each label has a row of its own above all curves, beside its line and on the side where there is room. Where a
    log-SNR lies outside of the axes, there is no line, and its label has an arrow at the edge.
    """
    if not marks:
        return {}
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    axes.set_ylim(bottom, bottom + (top - bottom) / (1 - ROW * len(marks)))
    axes.set_xlim(left, right)
    for row, (name, value) in enumerate(sorted(marks.items(), key=lambda each: each[1])):
        inside, place = left <= value <= right, (value - left) / (right - left)
        if inside:
            axes.axvline(value, color="black", linewidth=0.5, zorder=0)
        turned = place > TURN
        text = name if inside else f"{name} {value:.1f} →" if turned else f"← {name} {value:.1f}"
        axes.annotate(
            text,
            (min(max(place, 0.0), 1.0), 1 - ROW * (row + 0.5)),
            xycoords="axes fraction",
            xytext=(-3 if turned else 3, 0),
            textcoords="offset points",
            ha="right" if turned else "left",
            va="center",
            fontsize=6.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )
    return {"marks": dict(marks)}


def histogram(values: Sequence[float], path: Path, *, label: str, title: str) -> Path:
    """Plots the histogram and the mean of values, one for each example or for each path of an example."""
    figure, (axes,) = figures.blank(1, width=5.0)
    axes.hist(values, bins=min(50, max(5, len(values) // 8)), color="black", alpha=0.6)
    mean = sum(values) / len(values)
    axes.axvline(mean, color="black", linewidth=1, linestyle="--", label=f"mean {mean:.4g}")
    axes.set(xlabel=label, ylabel="count", title=plain(title))
    axes.legend(frameon=False)
    return figures.save_png(figures.rendered(figure), path, {"label": label, "mean": mean, "count": len(values)})


def by_depth(
    curves: Mapping[str, Sequence[float]], correlation: Sequence[float], limits: tuple[float, float], path: Path
) -> Path:
    """Plots named curves of factors by the number of a block, with the limits between which they should stay.

    Beside them stands the correlation of independent inputs.
    """
    figure, (left, right) = figures.blank(2, width=4.0)
    for (name, values), style in zip(curves.items(), ("-", "--", ":"), strict=True):
        left.plot(range(1, len(values) + 1), values, style, color="black", linewidth=1.2, label=name)
    left.axhspan(*limits, color="black", alpha=0.07, linewidth=0)
    left.set(xlabel="block", ylabel="factor", title="change over depth (band: trainable)", yscale="log")
    left.legend(frameon=False)
    right.plot(range(1, len(correlation) + 1), correlation, color="black", linewidth=1.2)
    right.set(xlabel="block", ylabel="correlation", title="two independent inputs", ylim=(-0.1, 1.05))
    shown = {**{name: [*values] for name, values in curves.items()}, "correlation": [*correlation]}
    return figures.save_png(figures.rendered(figure), path, {"curves": shown, "limits": [*limits]})
