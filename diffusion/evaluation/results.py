"""The files of an evaluation: the numbers and how they were made as JSON, the examples as a table, and a figure.

    evaluation.json                   by the defaults, on the held-out examples, of the model that was measured last
    evaluation-limit8-draws2.json     by other settings
    evaluation-ode.json               by another method
    evaluation-known-box.json         of what is hidden given what is known
    evaluation-photos.json            on other examples, in the folder photos
    evaluation-step1000.json          an earlier model's, which had one of these names before

Each name belongs to one method, its settings and its examples. What lies there and was made of another model, or of
examples that have changed since, is kept under a name that says so.
"""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from diffusion.data import Dataset, DataSpec, identity
from diffusion.data.sources import DataOptions
from diffusion.evaluation.evaluator import Evaluation, Evaluator, Setting
from diffusion.files import numbered, replacing, sync, write_text

HELD_OUT = "held-out"
# The files of one evaluation, by their suffixes.
SUFFIXES = (".json", ".csv", ".png")
# The number of digits of a hash that tell apart folders of one name.
DIGITS = 6
# The letters of a name or a value in the name of a file, which has at most 255.
LONGEST = 60


@dataclass(frozen=True)
class Made:
    """How an evaluation is made: the name of its method, its settings, the step of the model, and its examples.

    `defaults` are the settings that names leave out. `data` has the name, the place, the number and the hash of the
    examples, before a limit is applied, and the files that were left out.
    """

    method: str
    settings: dict[str, Any]
    defaults: dict[str, Any]
    step: int
    data: dict[str, Any]

    @classmethod
    def of(
        cls, evaluator: Evaluator, setting: Setting, examples: Dataset, options: DataOptions, step: int, name: str
    ) -> Made:
        """Describes an evaluation of examples, called `name`, which were opened by `options`."""
        found, defaults = settings_of(evaluator, setting), settings_of(type(evaluator)(), Setting())
        if setting.limit is not None and setting.limit >= len(examples):
            found["limit"] = None
        data = {
            "name": name,
            "path": identity.place(options.path) if options.path else options.source,
            "examples": len(examples),
            "hash": identity.digest(identity.hashes_of(examples)),
            "left_out": [{"file": file, "reason": reason} for file, reason in examples.left_out],
        }
        return cls(evaluator.name, found, defaults, step, data)

    @property
    def stem(self) -> str:
        """The name of the files, without suffix."""
        parts = ["evaluation"]
        parts += [] if self.method == "bound" else [self.method]
        parts += [] if self.data["name"] == HELD_OUT else [self.data["name"][:LONGEST]]
        changed = {key: value for key, value in self.settings.items() if value != self.defaults.get(key)}
        return "-".join([*parts, *(_said(key, value) for key, value in changed.items())])

    def to_dict(self) -> dict[str, Any]:
        """What is written beside the numbers."""
        return {"settings": self.settings, "step": self.step, "data": self.data}

    def same(self, stored: dict[str, Any]) -> bool:
        """Whether a stored evaluation was made in the same way of the same."""
        there = stored.get("data")
        same_data = isinstance(there, dict) and there.get("hash") == self.data["hash"]
        # Through JSON, which has no tuples.
        settings = json.loads(json.dumps(self.settings))
        return same_data and (stored.get("settings"), stored.get("step")) == (settings, self.step)


def settings_of(evaluator: Evaluator, setting: Setting) -> dict[str, Any]:
    """Returns the settings of an evaluation by name: the shared ones, and those of its evaluator."""
    # Of a likelihood no guidance is one of 1; samples are then drawn by that of the model.
    guidance = 1.0 if setting.guidance is None and evaluator.of_examples else setting.guidance
    shared = {"limit": setting.limit, "guidance": guidance, "float64": setting.dtype == torch.float64}
    # Most models are told nothing.
    return shared | ({} if setting.condition else {"condition": False}) | evaluator.settings


