"""The options of restoration name the degradations that there are."""

from __future__ import annotations

import re

import pytest

from diffusion import cli
from diffusion.commands.options import restoring
from diffusion.operators import OPERATORS


def test_the_help_names_every_operator(capsys: pytest.CaptureFixture[str]) -> None:
    assert ", ".join(OPERATORS) == restoring.OPERATORS
    with pytest.raises(SystemExit):
        cli.main(["restore", "--help"])
    assert f"The degradation: {', '.join(OPERATORS)}. " in re.sub(r"[\s│]+", " ", capsys.readouterr().out)
