"""The parts of a page about several runs, which stand side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from diffusion.reporting import sections, words
from diffusion.reporting.markup import Markup, element, joined, plain
from diffusion.reporting.run_folder import RunFolder
from diffusion.reporting.summary import summary

Named = tuple[str, RunFolder]
# The most keys that differ that are shown.
DIFFERENCES = 200


def names(paths: Sequence[Path]) -> list[str]:
    """Names that tell runs apart: those of their folders, or as much of their paths as that takes."""
    whole = [path.absolute() for path in paths]
    if len({path.name for path in whole}) == len(whole):
        return [plain(path.name, 80) for path in whole]
    common = os.path.commonpath(whole)
    return [plain(os.path.relpath(path, common), 80) for path in whole]


def head(runs: Sequence[RunFolder], now: float) -> Markup:
    """The headline: how many runs, and when this was written."""
    return element(
        "header",
        element("p", f"written {words.moment(now)}", class_="muted small"),
        element("h1", f"{len(runs)} runs side by side"),
        class_="report-head",
    )


def parts(runs: Sequence[Named], shares: sections.Shares) -> Markup:
    """All parts about several runs."""
    grids = [element("div", element("h3", name), sections.sheet(run, shares, beside=False)) for name, run in runs]
    real = sections.real_examples(runs[0][1], shares) if _learn_from_the_same(runs) else None
    beside = [*grids, element("div", element("h3", "what they learn from"), real) if real else None]
    drawn = [element("div", element("h3", name), sections.numbers_by_step(run)) for name, run in runs]
    levels = element("div", data_levels=True) if any(sections.levels(run) for _, run in runs) else None
    found = [
        sections.part("Numbers", "Bounds are comparable where the held-out examples are the same.", numbers(runs)),
        sections.part(
            "Curves",
            "The band is the 95 % interval of each measurement.",
            element("div", *drawn, data_curves=True, class_="charts"),
        ),
        sections.part(
            "Samples",
            "All runs go to the same step. Drag a picture, or use the arrow keys.",
            element("div", *beside, class_="beside"),
        ),
        sections.part("Loss by noise level", "Where each of them learns.", levels) if levels else None,
        sections.part("Where configurations differ", "What is not here is the same in all.", differences(runs)),
    ]
    return joined(found)


def _learn_from_the_same(runs: Sequence[Named]) -> bool:
    """Whether the data of all runs are the same."""
    first, *others = ((run.sources or {}).get("data", run.config.get("data")) for _, run in runs)
    return all(each == first for each in others)


def numbers(runs: Sequence[Named]) -> Markup:
    """A row of numbers for each run."""
    top = [element("th", "run", scope="col"), element("th", "state", scope="col")]
    top += [
        element("th", title, scope="col", class_="number")
        for title in ("held-out bound, 95 %", "step", "loss", "images/s", "training")
    ]
    rows = []
    for name, run in runs:
        known = summary(run)
        cells = [
            sections.bound(run),
            words.MISSING if known["step"] is None else f"{known['step']:,}",
            words.MISSING if known["loss"] is None else f"{known['loss']:.4g}",
            words.MISSING if known["images_per_s"] is None else f"{known['images_per_s']:,.0f}",
            words.duration(sections.trained_s(run)),
        ]
        row = [element("th", name, scope="row"), element("td", sections.state_of(run.state))]
        rows.append(element("tr", *row, [element("td", cell, class_="number") for cell in cells]))
    return element(
        "div",
        element("table", element("thead", element("tr", *top)), element("tbody", rows)),
        class_="table",
        tabindex=0,
    )


def differences(runs: Sequence[Named]) -> Markup:
    """The keys of the configurations that differ, with a column for each run."""
    flat = [
        {
            f"{section}.{key}": words.value(value)
            for section, values in run.config.items()
            for key, value in values.items()
        }
        for _, run in runs
    ]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if len({one.get(key) for one in flat}) > 1]
    if not keys:
        return element("p", "Their configurations are the same.", class_="muted")
    top = element("tr", element("th", "key", scope="col"), [element("th", name, scope="col") for name, _ in runs])
    rows = [
        element(
            "tr",
            element("th", plain(key, 80), scope="row", class_="key"),
            [element("td", plain(one.get(key, words.MISSING), 200)) for one in flat],
        )
        for key in keys[:DIFFERENCES]
    ]
    more = element("p", f"{len(keys) - DIFFERENCES:,} more differ.", class_="hint") if len(keys) > DIFFERENCES else None
    return joined(
        element("div", element("table", element("thead", top), element("tbody", rows)), class_="table", tabindex=0),
        more,
    )
