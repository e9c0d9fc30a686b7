"""The command runs what it is told, joins tables and goals, and names what it lacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.common import Goal
from benchmarks.experiments import __main__ as command
from benchmarks.experiments.setting import Outcome, Setting
from diffusion.evaluation import Estimate


def test_experiments_share_a_record_and_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Setting] = []

    def experiment(setting: Setting) -> Outcome:
        given.append(setting)
        number = len(given)
        bits = Estimate(float(number), 0.5, {})
        return {f"table {number}": [{"bits": bits}]}, [Goal(f"goal {number}", number, 2.0)]

    monkeypatch.setattr(command, "EXPERIMENTS", {"one": experiment, "two": experiment})
    out = tmp_path / "a" / "found.json"
    with pytest.raises(SystemExit) as exit:
        command.main(["one", "two", "--minutes", "3", "--data", "here", "--out", str(out), "--check"])
    assert exit.value.code == 1
    assert given == 2 * [Setting(tmp_path / "a" / "found", 3.0, Path("here"))] and given[0].seconds == 180
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record["tables"]["table 2"] == [{"bits": {"mean": 2.0, "half_width": 0.5, "errors": {}}}]
    assert [goal["met"] for goal in record["goals"]] == [False, True]


def test_the_tables_say_what_stands_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "EXPERIMENTS", {"one": lambda setting: ({"table": [{"bits": 1.0}]}, [])})
    command.main(["one", "--out", str(tmp_path / "found.json")])
    assert "table; mean ± half the 95 % interval" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["texture", "cifar10", "fashion", "photographs"])
def test_what_needs_images_says_which(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        command.main([name, "--data", str(tmp_path / "none")])
    assert exit.value.code == 2
    assert f"{name}: --data: must name " in capsys.readouterr().err
