"""Mutated files of weights reach every part of their reader, and what is put into them would do harm."""

from __future__ import annotations

import pickle
import random
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.weight_files import CALLS, PROGRAMS, mutated_weights, weight_files
from diffusion.errors import InputError
from diffusion.exchange import pickled


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_mutations_reach_the_archive_its_entries_and_the_program(tmp_path: Path) -> None:
    bases, path, said = weight_files(), tmp_path / "x.pt", Counter[str]()
    assert len(bases) == 4 and all(
        pickled.read(_written(path, each), "model" if n == 1 else None) for n, each in enumerate(bases)
    )
    for seed in range(120):
        rng = random.Random(seed)
        data = mutated_weights(bases[seed % 4], bases[(seed + 1) % 4], rng)
        try:
            pickled.read(_written(path, data), "model" if seed % 4 == 1 else None)
            said["read"] += 1
        except InputError as error:
            said[re.sub(r"[^a-z ]", "", str(error).removeprefix(str(path)))[:40]] += 1
    assert len(said) > 25 and 5 < said["read"] < 60, said


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_seed_gives_the_same_file(monkeypatch: pytest.MonkeyPatch) -> None:
    bases = weight_files()
    made = [mutated_weights(bases[1], bases[2], random.Random(seed)) for seed in range(60)]
    monkeypatch.setattr("time.time", lambda: 1e9)  # At another time.
    assert made == [mutated_weights(bases[1], bases[2], random.Random(seed)) for seed in range(60)]
    assert sum(each != bases[1] for each in made) > 55 and len(PROGRAMS) == 5


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_what_is_injected_is_a_program_that_python_would_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The first five leave a file when they are unpickled; the others call what should not be called."""
    monkeypatch.chdir(tmp_path)
    with suppress(Exception):
        pickle.loads(b"\x80\x02" + CALLS[number] + b".")
    assert Path("canary").exists() == (number < 5)
