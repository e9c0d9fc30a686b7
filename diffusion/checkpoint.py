"""Checkpoints: folders of safetensors files and a manifest, either complete and verified or not there at all.

    RUN/checkpoints/step-00001000/
        model.safetensors       the averaged weights, with the experiment and the data's description in the metadata
        training.safetensors    the weights being trained and the optimizer's state
        manifest.json           format, step, and size and sha256 of every file

A folder is written under a temporary name, synced and renamed, so it is either whole or invisible. Files are checked
against the manifest before they are read. No pickle is written or read. Older formats are brought to the present one
as they are read, by the closed list of MIGRATIONS.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion.errors import InputError, closest
from diffusion.files import TEMPORARY, expanded, sync

OLDEST, FORMAT = 1, 3
MANIFEST = "manifest.json"
FOLDER = "checkpoints"
PREFIX = "step-"
# Errors that reading a damaged file raises; RecursionError, of JSON nested deeper than the stack, is a RuntimeError.
DAMAGE = (
    OSError,
    SafetensorError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class CheckpointError(InputError):
    """A checkpoint that is missing or damaged; the message names the folder, the file and what to do."""


@dataclass(frozen=True)
class Part:
    """One file of a checkpoint: tensors by name, and a description that is kept as JSON."""

    tensors: Mapping[str, Tensor]
    description: Mapping[str, Any]


# The names of tensors in format 1, and their replacements in format 2.
RENAMED = (
    (re.compile(r"(^|[./])trunk\."), r"\1shortcut."),
    (re.compile(r"(^|[./])merge\."), r"\1proj_out."),
    (re.compile(r"(^|[./])embed\.level\."), r"\1embed.log_snr_layer."),
    (re.compile(r"^levels/"), "adaptive/"),
)


def _renamed(name: str, part: Part) -> Part:
    """Brings format 1 to 2, in which layers and the state of the adaptive noise levels have the names of the field."""

    def new_name(key: str) -> str:
        for old, new in RENAMED:
            key = old.sub(new, key)
        return key

    return Part({new_name(key): value for key, value in part.tensors.items()}, part.description)


def _with_rms(name: str, part: Part) -> Part:
    """Brings format 2 to 3, in which the rows of the table of labels have a root mean square of their own: 1 before."""
    rms = {
        f"{key.removesuffix('weight')}rms": torch.ones(len(value), dtype=value.dtype)
        for key, value in part.tensors.items()
        if key in ("embed.label.weight", "network/embed.label.weight")
    }
    return Part({**rms, **part.tensors}, part.description)


# For each older format, the function that brings a part of a given name to the next format. A new format adds a line.
MIGRATIONS: Mapping[int, Callable[[str, Part], Part]] = {1: _renamed, 2: _with_rms}


@dataclass(frozen=True)
class Retention:
    """The rule by which checkpoints are kept when one is written.

    The newest `last` are kept, those of multiples of `every` steps (0 for none of these), and the one of step `best`.
    """

    last: int
    every: int = 0
    best: int | None = None

    def __call__(self, folder: Path, age: int) -> bool:
        """Whether to keep a checkpoint that has `age` newer ones."""
        step = step_of(folder)
        return age < self.last or (self.every > 0 and step % self.every == 0) or step == self.best


def write(run: Path, step: int, parts: Mapping[str, Part], *, keep: Retention) -> Path:
    """Writes RUN/checkpoints/step-N atomically, then removes the checkpoints that `keep` does not keep.

    Returns the folder of the new one. Raises CheckpointError when the disk is full or cannot be written to.
    """
    folder = run / FOLDER / f"{PREFIX}{step:08d}"
    for left_by_a_crash in folder.parent.glob(f"{TEMPORARY}*"):
        shutil.rmtree(left_by_a_crash, ignore_errors=True)
    temporary = folder.with_name(f"{TEMPORARY}{folder.name}-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        _check_space(temporary, parts)
        files = {}
        for name, part in parts.items():
            path = temporary / f"{name}.safetensors"
            tensors = {key: value.detach().cpu().contiguous() for key, value in part.tensors.items()}
            save_file(tensors, path, metadata={"description": json.dumps(part.description)})
            files[path.name] = {"size": path.stat().st_size, "sha256": file_hash(path)}
        manifest = {"format": FORMAT, "step": step, "files": files}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in (*temporary.iterdir(), temporary):
            sync(path)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        for parent in (folder.parent, run):
            sync(parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be written ({error}); the checkpoints before it are whole") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    # A run goes on from its newest whole checkpoint, so checkpoints of later steps are damaged and must not count.
    found = folders(run)
    here = found.index(folder)
    for age, other in enumerate(found, -here):
        if age < 0 or not keep(other, age):
            shutil.rmtree(other, ignore_errors=True)
    return folder


def _check_space(folder: Path, parts: Mapping[str, Part]) -> None:
    needed = sum(tensor.nbytes for part in parts.values() for tensor in part.tensors.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"No space: {needed / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free")


def step_of(folder: Path) -> int:
    """Returns the step in the name of a checkpoint folder."""
    return int(folder.name.removeprefix(PREFIX))


def folders(run: Path) -> list[Path]:
    """Returns the checkpoint folders of a run, newest first; anything else that lies there is ignored."""
    found = [p for p in (run / FOLDER).glob(f"{PREFIX}*") if p.is_dir() and p.name.removeprefix(PREFIX).isdecimal()]
    return sorted(found, key=step_of, reverse=True)


def newest(run: Path) -> tuple[Path | None, list[str]]:
    """Returns the newest checkpoint that is whole, or None, and a line for each newer one that is damaged."""
    problems: list[str] = []
    for folder in folders(run):
        try:
            verify(folder)
        except CheckpointError as error:
            problems.append(str(error))
        else:
            return folder, problems
    return None, problems


def named(path: Path) -> Path:
    """Returns the run folder that a path means or, for one of its checkpoints, RUN/step-N, where its results belong.

    A file in a run or in a checkpoint means the folder that it lies in, and the folder of checkpoints means its run.
    RUN/step-N is beside the checkpoints, which are removed as a run goes on.
    """
    path = expanded(path)
    inside = path.is_file() and any((path.parent / name).exists() for name in (MANIFEST, FOLDER))
    if inside or path.suffix == ".safetensors" or path.name == MANIFEST:
        path = path.parent
    path = path if path.name and path.name != ".." else path.resolve()
    if path.name == FOLDER and path.is_dir() and not (path / FOLDER).is_dir():
        return _outer(path)
    if path.name.startswith(PREFIX) and path.absolute().parent.name == FOLDER:
        return _outer(_outer(path)) / path.name
    return path


def _outer(path: Path) -> Path:
    """The folder that a path lies in, by its name where the path has it."""
    return path.parent if path.parent.name else path.absolute().parent


def run_of(path: Path) -> Path:
    """Returns the run folder of a path that `named` returned, which for RUN/step-N is RUN."""
    checkpoint = path.parent / FOLDER / path.name
    return path.parent if path.name.startswith(PREFIX) and checkpoint.is_dir() else path


def find(path: Path) -> tuple[Path, list[str]]:
    """Returns the newest whole checkpoint of the run, or the checkpoint, that `named` takes a path for, and a line
    about each damaged one.

    Raises CheckpointError saying what is missing and how to get it.
    """
    path = named(path)
    path = path if run_of(path) == path else path.parent / FOLDER / path.name
    if not path.exists():
        raise CheckpointError(_missing(path))
    if (path / MANIFEST).exists() or (path.name.startswith(PREFIX) and not (path / FOLDER).is_dir()):
        verify(path)
        return path, []
    if not path.is_dir():
        raise CheckpointError(_missing(path))
    folder, problems = newest(path)
    if folder is None:
        damaged = "".join(f"\n  {problem}" for problem in problems)
        raise CheckpointError(
            f"{path}: no {'usable ' if problems else ''}checkpoint in this folder; "
            f"start or go on with training: diffusion train CONFIG --out {path}{damaged}"
        )
    return folder, problems


def _missing(path: Path) -> str:
    """Says that there is no run folder, and which one is meant if one is like it."""
    if path.exists():
        return f"{path}: is a file; name a run folder, such as runs/digits"
    if path.name.startswith(PREFIX) and (there := folders(path.parent)):
        return f"{path}: no such checkpoint; there are {', '.join(folder.name for folder in reversed(there))}"
    runs = [file.parent for parent in {path.parent, Path("runs")} for file in parent.glob(f"*/{FOLDER}")]
    near = closest(path.name, names := {run.name: str(run) for run in runs})
    hint = f"did you mean {names[near]}?" if near else f"it is made by: diffusion train CONFIG --out {path}"
    return f"{path}: no such run folder; {hint}"


def verify(folder: Path) -> int:
    """Checks every file of a checkpoint against its manifest and returns the step.

    Raises CheckpointError naming the file that is damaged.
    """
    step, _, files = _manifest(folder)
    for name, (size, sha256) in files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{folder}: damaged checkpoint: {path.name} is missing")
        if path.stat().st_size != size:
            raise CheckpointError(
                f"{folder}: damaged checkpoint: {path.name} has {path.stat().st_size} bytes, not {size}"
            )
        if file_hash(path) != sha256:
            raise CheckpointError(f"{folder}: damaged checkpoint: {path.name} does not hold what was written")
    return step


def _manifest(folder: Path) -> tuple[int, int, dict[str, tuple[int, str]]]:
    """Returns step, format, and size and hash of every file."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        step, version = int(manifest["step"]), int(manifest["format"])
        files = {name: (file["size"], file["sha256"]) for name, file in manifest["files"].items()}
    except DAMAGE as error:
        raise CheckpointError(f"{folder}: damaged checkpoint: {MANIFEST}: {error!r}") from None
    if not OLDEST <= version <= FORMAT:
        raise CheckpointError(
            f"{folder}: checkpoint format {version}; this version reads formats {OLDEST} to {FORMAT}: "
            "use the version of this package that wrote it, or a newer one"
        )
    for name in files:
        if not re.fullmatch(r"\w+\.safetensors", name, re.ASCII):
            raise CheckpointError(f"{folder}: damaged checkpoint: {MANIFEST} names {name!r}, no file of a checkpoint")
    return step, version, files


def hashes(folder: Path) -> tuple[int, dict[str, str]]:
    """Returns the step of a checkpoint, and the sha256 of each of its files as its manifest has it.

    Raises CheckpointError for a manifest that is damaged.
    """
    step, _, files = _manifest(folder)
    return step, {name: sha256 for name, (_, sha256) in files.items()}


def read(folder: Path, name: str) -> Part:
    """Reads one part of a verified checkpoint, on the CPU. Raises CheckpointError when it cannot be read."""
    path = folder / f"{name}.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads(file.metadata()["description"])
        part = Part(load_file(path), description)
        for older in range(_manifest(folder)[1], FORMAT):
            part = MIGRATIONS[older](name, part)
        return part
    except CheckpointError:
        raise
    except DAMAGE as error:
        raise CheckpointError(f"{folder}: damaged checkpoint: {path.name}: {error!r}") from None


def file_hash(path: Path) -> str:
    """Returns the sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
