"""The values of a JSON file of another program: each is of its type, absent, or an error that names the file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from diffusion.errors import InputError
from diffusion.files import read_text

Made = TypeVar("Made")


@dataclass(frozen=True)
class Settings:
    """Values by their keys; `where` names the file in errors. null stands for a key that is absent.

    Every method returns the default for an absent key, and raises InputError for a value of another type.
    """

    values: Mapping[str, Any]
    where: str

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Reads a file. Raises InputError for one that is no JSON object in UTF-8, and OSError."""
        try:
            values = json.loads(read_text(path))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: is not a JSON file ({error}); download it again") from None
        if not isinstance(values, dict):
            raise InputError(f"{path}: must be an object of keys and values, got {str(values)[:40]!r}")
        return cls(values, str(path))

    def text(self, key: str, default: str) -> str:
        """Returns a text."""
        return str(self._typed(key, default, lambda value: isinstance(value, str), "a text"))

    def flag(self, key: str, default: bool) -> bool:
        """Returns true or false."""
        return bool(self._typed(key, default, lambda value: isinstance(value, bool), "true or false"))

    def whole(self, key: str, default: int, *, least: int, most: int) -> int:
        """Returns a whole number from `least` to `most`."""
        rule = f"a whole number from {least} to {most:,}"
        return int(self._typed(key, default, lambda value: _is_whole(value) and least <= value <= most, rule))

    def number(self, key: str, default: float) -> float:
        """Returns a finite number."""
        return float(self._typed(key, default, _is_number, "a finite number"))

    def numbers(self, key: str) -> tuple[float, ...] | None:
        """Returns a list of finite numbers, None where the key is absent."""
        listed = self._typed(
            key, None, lambda value: isinstance(value, list) and all(map(_is_number, value)), "a list of finite numbers"
        )
        return None if listed is None else tuple(map(float, listed))

    def refused(self, key: str, value: object, why: str) -> InputError:
        """The error about a value that cannot be used: `why` goes on after it."""
        return InputError(f"{self.where}: {key}: {value!r} {why}")

    def checked(self, make: Callable[[], Made]) -> Made:
        """Returns what `make` makes of these values; its InputError names the file."""
        try:
            return make()
        except InputError as error:
            raise InputError(f"{self.where}: {error}") from None

    def _typed(self, key: str, default: Any, fits: Callable[[Any], bool], rule: str) -> Any:  # noqa: ANN401, as JSON has it
        value = self.values.get(key)
        if value is None:
            return default
        if not fits(value):
            raise InputError(f"{self.where}: {key}: must be {rule}, got {str(value)[:80]!r}")
        return value


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
