"""What `diffusion sample`, `encode` and `decode` are given on the command line."""

from __future__ import annotations

from pathlib import Path

import tyro

from diffusion.commands.options import Decode, Encode, Sample
from diffusion.draw import TILES


def test_a_run_alone_is_enough_and_restores_nothing() -> None:
    parsed = tyro.cli(Sample, args=["runs/a"])
    assert parsed == Sample(Path("runs/a")) and parsed.image is None and not parsed.film
    assert (parsed.first, parsed.picture, parsed.npz, parsed.format) == (0, True, False, None)
    assert parsed.vary is parsed.interpolate is parsed.noise_file is parsed.level is None


def test_two_images_are_joined() -> None:
    parsed = tyro.cli(Sample, args=["runs/a", "--interpolate", "a.png", "b.png", "--n", "8", "--no-picture"])
    assert parsed.interpolate == (Path("a.png"), Path("b.png")) and parsed.draw.n == 8 and not parsed.picture


def test_a_size_comes_with_its_tiles() -> None:
    parsed = tyro.cli(Sample, args=["runs/a", "--size", "64x128", "--tiles", "windows", "--overlap", "8"])
    assert (parsed.size, parsed.tiles, parsed.overlap) == ("64x128", "windows", 8)
    assert Sample(Path("runs/a")).tiles == TILES[0] == "sequential" and Sample(Path("runs/a")).size is None


def test_images_are_encoded_to_a_file_and_decoded_from_it() -> None:
    parsed = tyro.cli(Encode, args=["runs/a", "x.png", "y", "--out", "z.npy"])
    assert parsed == Encode(Path("runs/a"), (Path("x.png"), Path("y")), Path("z.npy")) and parsed.tolerance == 1e-5
    assert tyro.cli(Decode, args=["runs/a", "z.npy"]) == Decode(Path("runs/a"), Path("z.npy"))
