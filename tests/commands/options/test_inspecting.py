"""What the commands that look at data are given on the command line."""

from __future__ import annotations

import pytest
import tyro

from diffusion.commands.options import Inspect


@pytest.mark.parametrize("path", ["photos", "hf://owner/name:train"])
def test_a_path_stays_as_it_is_written(path: str) -> None:
    assert tyro.cli(Inspect, args=[path, "--no-decode"]) == Inspect(path, decode=False)
