"""Completions in files: each drawn once, by any number of beginnings, of the examples that they are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.data import Dataset, DataSpec
from diffusion.training import completions
from diffusion.training.completions import completed


@dataclass
class Numbering:
    """A model whose completion of an example is its first value, plus the number of the draw where it is unseen."""

    step: int = 5
    drawn: list[int] = field(default_factory=list)
    batch: int = 4

    def batch_size(self, *, guidance: float) -> int:
        assert guidance == 1.0
        return self.batch

    def completing(self, count: int, *, seed: int) -> Numbering:
        return self

    def __call__(self, examples: Dataset, numbers: Sequence[int]) -> Tensor:
        self.drawn += numbers
        values, seen = examples.batch(range(len(examples)))[0], examples.beside(range(len(examples)))[0]
        assert seen is not None
        return torch.where(seen != 0, values, torch.tensor(numbers).reshape(-1, 1, 1, 1)).to(values.dtype)


def dataset(count: int = 6, kind: type = np.uint8, levels: int | None = 256) -> Dataset:
    values = np.full((count, 1, 2, 3), 200, dtype=kind)
    seen = np.ones((count, 1, 2, 3), dtype=np.uint8)
    seen[:, :, 0] = 0
    spec = DataSpec((1, 2, 3), levels, ("a", "b"))
    return Dataset(values, spec, np.arange(count) % 2, tuple("abcdefgh"[:count]), seen=seen)


@pytest.mark.parametrize(("kind", "levels"), [(np.uint8, 256), (np.uint16, 2**16), (np.float32, None)])
def test_all_examples_are_completed_as_often_as_asked(tmp_path: Path, kind: type, levels: int | None) -> None:
    model, training = Numbering(), dataset(6, kind, levels)
    found = completed(tmp_path / "em-1", model, training, 3, 0)  # type: ignore[arg-type]
    assert model.drawn == list(range(18)) and len(found) == 18
    values = np.asarray(found.values)
    assert values.dtype == kind and found.contents is None and found.seen is not None
    assert np.array_equal(np.asarray(found.seen), np.tile(np.asarray(training.seen), (3, 1, 1, 1)))
    assert values[:, 0, 0, 0].tolist() == list(range(18)) and (values[:, :, 1] == 200).all()
    assert "".join(found.names) == 3 * "abcdef" and found.labels is not None
    assert found.labels.tolist() == 9 * [0, 1] and found.spec == training.spec


def test_they_go_on_after_the_last_batch_that_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, training, first, second = tmp_path / "em-1", dataset(), Numbering(), Numbering(batch=5)

    def two(items: list[int], *args: object, **options: object) -> Iterator[int]:
        yield from items[:2]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(completions, "track", two)
        with pytest.raises(KeyboardInterrupt):
            completed(folder, first, training, 2, 0)  # type: ignore[arg-type]
    found = completed(folder, second, training, 2, 0)  # type: ignore[arg-type]
    assert first.drawn == list(range(8)) and second.drawn == list(range(8, 12)), "in the batches of the beginning"
    assert np.asarray(found.values)[:, 0, 0, 0].tolist() == list(range(12))
    assert completed(folder, third := Numbering(), training, 2, 0) and not third.drawn  # type: ignore[arg-type]


@pytest.mark.parametrize("other", ["examples", "model", "draws", "seed", "damaged"])
def test_completions_of_anything_else_are_drawn_anew_with_their_round(tmp_path: Path, other: str) -> None:
    folder = tmp_path / "em-1"
    completed(folder, Numbering(), dataset(), 2, 0)  # type: ignore[arg-type]
    (folder / "checkpoints").mkdir()
    training = dataset(5) if other == "examples" else dataset()
    model = Numbering(step=6 if other == "model" else 5)
    if other == "damaged":
        (folder / completions.FOLDER / completions.MADE).write_text("{")
    completed(folder, model, training, 1 if other == "draws" else 2, 1 if other == "seed" else 0)  # type: ignore[arg-type]
    assert len(model.drawn) == len(training) * (1 if other == "draws" else 2)
    assert not (folder / "checkpoints").exists()


def test_processes_divide_the_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, training, drawn = tmp_path / "em-1", dataset(), []
    for rank in (0, 1):
        with monkeypatch.context() as patch:
            patch.setattr(completions.distributed, "rank", lambda rank=rank: rank)
            patch.setattr(completions.distributed, "count", lambda: 2)
            patch.setattr(completions.distributed, "barrier", lambda: None)
            completed(folder, model := Numbering(), training, 3, 0)  # type: ignore[arg-type]
            drawn.append(model.drawn)
    assert drawn[0] == [*range(4), *range(8, 12), *range(16, 18)] and drawn[1] == [*range(4, 8), *range(12, 16)]
    values = np.load(folder / completions.FOLDER / completions.VALUES, allow_pickle=False)
    assert values[:, 0, 0, 0].tolist() == list(range(18))


def test_what_is_decided_takes_no_room(tmp_path: Path) -> None:
    completed(tmp_path / "em-1", Numbering(), replace(dataset()), 1, 0)  # type: ignore[arg-type]
    record = json.loads((tmp_path / "em-1" / completions.FOLDER / completions.MADE).read_text())
    assert record["batch"] == 4 and record["made"]["step"] == 5
    completions.remove(tmp_path / "em-1")
    completions.remove(tmp_path / "em-1")
    assert [*(tmp_path / "em-1").iterdir()] == []
