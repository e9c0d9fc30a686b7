"""Where samples go: a folder holds those of one model with one set of settings, which are written in samples.json."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion import distributed
from diffusion.commands.samples.files import DIGITS, foreign
from diffusion.errors import InputError
from diffusion.files import numbered, write_text

RECORD = "samples.json"
Settings = Mapping[str, Any]
# The settings that name a folder where they differ, and how.
NAMED = (
    *("label", "guidance", "steps", "sampler", "tuned", "step", "level", "count"),
    *("size", "tiles", "overlap", "format"),
)


@dataclass(frozen=True)
class Record:
    """What samples.json holds: the settings of all samples, and what else makes a command go on exactly.

    `batch` is the number of samples that were drawn at a time, `width` that of the digits of a number in the names of
    files, and `grid` the timestep grid of a tuned model.
    """

    settings: Settings
    batch: int
    width: int = DIGITS
    grid: Settings | None = None

    def write(self, folder: Path) -> None:
        """Writes the record into a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / RECORD, json.dumps(vars(self) | {"settings": dict(self.settings)}, indent=1))


def read(folder: Path) -> Record | None:
    """Reads the record of a folder, None without one. Raises InputError for one that is damaged."""
    path = folder / RECORD
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: is damaged ({error}); remove the folder, or name another with --out") from error


def opened(
    folder: Path, settings: Settings, numbers: range, batch: Callable[[], int], grid: Settings | None = None
) -> Record:
    """Returns the record of a folder that was chosen for samples with some settings; the main process writes a new one.

    `batch` finds the size of batches, if the folder has none yet.
    """
    found = read(folder)
    if found is None:
        found = Record(settings, batch(), max(DIGITS, len(str(numbers.stop - 1))), grid)
        if distributed.is_main():
            found.write(folder)
    return found


def choose(default: Path, out: Path | None, settings: Settings) -> tuple[Path, str]:
    """Returns the folder for samples with some settings, and a line to print if it is not the default one.

    That is `out`, if it is given and holds nothing but such samples. Else it is `default`, or where that holds others,
    the same with what differs in its name.

    Raises InputError for an `out` that holds anything else.
    """
    held = _held(out or default, settings)
    if not held:
        return out or default, ""
    if out is not None:
        raise InputError(f"--out: {out} holds {held}; name another folder")
    named = default.with_name(f"{default.name}{_suffix(default, settings)}")
    free = next(path for path in numbered(named) if not _held(path, settings))
    return free, f"{default} holds {held}; these go to {free}"


def differences(stored: Settings, settings: Settings) -> list[str]:
    """Returns the names of the settings that differ."""
    known = json.loads(json.dumps(dict(settings)))  # As JSON gives them, without tuples.
    return sorted(name for name in stored.keys() | known.keys() if stored.get(name) != known.get(name))


def _held(folder: Path, settings: Settings) -> str:
    """What a folder holds besides samples with these settings; empty if nothing."""
    name = foreign(folder)
    if name is None:
        return ""
    record = read(folder)
    if record is None:
        return f"files that may not be samples of these settings, such as {name}"
    changed = differences(record.settings, settings)
    shown = [_changed(each, record.settings.get(each), settings.get(each)) for each in changed if each != "model"]
    return f"samples of {', '.join(shown) or 'another model'}" if changed else ""


def _changed(name: str, before: object, now: object) -> str:
    return f"{name} {_text(before)}, not {_text(now)}"


def _suffix(default: Path, settings: Settings) -> str:
    """What is added to the name of a folder: the settings in which it differs."""
    record = read(default)
    changed = [] if record is None else differences(record.settings, settings)
    parts = [_part(each, settings[each]) for each in NAMED if each in changed and each in settings]
    return "".join(f"-{re.sub(r'[^A-Za-z0-9.]+', '-', part).strip('-')}" for part in parts)


def _part(name: str, value: object) -> str:
    return name if value is True else f"{name}-{_text(value).lstrip('.')}"


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return str(value.get("name", "other"))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
