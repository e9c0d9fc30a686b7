"""Restores images one after the other: goes on where it stopped, and leaves out those that cannot be restored."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from diffusion import distributed
from diffusion.commands.photographs.places import Place
from diffusion.data import read_header
from diffusion.errors import InputError
from diffusion.memory import is_oom
from diffusion.progress import duration

# The exit code when some images of several were not restored.
SOME_FAILED = 1


@dataclass
class Batch:
    """The images to restore, each with its number among all and its place.

    With `alone` the one image was named: what is wrong with it is an error of the command. `unread` are lines about
    what lies beside the images and cannot be read.
    """

    places: list[Place]
    alone: bool
    unread: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unusable: int = 0

    def __call__(self, restore: Callable[[int, Place, str], None]) -> int:
        """Restores all images whose results are not there yet, and returns the exit code.

        `restore` takes the number of an image, its place and how far the work is, a text to print with its results.
        Raises InputError or FloatingPointError if the one image that was named cannot be restored.
        """
        todo = self._checked()
        start = time.monotonic()
        for done, (number, place) in enumerate(todo):
            try:
                restore(number, place, self._left(done, len(todo), time.monotonic() - start))
            except (InputError, FloatingPointError, MemoryError, RuntimeError) as error:
                self._failed(place, error)
        if not self.problems and not self.unread:
            return 0
        restored = len(todo) - (len(self.problems) - self.unusable)
        lines = [f"error: {len(self.problems)} of {len(self.places)} images were not restored:", *self.problems]
        if not self.problems:
            lines = ["error: not all images were restored:"]
        if distributed.is_main():
            print("\n  ".join([*lines, *self.unread]), file=sys.stderr)
        distributed.say(f"{restored} restored")
        return SOME_FAILED

    def _checked(self) -> list[tuple[int, Place]]:
        """The images that are left, after what can be told of all at little cost: no pixels are read."""
        done = sum(place.done for place in self.places)
        if done:
            distributed.say(
                f"{done} of {len(self.places)} images are restored already and left as they are (--again restores them)"
                if not self.alone
                else f"{self.places[0].path}: is restored already and left as it is (--again restores it)"
            )
        todo = []
        for number, place in enumerate(self.places):
            if place.done:
                continue
            try:
                _check(place)
            except InputError as error:
                self._failed(place, error)
            else:
                todo.append((number, place))
        self.unusable = len(self.problems)
        if (self.problems or self.unread) and todo:
            distributed.say("\n  ".join(["left out, as they cannot be restored:", *self.problems, *self.unread]))
        return todo

    def _failed(self, place: Place, error: Exception) -> None:
        """Notes an image that was not restored, or raises the error if it is the one that was named."""
        text = named(place, error)
        if isinstance(error, (MemoryError, RuntimeError)):
            # Other processes would wait for a result of the one that goes on without it.
            if distributed.count() > 1 or not is_oom(error):
                raise error
            text = f"{place.file.path}: there is not enough memory for it; make it smaller, or take --n 1 or --batch 1"
        if self.alone:
            kind = FloatingPointError if isinstance(error, FloatingPointError) else InputError
            raise kind(text) from error
        self.problems.append(text)

    def _left(self, done: int, count: int, seconds: float) -> str:
        if self.alone or len(self.places) == 1:
            return ""
        left = f", about {duration(seconds / done * (count - done))} left" if done else ""
        return f"[{done + 1} of {count}{left}] "


def _check(place: Place) -> None:
    """Raises InputError for an image or a mask that is not there or not an image."""
    if place.file.problem:
        raise InputError(place.file.problem)
    read_header(place.file.path)
    if place.file.mask is not None:
        read_header(place.file.mask)


def named(place: Place, error: Exception) -> str:
    """The message of an error about one image of many, with the name of the image."""
    path = str(place.file.path)
    return str(error) if path in str(error) else f"{path}: {error}"
