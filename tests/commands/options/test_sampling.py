"""What `diffusion sample` is given on the command line."""

from __future__ import annotations

from pathlib import Path

import tyro

from diffusion.commands.options import Sample


def test_a_run_alone_is_enough_and_restores_nothing() -> None:
    parsed = tyro.cli(Sample, args=["runs/a"])
    assert parsed == Sample(Path("runs/a")) and parsed.image is None and not parsed.film
