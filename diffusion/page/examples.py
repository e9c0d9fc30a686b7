"""The held-out examples of a run, opened where its data lie now. It imports torch."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from torch import Tensor

from diffusion import config
from diffusion.data import Dataset, open_source
from diffusion.data.images.encoding import save_image, suffix
from diffusion.model import origin
from diffusion.page.answers import Refusal
from diffusion.reporting.run_folder import RunFolder

# The runs whose examples stay open.
OPEN = 4


@dataclass(frozen=True)
class HeldOut:
    """The held-out examples of a run, of the spec of its model."""

    examples: Dataset

    def __len__(self) -> int:
        return len(self.examples)

    def label(self, number: int) -> str | None:
        """Returns the class of an example, None for data without classes."""
        labels, classes = self.examples.labels, self.examples.spec.classes
        return classes[int(labels[number])] if labels is not None and classes else None

    def stored(self, number: int) -> Tensor:
        """Returns the stored values of an example, (C, H, W). Raises Refusal with 404 for a number that none has."""
        if not 0 <= number < len(self):
            raise Refusal(404, f"there are {len(self):,} held-out examples, from 0, and no {number:,}")
        return self.examples.center(self.examples.batch([number])[0])[0]

    def write(self, number: int, folder: Path) -> Path:
        """Writes an example into a folder, as a file that is read as the same values."""
        spec = self.examples.spec
        units = self.stored(number).double() / spec.top
        return save_image(units, folder / f"example-{number}{suffix(spec)}", spec, {"held_out": number})


_open: OrderedDict[tuple[Path, int | None, int], HeldOut] = OrderedDict()
_lock = Lock()


def held_out(run: RunFolder) -> HeldOut:
    """Returns the held-out examples of a run, which stay open for a while.

    Raises InputError for data that are not there any more or cannot be used, Refusal with 404 for a run of points or
    without a configuration.
    """
    with _lock:
        key = run.path, run.checkpoints[-1] if run.checkpoints else None, (run.path / "config.json").stat().st_mtime_ns
        if key not in _open:
            _open[key] = _opened(run)
        _open.move_to_end(key)
        while len(_open) > OPEN:
            _open.popitem(last=False)
        return _open[key]


def _opened(run: RunFolder) -> HeldOut:
    experiment = config.from_dict(run.config)
    options = replace(origin.data_of(run.path, experiment), condition="", condition_channels=None)
    if options.source == "folder" and not options.path:
        raise Refusal(404, "this model was imported and has no images of its own")
    dataset = open_source(options, lambda line: None, origin.spec_of(run.path))
    if not dataset.spec.is_image:
        raise Refusal(404, "this run learned from points, which have no pictures")
    return HeldOut(dataset.split(options.held_out, options.seed)[1])
