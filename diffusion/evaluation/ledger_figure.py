"""The figure of a ledger: rates by log-SNR, the reverse trajectory, and the work of paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion import figures
from diffusion.plots import LOG_SNR, mark, plain

Rows = Sequence[tuple[float, float, float]]
# The styles and colors of rates, and what they are called.
RATES = {
    "information": ("-", "black", "information lost"),
    "heat": (":", "black", "heat"),
    "production": ("--", "black", "entropy production, learned"),
    "forward": ("--", "gray", "entropy production, forward"),
    "difference": ("-.", "gray", "their difference"),
}
# The most bins of a histogram, the values in one on average, and the sizes of letters in titles and in legends.
BINS, IN_A_BIN = 40, 8
TITLE, LEGEND = 9, 7
# How much higher the panel of rates is than its curves, for the legend.
HEADROOM = 1.35


def draw(
    path: Path,
    curves: Mapping[str, Rows],
    work: Mapping[str, Sequence[float]],
    unit: str,
    examples: str,
    marks: Mapping[str, float] | None = None,
) -> Path:
    """Draws the curves of a ledger, with named `marks`, and the work of its paths, if there is any, into a PNG.

    Its metadata have all numbers that are drawn.
    """
    figure, axes = figures.blank(2 + bool(work), width=3.6)
    _rates(axes[0], curves, unit, examples)
    _reverse(axes[1], curves, unit)
    marked: dict[str, Any] = {}
    for panel in axes[:2]:
        marked |= mark(panel, marks or {})
        _finish(panel)
    if work:
        _work(axes[2], work)
    info = {"unit": unit, "curves": {name: [list(row) for row in rows] for name, rows in curves.items()}, **marked}
    return figures.save_png(figures.rendered(figure), path, {**info, "work": {k: list(v) for k, v in work.items()}})


def _rates(axes: Any, curves: Mapping[str, Rows], unit: str, examples: str) -> None:  # noqa: ANN401, untyped
    """Rates per unit of falling log-SNR, with bands of two standard errors."""
    for name, (style, color, label) in RATES.items():
        if name not in curves:
            continue
        log_snrs, values, errors = zip(*curves[name], strict=True)
        axes.plot(log_snrs, values, style, color=color, linewidth=1, label=label)
        low, high = ([v + sign * 2 * e for v, e in zip(values, errors, strict=True)] for sign in (-1, 1))
        axes.fill_between(log_snrs, low, high, color=color, alpha=0.15, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.4)
    axes.set(xlabel=LOG_SNR, ylabel=f"{unit} per unit of log-SNR", title=f"the diffusion of {plain(examples)} examples")
    low, high = axes.get_ylim()
    axes.set_ylim(top=low + HEADROOM * (high - low))


def _reverse(axes: Any, curves: Mapping[str, Rows], unit: str) -> None:  # noqa: ANN401, matplotlib is untyped
    """What has happened since the noisy end: the entropy of x_t falls, the total that is produced grows."""
    log_snrs, entropy, _ = zip(*curves["entropy"], strict=True)
    _, produced, _ = zip(*curves["produced"], strict=True)
    system = [value - entropy[0] for value in entropy]
    axes.plot(log_snrs, produced, "--", color="black", linewidth=1, label="produced in all")
    axes.plot(log_snrs, system, "-", color="black", linewidth=1, label="entropy of $x_t$")
    bath = [total - own for total, own in zip(produced, system, strict=True)]
    axes.plot(log_snrs, bath, ":", color="black", linewidth=1, label="given to the surroundings")
    axes.axhline(0, color="black", linewidth=0.4)
    axes.set(xlabel=LOG_SNR, ylabel=f"{unit} since the noisy end", title="along the reverse trajectory")


def _work(axes: Any, work: Mapping[str, Sequence[float]]) -> None:  # noqa: ANN401, matplotlib is untyped
    """Histograms of the work of paths above the free energy, in both directions where they cross."""
    names = {"dissipated": "forward, of examples", "forward": "forward, of samples", "reverse": "reverse, of samples"}
    values = [value for each in work.values() for value in each]
    low, high = min(values), max(values)
    bins = min(BINS, max(IN_A_BIN, min(map(len, work.values())) // IN_A_BIN))
    edges = [low + i * (high - low) / bins for i in range(bins + 1)] if high > low else bins
    for (name, each), style in zip(work.items(), ("-", "--", ":"), strict=False):
        axes.hist(each, bins=edges, histtype="step", color="black", linestyle=style, density=True, label=names[name])
    axes.axvline(0, color="black", linewidth=0.4)
    axes.set(xlabel="work above the free energy, nats", ylabel="density", title="the work of paths")
    _finish(axes)


def _finish(axes: Any) -> None:  # noqa: ANN401, matplotlib is untyped
    axes.title.set_fontsize(TITLE)
    # Lines of marks pass behind it.
    axes.legend(fontsize=LEGEND, edgecolor="none", framealpha=0.9)
