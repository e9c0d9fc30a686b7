"""Logged numbers for a tracker, a service that must neither end nor hold up a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from accelerate import Accelerator

from diffusion.config import Config, to_dict
from diffusion.errors import InputError
from diffusion.training.interrupt import limited

# What a tracker that answers takes: the last numbers may have to be sent over a slow line.
PATIENCE_S = 60.0


class Tracking:
    """An accelerate tracker, if one is configured, until it fails or does not answer; the numbers are in the run folder
    too.
    """

    def __init__(self, accelerator: Accelerator, name: str, say: Callable[[str], None]) -> None:
        self.accelerator, self.name, self.say = accelerator, name, say

    def open(self, run: str, config: Config) -> None:
        """Begins a run, with every value of its configuration as section.key. Raises InputError for a tracker that is
        not installed.
        """
        if not self.name:
            return
        if not self.accelerator.log_with:
            raise InputError(f"report.tracker: {self.name} is not installed; install it, or leave the tracker out")
        flat = {f"{s}.{k}": str(v) for s, values in to_dict(config).items() for k, v in values.items()}
        self._tried(lambda: self.accelerator.init_trackers(run, config=flat))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Passes on the numbers of a step."""
        if self.name:
            self._tried(lambda: self.accelerator.log(dict(numbers), step=step))

    def close(self) -> None:
        """Ends the run there."""
        for tracker in self.accelerator.trackers:
            self._tried(tracker.finish)
        self.accelerator.trackers = []

    def _tried(self, call: Callable[[], object]) -> None:
        try:
            with limited(PATIENCE_S):
                call()
        except Exception as error:  # the tracker's own, of any type
            self.say(f"report.tracker: {self.name} failed and gets no more numbers: {error!r}")
            self.accelerator.trackers = []
