"""The parts of report.html about one run: what each shows, or what there is to do where it shows nothing yet."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusion.reporting import pictures, words
from diffusion.reporting.markup import Child, Markup, element, joined, plain
from diffusion.reporting.names import GAP_PICTURE, PREFIX, SAMPLES
from diffusion.reporting.run_folder import RunFolder
from diffusion.reporting.state import State
from diffusion.reporting.summary import bits, curves, summary, thinned

# The rows of the table that stands where a chart will be drawn.
ROWS = 12
# The last incidents that are shown, and the characters of each.
INCIDENTS, LINE = 200, 300


@dataclass(frozen=True)
class Shares:
    """How many `grids` of a run are kept, and the most characters of each `grid` and of each `other` picture."""

    grids: int
    grid: int
    other: int


def head(run: RunFolder, state: State, now: float) -> Markup:
    """The headline: what the run is, its state when this was written, and its numbers."""
    known, classes = summary(run), run.classes
    value, unit = words.interval(known["bits"])
    steps = f"of {known['steps']:,}" if known["steps"] else ""
    shown = [
        number(
            value,
            unit,
            "held-out bound, 95 % interval" if known["bits"] else "held-out bound: not measured",
        ),
        number(words.MISSING if known["step"] is None else f"{known['step']:,}", steps, "steps taken"),
        number(words.duration(trained_s(run)), "", "of training"),
        number(_rounded(known["images_per_s"]), "images/s", "speed, last measured"),
        number(_rounded(known["loss"]), "", "training loss, weighted"),
    ]
    if known["remembers"] is not None:
        shown.append(number(f"{known['remembers']:,.0f}", "", "step since which it remembers training examples"))
    incidents = len(run.incidents)
    notice = element(
        "p",
        element("a", f"{incidents:,} incident{'s' * (incidents > 1)}", href="#incidents"),
        " in this run.",
        class_="notice",
    )
    what = f"A diffusion model of {words.examples(run.shape, len(classes))}"
    names = f": {pictures.listed(classes)}." if classes else "."
    return element(
        "header",
        element(
            "p", state_of(state), element("span", f" when this was written, {words.moment(now)}", class_="muted small")
        ),
        element("h1", plain(run.name, 120)),
        element("p", what, names, class_="what"),
        element("div", *shown, class_="numbers"),
        notice if incidents else None,
        class_="report-head",
    )


def state_of(state: State) -> Markup:
    """A state as a word with a mark."""
    return element("span", state, class_=f"state {state.partition(' ')[0]}")


def number(value: str, unit: str, what: str) -> Markup:
    """A measured number: large, with its unit beside it and what it is below."""
    unit_of = element("span", f" {unit}", class_="unit") if unit else None
    return element(
        "div",
        element("span", value, unit_of, class_="value"),
        element("span", what, class_="what"),
        class_="figure-number",
    )


def part(title: str, note: str, *shown: Child, id_: str | None = None) -> Markup:
    """A part of the page: its title and what it is in the margin, and what it shows."""
    margin = element("div", element("h2", title), element("p", note) if note else None, class_="margin")
    return element("section", margin, element("div", *shown, class_="shown"), class_="section", id=id_)


def parts(run: RunFolder, shares: Shares, called: str) -> Markup:
    """All parts about a run, which commands call `called`."""
    found = [
        part("Samples", "The same noise at every step. Drag the picture, or use the arrow keys.", sheet(run, shares)),
        part(
            "Curves",
            "The band is the 95 % interval of each measurement.",
            element("div", numbers_by_step(run), data_curves=True, class_="charts"),
        ),
        *_pictures(run, shares),
        part(
            "Sample from it", "The seed and the number of an image alone decide what it shows.", commands(run, called)
        ),
        part("Configuration", "", configuration(run.config)),
        part(
            "Machine",
            "What the run was last trained on.",
            values(run.machine) if run.machine else element("p", "Not recorded.", class_="muted"),
        ),
        part(
            "Incidents",
            "Skipped steps, going back, files that were left out, examples that are remembered.",
            incident_list(run),
            id_="incidents",
        ),
    ]
    return joined(found)


def sheet(run: RunFolder, shares: Shares, *, beside: bool = True) -> Markup:
    """The kept grids in order, and the real examples `beside` them."""
    every = run.grids
    # `run.grid` would list the folder for each of them.
    place = {step: run.path / SAMPLES / f"{PREFIX}{step:08d}.png" for step in pictures.spread(every, shares.grids)}
    kept = [(step, pictures.embedded(path, shares.grid)) for step, path in place.items()]
    last = pictures.embedded(run.picture("samples.png"), shares.other)
    shown = [(step, picture) for step, picture in kept if picture is not None]
    if not shown and last is not None:
        return _figure(last, "samples at the end")
    if not shown:
        return empty("No samples yet", "Training draws a grid of them every report.samples steps.")
    items = [element("li", _figure(picture, f"step {step:,}", step)) for step, picture in shown]
    real = real_examples(run, shares) if beside else None
    left_out = len(every) - len(shown)
    note = element(
        "p", f"{len(shown)} of {len(every):,} grids: the first, the last, and between them ever fewer.", class_="hint"
    )
    inner = element(
        "div", element("ol", items), real, class_="sheet", data_sheet=f"Samples of {plain(run.name, 80)} by step"
    )
    return joined(inner, note if left_out else None)


def real_examples(run: RunFolder, shares: Shares) -> Markup | None:
    """The picture of real examples, None without one."""
    real = pictures.embedded(run.picture("real.png"), shares.other)
    return None if real is None else _figure(real, "real examples", class_="real")


def _figure(picture: pictures.Picture, caption: str, step: int | None = None, class_: str | None = None) -> Markup:
    image = element("img", src=picture.url, width=picture.width, height=picture.height, alt=caption, data_step=step)
    return element("figure", image, element("figcaption", caption), class_=class_)


def numbers_by_step(run: RunFolder) -> Markup:
    """The held-out bounds by step as a table, thinned, for a reader without the script."""
    drawn = curves(run)
    bound = drawn["bits"]
    halves = dict(zip(bound["x"], bound["half"], strict=True))
    points = thinned([*zip(bound["x"], bound["y"], strict=True)], ROWS * 5)[-ROWS * 5 :]
    rows = [
        (f"{x:,}", words.interval({"value": y, "half": halves[x], "unit": ""})[0]) for x, y in points if y is not None
    ]
    if not rows:
        loss = thinned([*zip(drawn["loss"]["x"], drawn["loss"]["y"], strict=True)], ROWS * 5)
        rows = [(f"{x:,}", f"{y:.4g}") for x, y in loss if y is not None]
        title = "training loss"
    else:
        title = f"held-out bound ({bound['unit']})"
    if not rows:
        return empty("Nothing measured yet", "The first numbers come after report.log steps.")
    top = element("tr", element("th", "step", scope="col"), element("th", title, scope="col", class_="number"))
    body = [element("tr", element("td", step), element("td", value, class_="number")) for step, value in rows]
    return element("div", element("table", element("thead", top), element("tbody", body)), class_="table")


def _pictures(run: RunFolder, shares: Shares) -> Iterator[Markup]:
    """The film, the restorations, and by noise level the loss and what is remembered, as far as they are there."""
    film, restored, loss, gap = (
        pictures.embedded(run.picture(name), shares.other)
        for name in ("film.png", "restoration.png", "loss_by_log_snr.png", GAP_PICTURE)
    )
    if film is not None:
        note = "The reverse trajectory: each row is one sample, on its way from noise."
        yield part("Film", note, _strip(film, "From noise to samples", ("noise", "samples")))
    if restored is not None:
        note = (
            "Held-out examples, damaged and restored several times. Where restorations differ, the model does not know."
        )
        yield part("Restorations", note, _strip(restored, "Restorations of held-out examples"))
    if loss is not None:
        step = pictures.facts(run.picture("loss_by_log_snr.png")).get("step")
        when = f" Step {step:,}." if isinstance(step, int) else ""
        note = f"Noise on the left, clean images on the right.{when}"
        yield part(
            "Loss by noise level", note, element("div", _strip(loss, "Loss by log-SNR"), data_levels=bool(levels(run)))
        )
    if gap is not None:
        note = "The bound on held-out and on training examples, and their difference: what the model remembers."
        yield part("Remembered, by noise level", note, _strip(gap, "Bounds by log-SNR"))


def _strip(picture: pictures.Picture, alt: str, ends: Sequence[str] = ()) -> Markup:
    """A picture at its own size, which scrolls sideways where it is wider than the page."""
    image = element("img", src=picture.url, width=picture.width, height=picture.height, alt=alt)
    direction = element("figcaption", [element("span", end) for end in ends], class_="direction") if ends else None
    return element("div", element("figure", image, direction), class_="strip", tabindex=0, role="group", aria_label=alt)


def levels(run: RunFolder) -> list[dict[str, Any]]:
    """The loss by log-SNR as a series of a chart, from the metadata of its picture; none without them."""
    rows = pictures.facts(run.picture("loss_by_log_snr.png")).get("log_snr")
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 2 for row in rows):
        return []
    points = [(x, y) for x, y in rows if isinstance(x, int | float) and isinstance(y, int | float)]
    return (
        [{"name": plain(run.name, 80), "points": {"x": [x for x, _ in points], "y": [y for _, y in points]}}]
        if points
        else []
    )


def marks(run: RunFolder) -> list[dict[str, Any]]:
    """The named log-SNRs that the plot of the loss marks, from the metadata of its picture; none without them."""
    found = pictures.facts(run.picture("loss_by_log_snr.png")).get("marks")
    rows = found.items() if isinstance(found, dict) else ()
    return [{"name": plain(name, 80), "at": at} for name, at in rows if isinstance(at, int | float)]


def commands(run: RunFolder, called: str) -> Markup:
    """What to type to use the model."""
    if not run.has_model:
        return empty("There are no weights yet", "The first checkpoint comes after report.checkpoint steps.")
    name, classes = shlex.quote(plain(called)), run.classes
    label = f" --label {shlex.quote(plain(classes[0], 60))}" if classes else ""
    lines = {
        "Draw 64 images": f"diffusion sample {name} --n 64 --seed 0",
        "Of one class": f"diffusion sample {name} --n 64 --seed 0{label}" if classes else "",
        "Fill what a mask shows black": f"diffusion inpaint {name} photo.png --mask mask.png --n 8"
        if len(run.shape) == 3
        else "",
        "Measure it on its held-out examples": f"diffusion evaluate {name}",
        "Look at it in a browser": f"diffusion page {name}",
        "In Python": f"import diffusion; images = diffusion.load({plain(called)!r}).sample(64, seed=0)",
    }
    shown = [element("div", element("p", what), code(line)) for what, line in lines.items() if line]
    return element("div", *shown, class_="commands")


def code(line: str) -> Markup:
    """A command to copy."""
    return element("div", element("code", line), class_="code-line")


def empty(title: str, text: str) -> Markup:
    """What is missing, and when it comes."""
    return element("div", element("p", title, class_="empty-title"), element("p", text), class_="empty")


def configuration(config: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Every value of the configuration, by section."""
    if not config:
        return element("p", "config.json cannot be read.", class_="muted")
    count = sum(map(len, config.values()))
    shown = [element("section", element("h3", plain(name, 80)), values(each)) for name, each in config.items() if each]
    return element(
        "details",
        element("summary", f"{count} values in {len(shown)} sections"),
        element("div", *shown, class_="configuration"),
    )


