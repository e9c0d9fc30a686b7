"""`diffusion demo` is `diffusion train digits`."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion import cli, config, training
from diffusion.config import Config

DIGITS = Path(__file__).parents[2] / "configs" / "digits.toml"


def test_it_trains_by_the_shipped_configuration_and_takes_overrides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    began: list[tuple[Config, Path]] = []
    monkeypatch.setattr(training, "train", lambda experiment, run, **options: began.append((experiment, run)) or 0)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo"]) == 0
    assert cli.main(["demo", "--out", "x", "training.steps=20"]) == 0
    assert cli.main(["train", "digits"]) == 0
    assert cli.main(["train", str(DIGITS)]) == 0
    whole = config.load(DIGITS), Path("runs/digits")
    assert began == [whole, (config.load(DIGITS, ["training.steps=20"]), Path("x")), whole, whole]
    out = capsys.readouterr().out.splitlines()
    assert out[::2] == [f"configuration {DIGITS}"] * 4
    assert [line.rpartition(" page ")[2] for line in out[1::2]] == [f"{run} --open" for _, run in began]
