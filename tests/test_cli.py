"""The command line: what it parses and offers, its help, its exit codes, and options that were renamed."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion import cli
from tests.conftest import fails
from tests.forkserver import launch

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["sample", "run", "--smapler", "ddim"], ["--smapler", "--sampler"]),
        (["sample", "run", "--sampler", "euler"], ["euler", "ddim"]),
        (["sample", "run", "--n", "many"], ["many"]),
        (["sample"], ["RUN"]),
        (["smaple", "run"], ["sample"]),
    ],
)
def test_a_mistyped_option_is_named(capsys: pytest.CaptureFixture, arguments: list[str], parts: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    captured = capsys.readouterr()
    assert caught.value.code == 2
    assert all(part in captured.err + captured.out for part in parts)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env={**os.environ, "COLUMNS": "120"}
    )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train.py"], ["CONFIG", "SECTION.KEY=VALUE", "--out"]),
        (["sample.py"], ["RUN", "--n", "--steps", "--image", "--mask", "--film", "repaint", "dpmpp_2m"]),
        (
            ["-m", "diffusion"],
            ["train", "distill", "sample", "inpaint", "restore", "evaluate", "inspect", "verify-resume", "doctor"],
        ),
        (["-m", "diffusion", "distill"], ["RUN", "--nfe", "SECTION.KEY=VALUE"]),
        (["-m", "diffusion", "inpaint"], ["IMAGE", "--mask", "--method", "--n"]),
        (["-m", "diffusion", "restore"], ["IMAGE", "--operator", "--noise", "--method", "--n", "--out"]),
    ],
)
def test_help_needs_no_torch(arguments: list[str], parts: list[str]) -> None:
    done = python("-X", "importtime", *arguments, "--help")
    assert done.returncode == 0
    assert all(part in done.stdout for part in parts), done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "tyro" in imported and not imported & {"torch", "numpy", "PIL", "pydantic", "matplotlib", "accelerate"}


IMPORTS = """
import sys
import diffusion.commands.inspect
print(*sys.modules)
import diffusion.commands.sample, diffusion.commands.evaluate, diffusion.training
print(*sys.modules)
"""


def test_commands_start_without_what_only_trains_draws_or_brings_data() -> None:
    slow = {"matplotlib", "torchvision", "sklearn", "scipy", "pandas"}
    inspected, imported = (set(line.split()) for line in python("-c", IMPORTS).stdout.splitlines())
    assert "torch" in inspected and "accelerate" not in inspected, "a report without measurement does not train"
    assert {"torch", "accelerate", "diffusion.figures"} <= imported and not imported & slow


def test_the_scripts_end_with_the_code_of_the_command(tmp_path: Path) -> None:
    done = launch(["sample.py", str(tmp_path / "gone")])
    _, err = done.communicate()
    assert done.returncode == 2 and err.startswith("error: ") and "no such run folder" in err
    assert err.count("\n") == 1


def test_an_interrupted_command_ends_with_130(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("diffusion.commands.sample.load", interrupted)
    assert cli.main(["sample", str(trained)]) == 130


RUN_AND_IMAGE = {
    "sample": ["run"],
    "inpaint": ["run", "photo.png"],
    "restore": ["run", "photo.png", "--operator", "gray"],
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["distill", "run", "--calls", "4"], "error: --calls: is called --nfe now\n"),
        (["distill", "run", "--calls=4"], "error: --calls: is called --nfe now\n"),
        (["evaluate", "run", "--method=work"], "error: --method work: is called --method importance now\n"),
        (["evaluate", "work"], "error: work: no such run folder; it is made by: diffusion train CONFIG --out work\n"),
        (["evaluate", "run", "--method", "work"], "error: --method work: is called --method importance now\n"),
        *(
            ([command, *rest, "--method", "selected"], "error: --method selected: is called --method resampling now\n")
            for command, rest in RUN_AND_IMAGE.items()
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_option_that_was_renamed_is_an_error_that_says_the_new_name(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert fails(capsys, *arguments) == message


def test_every_command_has_a_function_that_takes_its_options() -> None:
    for name, (options, function) in cli.COMMANDS.items():
        module, _, attribute = function.partition(":")
        assert module == attribute or name == "inpaint", "one file for each command, and one for both restorations"
        found = getattr(importlib.import_module(f"diffusion.commands.{module}"), attribute)
        (parameter,) = inspect.signature(found, eval_str=True).parameters.values()
        assert parameter.annotation is options
