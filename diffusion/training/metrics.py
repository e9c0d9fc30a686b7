"""The logged numbers of a run: the rows of `metrics.jsonl`, and a tracker that receives them too."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from PIL import Image

from diffusion.config import Config, to_dict
from diffusion.errors import InputError
from diffusion.files import write_text
from diffusion.interrupt import limited
from diffusion.reporting.names import METRICS as METRICS

# The key of the bound on held-out examples, followed by its unit; its standard error has the same key and a suffix.
TOTAL, STANDARD_ERROR = "held_out/total_", "_se"
# The same of the bound on training examples.
TRAINING = "training/total_"
# Seconds that a call of a tracker may take: the last numbers may have to be sent over a slow line.
PATIENCE_S = 60.0
# Trackers that take one image under a name; the others take a list.
ONE_IMAGE = ("aim", "clearml")
# The tracker that takes images of its own kind among the numbers, as accelerate has no call for them.
AMONG_NUMBERS = "trackio"


def append(path: Path, row: Mapping[str, object]) -> None:
    """Adds one row to a file of rows, as a line of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def bounds(path: Path) -> dict[int, float]:
    """Returns the bounds on held-out examples in a file of rows, by step."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        row = json.loads(line)
        totals = [value for key, value in row.items() if key.startswith(TOTAL) and not key.endswith(STANDARD_ERROR)]
        if totals:
            found[row["step"]] = totals[0]
    return found


def best(path: Path, steps: Iterable[int]) -> int | None:
    """Returns the one of `steps` that has the lowest bound in a file of rows, or None where no step has a bound."""
    found = bounds(path)
    return min((step for step in steps if step in found), key=found.__getitem__, default=None)


def truncate_after(path: Path, step: int) -> None:
    """Drops the rows of steps beyond `step`, which a resumed run will write again, and lines that were cut short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_text(path, "".join(kept))


class Tracker:
    """An accelerate tracker, if one is configured.

    A service must neither end nor hold up a run: once a call fails or does not answer, the tracker receives nothing
    more, and the run goes on with the numbers in its folder.
    """

    def __init__(self, accelerator: Accelerator, name: str, say: Callable[[str], None]) -> None:
        self.accelerator, self.name, self.say = accelerator, name, say

    def open(self, run: str, config: Config) -> None:
        """Begins a run in the tracker, with every value of the configuration as section.key.

        Raises InputError for a tracker that is not installed.
        """
        if not self.name:
            return
        if not self.accelerator.log_with:
            raise InputError(f"report.tracker: {self.name} is not installed; install it, or leave the tracker out")
        flat = {f"{s}.{k}": str(v) for s, values in to_dict(config).items() for k, v in values.items()}
        self._call(lambda: self.accelerator.init_trackers(run, config=flat))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Passes on the numbers of a step."""
        if self.name:
            self._call(lambda: self.accelerator.log(dict(numbers), step=step))

    def pictures(self, files: Mapping[str, Path], step: int) -> None:
        """Passes on the pictures of a step by their names, from the main process, to a tracker that takes images."""
        if not self.accelerator.is_main_process:
            return
        for name, path in files.items():
            for tracker in self.accelerator.trackers:
                if hasattr(tracker, "log_images") or tracker.name == AMONG_NUMBERS:
                    self._call(partial(_log_image, tracker, name, path, step))

    def close(self) -> None:
        """Ends the run in the tracker."""
        for tracker in self.accelerator.trackers:
            self._call(tracker.finish)
        self.accelerator.trackers = []

    def _call(self, function: Callable[[], object]) -> None:
        try:
            with limited(PATIENCE_S):
                function()
        except Exception as error:  # A tracker may raise errors of any type.
            self.say(f"report.tracker: {self.name} failed and gets no more numbers: {error!r}")
            self.accelerator.trackers = []


def _log_image(tracker: GeneralTracker, name: str, path: Path, step: int) -> None:
    """Gives a tracker a picture in the form that it takes: those of accelerate differ."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    if tracker.name == AMONG_NUMBERS:
        tracker.log({name: importlib.import_module(tracker.name).Image(pixels)}, step=step)
        return
    log: Callable[..., object] = tracker.log_images
    if tracker.name == "tensorboard":
        log({name: pixels[None]}, step=step, dataformats="NHWC")
    else:
        log({name: pixels if tracker.name in ONE_IMAGE else [pixels]}, step=step)
