"""What the commands that hand a model on are given on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import tyro

from diffusion.commands.options import Export, Publish


def test_a_form_must_be_chosen_and_a_repository_is_no_path() -> None:
    assert tyro.cli(Export, args=["runs/a", "--to", "onnx", "--steps", "4"]) == Export(Path("runs/a"), "onnx", steps=4)
    found = tyro.cli(Publish, args=["runs/a", "jane/shapes", "--license", "mit", "--private"])
    assert found == Publish(Path("runs/a"), "jane/shapes", "mit", True)


@pytest.mark.parametrize("arguments", [["runs/a"], ["runs/a", "--to", "pickle"]])
def test_other_forms_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tyro.cli(Export, args=arguments)
    assert "diffusers" in capsys.readouterr().err
