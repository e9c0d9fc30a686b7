"""Draws samples into a folder, batch by batch: each is written as soon as it is drawn, and those that are there are not
drawn again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion import distributed, figures
from diffusion.commands.samples.files import PACKED, SampleFiles, pack
from diffusion.data import DataSpec
from diffusion.interrupt import Interrupt, Stopped
from diffusion.progress import bar, say

# Samples in a picture of the first ones: images, which together have so many pixels at most, and points of a plot.
PICTURED, PLOTTED, PIXELS = 64, 2000, 64 * 512**2
# What is added to the number of a signal to make the exit code of a process that it ended.
SIGNALED = 128


@dataclass(frozen=True)
class Job:
    """Samples of the `numbers` to write to `files` in a `folder`.

    `draw` returns the samples of some consecutive numbers, (B, *) in units. `info` goes into every image, and the
    picture; `kind` says what they are in the line that is printed.
    """

    folder: Path
    files: SampleFiles
    numbers: range
    batch: int
    draw: Callable[[range], Tensor]
    spec: DataSpec
    info: Mapping[str, Any]
    kind: str = "samples"
    picture: bool = True
    npz: bool = False

    def run(self) -> int:
        """Draws what is missing, writes the picture, prints a line, and returns the exit code.

        The processes of a group divide the batches. A signal ends it between two files.
        """
        start = time.perf_counter()
        before = self._there()
        distributed.largest(0)  # No process writes before all have counted.
        try:
            with Interrupt():
                self._fill()
        except Stopped as stop:
            if distributed.is_main():
                there = f"{self._there()} of {len(self.numbers)} {self.kind}"
                say(f"{self.folder}: stopped with {there} written; the same command goes on")
            return SIGNALED + stop.number
        distributed.largest(0)  # The files of all processes are there.
        if distributed.is_main():
            self.files.refresh()
            self._finish(time.perf_counter() - start, before)
        return 0

    def _there(self) -> int:
        return sum(number in self.files for number in self.numbers)

    def _fill(self) -> None:
        """Draws and writes what is missing."""
        # Batches begin at multiples of their size, whatever is there already: a sample is drawn with the same others,
        # and is the same to the last bit.
        first = self.numbers.start - self.numbers.start % self.batch
        starts = range(first, self.numbers.stop, self.batch)
        with bar(len(self.numbers), "sampling", "sample", show=distributed.is_main()) as moving:
            for place, begin in enumerate(starts):
                part = range(max(begin, self.numbers.start), min(begin + self.batch, self.numbers.stop))
                mine = place % distributed.count() == distributed.rank()
                if mine and any(number not in self.files for number in part):
                    self.files.write(part, self.draw(part), self.info)
                moving.update(len(part))

    def _finish(self, seconds: float, before: int) -> None:
        if self.picture:
            _show(self.files, self.spec, self.folder / "samples.png", self.info)
        if self.npz:
            pack(self.files, self.numbers, self.folder / PACKED)
        n = len(self.numbers)
        done = f"{n} {self.kind.removesuffix('s') if n == 1 else self.kind} of step {self.info['step']}"
        seed = f", seed {self.info['seed']}" if "seed" in self.info else ""
        there = f", {before} of them there already" if before else ""
        how = ", all there already" if before == n else f" in {seconds:.1f} s{there}"
        held = sum(1 for _ in self.files.numbers())
        others = f"; the folder holds {held}" if held > n else ""
        say(f"{self.folder}: {done}{how}{seed}{others}")


def _show(files: SampleFiles, spec: DataSpec, path: Path, info: Mapping[str, Any]) -> None:
    """Writes a picture of the first samples of a folder."""
    numbers = files.first(PICTURED if spec.is_image else PLOTTED)
    if spec.is_image:
        numbers = numbers[: max(1, PIXELS // files.read(numbers[0])[0].numel())]
    x = torch.stack([files.read(number) for number in numbers])
    if spec.is_image and spec.shape[0] not in (1, 3, 4):
        x = x[:, : 3 if spec.shape[0] > 4 else 1]
    figures.save_png(figures.draw(x), path, info)
