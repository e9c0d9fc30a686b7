"""Border images through inspect, train and restore, and back: what is known must be the file's own values."""

from __future__ import annotations

import io
import itertools
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageOps

from benchmarks.border import KINDS, Array, Kind, write
from benchmarks.faults import Outcome
from diffusion import cli
from diffusion.commands.inspect import toml

# What is said of a file whose format holds no results of its depth.
REFUSED = "write a PNG or a TIFF"
# What is said of a file whose results hold other values than it: what they become.
SAID = ("its results", "results are gray")


def border(place: Path) -> list[Outcome]:
    """Returns the outcome of each group of border images."""
    return [_group(place / name, name, list(make())) for name, make in KINDS.items()]


def _group(place: Path, name: str, kinds: list[Kind]) -> Outcome:
    """Inspects and trains on files that one model can know, then restores each of them."""
    lost: list[str] = []

    def key(kind: Kind) -> tuple[int, tuple[float, float]]:
        # All kinds of 8 bits are seen by one model of colors.
        return (kind.bands, kind.range) if kind.range else (3 if name != "bands" else kind.bands, (0, 255))

    for number, ((channels, span), found) in enumerate(itertools.groupby(sorted(kinds, key=key), key=key)):
        files = write(iter(found), place / str(number) / "images")
        lost += _through(place / str(number), files, channels, span)
    return Outcome(f"border images: {name}", len(kinds), tuple(lost))


def _through(place: Path, files: dict[Path, Kind], channels: int, span: tuple[float, float]) -> list[str]:
    ranged = span != (0, 255)
    data = {"path": str(place / "images"), "size": 8, "channels": channels, "min_images": 1, "held_out": 0.0}
    tree = {
        "data": {**data, "max_bad": 0.0, **({"range": list(span)} if ranged else {})},
        "backbone": {"name": "unet", "channels": [8], "blocks": 1, "attention": []},
        "training": {"steps": 1, "batch": 1, "precision": "fp32"},
        "report": {"restored": 0, "pictures": 1},
        "sampling": {"steps": 1},
    }
    (place / "border.toml").write_text(toml(tree))
    run, mask = place / "run", place / "mask.png"
    lost = []
    for arguments in (("inspect", place / "images", "--no-measure"), ("train", place / "border.toml", "--out", run)):
        code, text = _run(*arguments)
        if code:
            return [*lost, f"{place}: {arguments[0]} ended with {code}: {text[-200:]}"]
    for path, kind in files.items():
        height, width = kind.values.shape[:2]
        hole = np.full((height, width), 255, np.uint8)
        hole[2:5, 3:7] = 0
        Image.fromarray(hole).save(mask)
        options = ["--n", "1", "--steps", "1", "--method", "replacement", "--as-input", "--out", place / "out"]
        code, text = _run("inpaint", run, path, "--mask", mask, *options)
        if code and REFUSED in text:
            continue
        if code:
            lost.append(f"{path.name}: ended with {code}: {text[-200:]}")
            continue
        made = [
            each
            for each in (place / "out").iterdir()
            if each.name in (path.name, f"{path.name}.png", f"{path.name}.tif")
        ]
        told = any(f"{path.name}: " in line and word in line for line in text.splitlines() for word in SAID)
        lost += [] if told else _differences(made[0], kind, hole > 0)
    return lost


def _differences(path: Path, kind: Kind, known: Array) -> list[str]:
    """Returns a line if the known values of a result are not those of the file, up to its loss."""
    found, expected = _values(path), kind.values.reshape(*known.shape, -1)
    if found.shape != expected.shape:
        return [f"{kind.name}: {found.shape} values of {path.name}, not {expected.shape}"]
    worst = float(np.abs(found[known].astype(np.float64) - expected[known]).max())
    return (
        [f"{kind.name}: known values differ by {worst:g} in {path.name}"] if worst > (40 if kind.lossy else 0) else []
    )


def _values(path: Path) -> Array:
    """Returns the values (H, W, C) of a result, by readers that are not this package's."""
    if path.suffix == ".tif":
        values = tifffile.imread(path)
    else:
        with Image.open(path) as image:
            values = np.asarray(ImageOps.exif_transpose(image))
    return values.reshape(*values.shape[:2], -1)


def _run(*arguments: object) -> tuple[int, str]:
    """Runs a command in this process and returns its exit code and what it said."""
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(said):
        code = cli.main([str(argument) for argument in arguments])
    return code, said.getvalue()