def _said(key: str, value: object) -> str:
    """Says a setting as a part of the name of a file."""
    word = key.replace("_", "-")
    value = value[:LONGEST] if isinstance(value, str) else value
    if value is None or isinstance(value, bool):
        return word if value else f"no-{word}"
    text = f"{value:g}" if isinstance(value, float) else re.sub(r"[^\w.+-]+", "_", str(value))
    return f"{word}{text}" if isinstance(value, (int, float)) else f"{word}-{text}"


def named(result: Evaluation, examples: Dataset, setting: Setting, spec: DataSpec) -> Evaluation:
    """Returns an evaluation whose values have the names of their examples, where each example has one."""
    measured = setting.select(examples, spec)
    if result.names or len(result.values) != len(measured):
        return result
    return replace(result, names=tuple(measured.names))


def write(
    folder: Path,
    result: Evaluation,
    made: Made,
    compared: Evaluation | None = None,
    *,
    stem: str = "",
    figure: bool = True,
) -> list[str]:
    """Writes an evaluation, and that of training examples, into a folder; returns lines about files kept and written.

    The files are called `made.stem`, or `stem`. One that was made in the same way before is replaced, but for what it
    has of training examples where these are not measured again. With a `figure` one is drawn.
    """
    folder.mkdir(exist_ok=True)  # The place of the results of a checkpoint may not exist yet.
    stem = stem or made.stem
    stored = _read(folder / f"{stem}.json")
    if stored and made.data["name"] != HELD_OUT and _hash(stored) not in ("", made.data["hash"]):
        stem = f"{stem}-{made.data['hash'][:DIGITS]}"
        stored = _read(folder / f"{stem}.json")
    again = bool(stored) and made.same(stored)
    lines = [] if again else _kept(folder, stem, stored)
    written = {**result.to_dict(), **made.to_dict()}
    earlier = stored.get("training") if again else None
    training = compared.to_dict() if compared is not None else earlier if isinstance(earlier, dict) else None
    if training:
        written["training"] = training
    files = [f"{stem}.json"]
    if figure and (compared is not None or not training):
        result.draw(folder / f"{stem}.png", made.data["name"], compared)
        files.append(f"{stem}.png")
    if result.names:
        _replace(folder / f"{stem}.csv", table(result))
        files.insert(1, f"{stem}.csv")
    write_text(folder / f"{stem}.json", json.dumps(written, indent=1, allow_nan=False))
    return [*lines, f"{folder}: {', '.join(files)}"]


def table(result: Evaluation) -> str:
    """Returns a CSV table of the examples, in the order of the evaluation."""
    text, (head, rows) = io.StringIO(), result.listing
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


def _kept(folder: Path, stem: str, stored: dict[str, Any]) -> list[str]:
    """Gives the files of an evaluation made in another way a name that says which; returns a line about them."""
    there = [suffix for suffix in SUFFIXES if (folder / f"{stem}{suffix}").exists()]
    if not there:
        return []
    suffix = f"step{stored['step']}" if "step" in stored else "earlier"
    names = (aside.name for aside in numbered(folder / f"{stem}-{suffix}"))
    free = next(name for name in names if not any((folder / f"{name}{each}").exists() for each in SUFFIXES))
    for each in there:
        (folder / f"{stem}{each}").rename(folder / f"{free}{each}")
    sync(folder)
    origin = f"of step {stored['step']}" if "step" in stored else "of unknown settings"
    return [f"{folder}: {stem}.json {origin} is kept as {free}.json"]


def _hash(stored: dict[str, Any]) -> str:
    data = stored.get("data")
    return str(data.get("hash", "")) if isinstance(data, dict) else ""


def _read(path: Path) -> dict[str, Any]:
    """Returns a stored evaluation, empty where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _replace(path: Path, text: str) -> None:
    """Replaces a table; names that are no text of Unicode are written with backslashes."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        sync(temporary)
