"""What jobs that restore share: the options of drawing, and the files and numbers of what was restored."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from diffusion import figures
from diffusion.commands.photographs import own_results, results
from diffusion.page.work import parse, restoring
from diffusion.page.work.place import Place
from diffusion.page.work.restoring import Restoring


def test_options_are_those_of_the_command(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path / "job")
    given = {"n": 5, "seed": 7, "steps": 9, "method": "mmps", "label": "a", "guidance": 1.5, "sampler": "ddpm"}
    made = parse("inpaint", {**given, "resize": True})
    assert isinstance(made, Restoring)
    found = made.restorations(place)
    assert {**vars(found.draw), "method": found.method} == {**given, "batch": None}
    assert (found.out, found.resize, found.as_input, found.again) == (place.out, True, False, False)


def test_files_have_the_roles_of_what_the_command_writes(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path / "job")
    place.out.mkdir(parents=True)
    for name in ("restored-0.tif", "restored-1.tif", "mean.tif", "std.png", "low.tif", "high.tif", "other.txt"):
        (place.out / name).write_text("")
    roles = {file.name: (file.role, file.index) for file in parse("restore", {}).files(place)}
    assert roles == {
        "result/restored-0.tif": ("variant", 0),
        "result/restored-1.tif": ("variant", 1),
        "result/mean.tif": ("mean", None),
        "result/std.png": ("deviation", None),
        "result/low.tif": ("low", None),
        "result/high.tif": ("high", None),
    }
    assert {*results.BOUNDS} <= {*restoring.ROLES} and own_results.RECORD == restoring.RECORD


def test_numbers_are_those_of_the_record_and_what_white_means(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path / "job")
    place.out.mkdir(parents=True)
    diagnostics = {"residual": 1.1, "seconds": 2.0, "method": "mmps", "relative_ess": None}
    record = {"seed": 3, "noise": 0.05, "diagnostics": diagnostics, "psnr_of_mean": 20.0, "image": "x.png"}
    (place.out / "restoration.json").write_text(json.dumps(record))
    figures.save_png(torch.zeros(1, 4, 4), place.out / "std.png", {"white": 0.25})
    assert restoring.outcome(place).numbers == {
        **{"method": "mmps", "seconds": 2.0, "residual": 1.1},
        **{"seed": 3, "noise": 0.05, "psnr_of_mean": 20.0, "white": 0.25},
    }
