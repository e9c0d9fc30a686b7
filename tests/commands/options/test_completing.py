"""The options of completing images and their defaults."""

from __future__ import annotations

from pathlib import Path

import tyro

from diffusion.commands.options import Complete


def test_one_completion_of_each_image_with_the_defaults_of_restoring() -> None:
    assert tyro.cli(Complete, args=["runs/photos"]) == Complete(Path("runs/photos"))
    found = tyro.cli(Complete, args=["runs/photos", "--n", "4", "--steps", "16", "--again", "--data-path", "moved"])
    assert found == Complete(Path("runs/photos"), n=4, steps=16, again=True, data_path=Path("moved"))
