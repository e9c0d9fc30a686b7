"""Measures how soon and how smoothly a mask is drawn on a large photograph, in the browser that the page is made for,
how soon a new number and a new grid of a training are seen, and how long the page takes to look whether any of hundreds
of runs has changed, which it does every second.

    python -m benchmarks.page RUN [--size 4000x3000] [--ratio 1] [--runs 300] [--out FILE] [--check]

A photograph of the size is made and dropped on the page of RUN, which the command `diffusion page` serves. The figures
are the seconds until a first stroke is seen, the times between frames while strokes are drawn, near and far, and how
many of thirty strokes are undone. Chromium is that of CHROMIUM, or /usr/bin/chromium; it draws without a GPU. The runs
are copies of RUN by hard links; a row is written to the numbers of one of them before each look.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from benchmarks import common
from benchmarks.common import Goal, Row
from diffusion.page.site import Site
from diffusion.reporting.names import METRICS, SAMPLES

FIRST_S, FRAME_MS, UNDONE, LIVE_S = 2.0, 50.0, 30, 5.0
LOOKS, LOOK_MS = 20, 100.0
# Notes the milliseconds between frames.
NOTES = """
window.frames_ms = [];
let last = 0;
const note = (now) => { if (last) window.frames_ms.push(now - last); last = now; requestAnimationFrame(note); };
requestAnimationFrame(note);
"""
SHOWN = "() => new Promise((seen) => requestAnimationFrame(() => requestAnimationFrame(seen)))"


@dataclass(frozen=True)
class Found:
    """The seconds until a first stroke was seen, the milliseconds between frames by what was done, and how many strokes
    were undone.
    """

    first: float
    frames: dict[str, list[float]]
    undone: int


def photograph(path: Path, size: tuple[int, int]) -> Path:
    """Writes a photograph of a size, of smooth colors with grain."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    grain = np.random.default_rng(0).normal(0, 6, (height, width))
    colors = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], 2) + grain[:, :, None]
    Image.fromarray(colors.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return path


@contextmanager
def served(run: Path) -> Iterator[str]:
    """Serves the page of a run, and yields the address of its view."""
    command = [sys.executable, "-m", "diffusion", "page", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"{process.stdout.readline().strip()}#/run/{run.resolve().name}"
        finally:
            process.send_signal(signal.SIGINT)


@contextmanager
def window(ratio: float = 1.0) -> Iterator[Page]:
    """Opens a window of a browser, at so many pixels of the screen per pixel of the page."""
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1280, "height": 900}, device_scale_factor=ratio)
        browser.close()


def measured(address: str, path: Path, ratio: float) -> Found:
    """Draws on a photograph in the view of inpainting of a run, whose view is at an address."""
    with window(ratio) as page:
        page.add_init_script(NOTES)
        page.goto(f"{address}/inpaint")
        page.locator(".thumb").first.wait_for()
        begun = time.perf_counter()
        page.locator(".drop input").set_input_files(path)
        box = page.locator(".stage canvas").last.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.4
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 9, y + 9)
        page.mouse.up()
        page.evaluate(SHOWN)
        first = time.perf_counter() - begun
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(1000)
        frames = {"drawing": frames_during(page, lambda: scribble(page, x, y))}
        page.mouse.wheel(0, -900)
        page.wait_for_timeout(500)
        frames["drawing near"] = frames_during(page, lambda: scribble(page, x, y))
        undone = undo(page, x, y)
    return Found(first, frames, undone)


def live(run: Path, folder: Path) -> float:
    """Returns the seconds until a loss and a grid of samples that are added to a copy of a run are seen in its view."""
    grown = Path(shutil.copytree(run, folder / run.resolve().name))
    grid = max((grown / SAMPLES).glob("*.png"))
    with served(grown) as address, window() as page:
        page.goto(address)
        page.locator(".scrubber-stage img").wait_for()
        page.wait_for_load_state("load")
        page.wait_for_timeout(2000)
        begun = time.perf_counter()
        shutil.copy(grid, grid.with_name("step-99999999.png"))
        with (grown / METRICS).open("a") as file:
            file.write('{"step": 99999999, "loss": 0.03125}\n')
        expect(page.locator("dl.facts")).to_contain_text("0.03125", timeout=60_000)
        expect(page.locator(".scrubber-stage figcaption")).to_have_text("step 99,999,999", timeout=60_000)
        return time.perf_counter() - begun


