"""The training examples of a round, completed: drawn batch by batch into files, so that the round goes on exactly.

RUN/em-1/completed/made.json     what they are made of, and how many are drawn at a time
RUN/em-1/completed/values.npy    stored values, (draws · N, *): all examples once, then all of them again
RUN/em-1/completed/batches.npy   a byte for each batch, 1 once its values are on the disk
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap

from diffusion import distributed
from diffusion.data import Dataset, identity
from diffusion.data.names import select
from diffusion.files import write_text
from diffusion.model import Model
from diffusion.progress import track

FOLDER, MADE, VALUES, BATCHES = "completed", "made.json", "values.npy", "batches.npy"


def completed(folder: Path, model: Model, training: Dataset, draws: int, seed: int) -> Dataset:
    """Returns training examples completed `draws` times by a model, with the masks of what was seen of them.

    Those that lie in the `folder` of a round are not drawn again. A round that was begun with other examples or another
    model is removed, with all that lies in its folder. The processes divide the batches.
    """
    made = {
        "examples": identity.digest(identity.hashes_of(training)),
        "step": model.step,
        "draws": draws,
        "seed": seed,
    }
    place, total = folder / FOLDER, len(training) * draws
    if distributed.is_main() and _read(place).get("made") != made:
        shutil.rmtree(folder, ignore_errors=True)
        _begin(place, model, training, total, made)
    distributed.barrier()
    _draw(place, model, training, total, seed)
    distributed.barrier()
    order = np.tile(np.arange(len(training)), draws)
    return replace(
        training.subset(order),
        values=np.load(place / VALUES, mmap_mode="r", allow_pickle=False),
        contents=None,
        names=select(training.names, order),
    )


def remove(folder: Path) -> None:
    """Removes the completions of a round, which are as large as the data."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _begin(place: Path, model: Model, training: Dataset, total: int, made: dict[str, Any]) -> None:
    """Makes empty files for completions, and last the record of what they are made of."""
    place.mkdir(parents=True)
    batch, stored = model.batch_size(guidance=1.0), training.values[np.zeros(1, dtype=np.int64)]
    for name, dtype, shape in (
        (VALUES, stored.dtype, (total, *stored.shape[1:])),
        (BATCHES, np.dtype(np.uint8), (-(-total // batch),)),
    ):
        open_memmap(place / name, mode="w+", dtype=dtype, shape=shape).flush()
    write_text(place / MADE, json.dumps({"made": made, "batch": batch}, indent=1))


def _draw(place: Path, model: Model, training: Dataset, total: int, seed: int) -> None:
    """Draws the batches of this process that are not there."""
    batch, there = int(_read(place)["batch"]), np.load(place / BATCHES, allow_pickle=False)
    # By their places among all batches, as other processes may have written some of theirs meanwhile.
    mine = [i for i in range(distributed.rank(), len(there), distributed.count()) if not there[i]]
    if not mine:
        return
    complete = model.completing(len(mine) * batch, seed=seed)
    for i in track(mine, len(mine), "completing", "batch", show=distributed.is_main()):
        numbers = range(i * batch, min((i + 1) * batch, total))
        drawn = complete(training.subset([number % len(training) for number in numbers]), numbers)
        _write(place / VALUES, numbers.start, drawn.numpy())
        _write(place / BATCHES, i, np.ones(1))


def _write(path: Path, first: int, rows: npt.NDArray[Any]) -> None:
    """Writes rows from the number `first` on into an array in a file, and waits until they are on the disk."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    with path.open("r+b") as file:
        file.seek(array.offset + first * array.strides[0])
        file.write(np.ascontiguousarray(rows, dtype=array.dtype).tobytes())
        file.flush()
        os.fsync(file.fileno())


def _read(place: Path) -> dict[str, Any]:
    """Returns the record of completions, empty where there is none."""
    try:
        found = json.loads((place / MADE).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}
