"""Specks lie apart from each other, and a picture of one shows all that windows which touch it see."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.specks import DIAMETERS, Cost, differences, made, masked, measured, prepare, rows, specks, surroundings
from diffusion.operators import Mask
from diffusion.restoration import Problem
from diffusion.restoration.parts import split

SIZE, WINDOW = (240, 180), 16


def known(mask: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(mask) >= 128)[None]


def windows(mask: Image.Image) -> list[int]:
    shown = known(mask)
    parts = split(Problem(Mask(shown), torch.zeros(1, *shown.shape), shape=tuple(shown.shape)), (WINDOW, WINDOW))
    return sorted(part.tiling.count for part in parts if part.tiling)


def test_specks_are_parts_that_cost_as_much_as_in_pictures_of_their_own() -> None:
    boxes = specks(SIZE, 8, WINDOW, seed=3)
    assert len(set(boxes)) == 8 and boxes == specks(SIZE, 8, WINDOW, seed=3)
    assert all(DIAMETERS[0] <= right - left <= DIAMETERS[1] for left, _, right, _ in boxes)
    whole = windows(masked(SIZE, boxes))
    alone = [windows(masked(SIZE, [box]).crop(surroundings(box, SIZE, WINDOW))) for box in boxes]
    assert len(whole) == 8 and whole == sorted(count for counts in alone for count in counts)
    with pytest.raises(ValueError, match="--specks: 20 specks have no room in 60 x 40 pixels"):
        specks((60, 40), 20, WINDOW, seed=0)


def test_pictures_show_the_photograph_and_what_changed_is_counted(tmp_path: Path) -> None:
    boxes = [(20, 30, 28, 36), (100, 90, 103, 99)]
    prepare(tmp_path, None, SIZE, boxes, WINDOW)
    photo = np.asarray(Image.open(tmp_path / "photo.png"))
    assert np.array_equal(photo, np.asarray(made(SIZE, 0))) and photo.std() > 20
    assert np.array_equal(np.asarray(Image.open(tmp_path / "small/0.png")), photo[15:51, 5:43])
    mask = np.asarray(Image.open(tmp_path / "small-masks/0.png"))
    assert mask.shape == (36, 38) and mask[15:21, 15:23].min() == 0 and (mask == 0).sum() < 48
    out = tmp_path / "out"
    out.mkdir()
    changed = photo.copy()
    changed[30:36, 20:28] = 0
    changed[0, :3] += 1
    Image.fromarray(changed).save(out / "restored-0.png")
    corners = int((np.asarray(masked(SIZE, boxes))[30:36, 20:28] == 255).sum())
    assert differences(tmp_path, out) == 3 + corners


def test_a_command_is_measured_with_what_it_notes(tmp_path: Path) -> None:
    program = """
import json, pathlib, sys
held = bytearray(200_000_000)
for name, seconds in (("a", 1.5), ("b", 2.0)):
    path = pathlib.Path(sys.argv[1]) / name
    path.mkdir()
    (path / "restoration.json").write_text(json.dumps({"diagnostics": {"seconds": seconds, "windows": 4}}))
"""
    mine = bytearray(600_000_000)  # What this process holds is not of the command.
    mine[::4096] = b"x" * len(mine[::4096])
    found = measured([sys.executable, "-c", program, str(tmp_path)], tmp_path)
    del mine
    assert (
        (found.restoring, found.windows) == (3.5, 8)
        and 0.2 < found.peak < 0.5
        and found.seconds > 0
        and 0 < found.cpu < 60
    )
    with pytest.raises(RuntimeError, match=r"ended with 3\n.*told"):
        measured([sys.executable, "-c", "import sys; print('told', file=sys.stderr); sys.exit(3)"], tmp_path)


def test_rows_have_medians_of_times_and_the_largest_memory() -> None:
    costs = {"photo": [Cost(10, 1, 5, 2.0, 7), Cost(20, 3, 5, 1.0, 8), Cost(90, 2, 5, 1.5, 9)]}
    assert rows(costs) == [
        {"what": "photo", "windows": 5, "restoring, s": 2, "whole command, s": 20, "its CPU, s": 8, "peak, GB": 2.0}
    ]