def scribble(page: Page, x: float, y: float) -> None:
    """Draws a wave of two seconds."""
    page.mouse.move(x, y)
    page.mouse.down()
    for number in range(120):
        page.mouse.move(x + 2 * number, y + 60 * math.sin(number / 8))
        page.wait_for_timeout(12)
    page.mouse.up()


def frames_during(page: Page, action: Callable[[], None]) -> list[float]:
    """Returns the milliseconds between the frames of an action."""
    page.evaluate("() => void (window.frames_ms.length = 0)")
    action()
    return [float(ms) for ms in page.evaluate("() => window.frames_ms")]


def undo(page: Page, x: float, y: float) -> int:
    """Makes thirty strokes, takes them back, and returns how many times that changed what is hidden."""
    page.keyboard.press("x")
    for number in range(UNDONE):
        page.mouse.click(x + 4 * number, y)
    counts = []
    for _ in range(UNDONE):
        page.wait_for_timeout(400)
        counts.append(page.locator(".told").inner_text())
        page.keyboard.press("z")
    page.wait_for_timeout(400)
    counts.append(page.locator(".told").inner_text())
    return sum(before != after for before, after in itertools.pairwise(counts))


def looks(run: Path, folder: Path, count: int) -> list[float]:
    """Returns the milliseconds of looks at so many copies of a run, the first of which reads all of them."""
    for number in range(count):
        shutil.copytree(run, folder / f"run-{number:04d}", copy_function=os.link)
    grows = folder / "run-0000" / METRICS
    grows.unlink()
    shutil.copy(run / METRICS, grows)
    site, taken = Site(folder), []
    for number in range(1 + LOOKS):
        with grows.open("a") as file:
            file.write(f'{{"step": {10**6 + number}, "loss": 1.0}}\n')
        begun = time.perf_counter()
        found = site.summaries()
        taken.append(1000 * (time.perf_counter() - begun))
        assert len(found) == count and found["run-0000"]["step"] == 10**6 + number
    return taken


def main() -> None:
    parser = common.parser(__doc__, "page")
    parser.add_argument("run", type=Path, help="run of a model of images")
    parser.add_argument("--size", type=_size, default=(4000, 3000), help="of the photograph, WIDTHxHEIGHT")
    parser.add_argument("--ratio", type=float, default=1.0, help="pixels of the screen per pixel of the page")
    parser.add_argument("--runs", type=int, default=300, help="how many copies of the run are looked at")
    options = parser.parse_args()
    # Hard links do not lead to another file system.
    with tempfile.TemporaryDirectory(dir=options.run.resolve().parent) as name:
        first, *later = looks(options.run, Path(name), options.runs)
    with tempfile.TemporaryDirectory() as name:
        seen = live(options.run, Path(name))
    with tempfile.TemporaryDirectory() as name, served(options.run) as address:
        found = measured(address, photograph(Path(name) / "photograph.jpg", options.size), options.ratio)
    rows: list[Row] = [
        {"what": what, "frames": len(ms), "median": statistics.median(ms), "longest": max(ms), "over 50 ms": slow(ms)}
        for what, ms in found.frames.items()
    ]
    goals = [
        Goal("seconds until the first stroke is seen", found.first, FIRST_S, "at most"),
        *(Goal(f"frames over 50 ms while {what}", slow(ms), 0, "at most") for what, ms in found.frames.items()),
        Goal("strokes undone", found.undone, UNDONE),
        Goal("seconds until a new loss and a new grid are seen", seen, LIVE_S, "at most"),
        Goal(f"milliseconds of a look at {options.runs} runs", statistics.median(later), LOOK_MS, "at most"),
    ]
    looked: list[Row] = [
        {"runs": options.runs, "first": first, "median": statistics.median(later), "longest": max(later)}
    ]
    width, height = options.size
    title = f"milliseconds between frames on {width} x {height} pixels, {options.ratio:g} per pixel of the page"
    tables = {title: rows, "milliseconds of looks at runs": looked}
    common.finish(goals, tables, options.out, check=options.check, values="of one drawing")


def slow(frames: list[float]) -> int:
    """How many frames took longer than they may."""
    return sum(ms > FRAME_MS for ms in frames)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT, such as 4000x3000, got {text!r}")
    return int(width), int(height)


if __name__ == "__main__":
    main()
