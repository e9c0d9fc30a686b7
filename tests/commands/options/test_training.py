"""What the commands that train are given on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import tyro

from diffusion.commands.options import Distill, Train, VerifyResume


@pytest.mark.parametrize("kind", [Train, Distill, VerifyResume])
def test_overrides_follow_the_first_argument(kind: type[Train | Distill | VerifyResume]) -> None:
    parsed = tyro.cli(kind, args=["a", "training.steps=5", "data.path=b"])
    assert parsed == kind(Path("a"), ("training.steps=5", "data.path=b"))