def values(of: Mapping[str, Any]) -> Markup:
    """Names and their values."""
    pairs = (
        [element("dt", plain(name, 80)), element("dd", plain(words.value(each)))] for name, each in [*of.items()][:100]
    )
    return element("dl", *pairs, class_="values")


def incident_list(run: RunFolder) -> Markup:
    """The last incidents, a line each."""
    lines = run.incidents
    if not lines:
        return element("p", "None: no step was skipped, nothing was taken back.", class_="muted")
    more = element("p", f"The last {INCIDENTS} of {len(lines):,}.", class_="hint") if len(lines) > INCIDENTS else None
    shown = [element("li", plain(line, LINE)) for line in lines[-INCIDENTS:]]
    return joined(more, element("ul", shown, class_="incidents"))


def trained_s(run: RunFolder) -> float | None:
    """The seconds that the logged steps took, by their speeds; None where none was logged."""
    batch, last, total = run.option("training", "batch"), 0, 0.0
    speeds: Sequence[Mapping[str, Any]] = [row for row in run.rows if isinstance(row.get("images_per_s"), int | float)]
    if not isinstance(batch, int) or not speeds:
        return None
    for row in speeds:
        if row["images_per_s"] > 0:
            total += max(0, row["step"] - last) * batch / row["images_per_s"]
        last = row["step"]
    return total


def _rounded(value: float | None) -> str:
    return words.MISSING if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def bound(run: RunFolder) -> str:
    """The newest held-out bound with its interval and unit."""
    return " ".join(words.interval(bits(run))).strip()
