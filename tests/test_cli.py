"""The command line: what it parses and offers, its help, its exit codes, and options that were renamed."""

from __future__ import annotations

import importlib
import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import diffusion
from diffusion import cli, distributed
from diffusion.commands import sample
from tests.conftest import fails
from tests.forkserver import launch
from tests.machines import machine

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "run", "--smapler", "ddim"], "--smapler: no such option of sample; did you mean --sampler?"),
        (["sample", "run", "--sampler", "hen"], "did you mean heun?"),
        (["sample", "run", "--n", "many"], "--n: must be a whole number, got 'many'"),
        (["sample"], "RUN: is missing; the command is: diffusion sample RUN"),
        (["evaluate", "run", "--unknown-color", "red"], "--unknown-color: no such option of evaluate; inpaint has it"),
        (["smaple", "run"], "smaple: no such command; did you mean sample?; there are demo, train, "),
        (["completes", "bash"], "completes: no such command"),
        (["completion", "bsh"], "SHELL: must be one of bash, zsh, got 'bsh'; did you mean bash?"),
        (["train", "digits", "--training.steps=4"], "an override is written without dashes, as in training.steps=4"),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    text = fails(capsys, *arguments)
    assert message in text and text.startswith("error: ") and text.count("\n") == 1


def test_what_only_tyro_knows_is_explained_in_its_box(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["restore", "run", "photo.png"])
    captured = capsys.readouterr()
    assert caught.value.code == 2 and "--operator" in captured.err + captured.out


@pytest.mark.parametrize("arguments", [[], ["--help"], ["help"]])
def test_alone_it_prints_its_help(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    text = capsys.readouterr().out
    assert caught.value.code == 0 and all(name in text for name in (*cli.COMMANDS, cli.COMPLETION))


def test_help_of_a_command_and_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["help", "distill"])
    assert "--nfe" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"diffusion {diffusion.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_of_completion_knows_every_command(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["completion", shell])
    script = capsys.readouterr().out
    assert caught.value.code in (0, None)
    assert all(name in script for name in cli.COMMANDS) and "--unknown-color" in script and "dpmpp_2m" in script


def test_bash_completes_commands_and_options() -> None:
    done = subprocess.run(["bash", "-c", COMPLETE], capture_output=True, text=True, cwd=ROOT)
    commands, listed, chosen = (line.split() for line in done.stdout.splitlines())
    assert set(commands) == {name for name in cli.COMMANDS if name.startswith("d")}, done.stderr
    assert "--sampler" in listed and "--unknown-color" not in listed
    assert "ddim" in chosen and "ddpm" in chosen and "heun" not in chosen


COMPLETE = f"""
eval "$({sys.executable} -m diffusion completion bash)"
complete_words() {{
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    $(complete -p diffusion | sed -E 's/.*-F ([^ ]+).*/\\1/') diffusion "${{@: -1}}"
    echo "${{COMPREPLY[@]}}"
}}
complete_words diffusion d
complete_words diffusion sample run --
complete_words diffusion sample run --sampler dd
"""


@pytest.mark.parametrize("arguments", ["--help", "completion bash", "--version"])
def test_a_reader_that_has_read_enough_is_no_error(arguments: str) -> None:
    command = f"{sys.executable} -u -m diffusion {arguments} | :; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_the_run_may_be_named_by_a_file_in_it(trained: Path, tmp_path: Path) -> None:
    """Samples of a checkpoint lie beside the checkpoints, which are removed as a run goes on."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    folder = run / "checkpoints" / "step-00000020"
    before = sorted(path.name for path in folder.iterdir())
    for number, path in enumerate((run / "config.json", run / "checkpoints", folder / "model.safetensors", folder)):
        assert cli.main(["sample", str(path), "--n", "1", "--steps", "1", "--seed", str(number)]) == 0
    assert {path.parent.name for path in run.glob("samples-*/00000.png")} == {"samples-0", "samples-1"}
    assert {path.parent.name for path in run.glob("step-00000020/samples-*/00000.png")} == {"samples-2", "samples-3"}
    assert sorted(path.name for path in folder.iterdir()) == before


def test_paths_of_options_begin_at_home_and_may_hold_variables(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(trained.parent))
    monkeypatch.setenv("RESULTS", str(tmp_path))
    assert cli.main(["sample", f"~/{trained.name}", "--n", "1", "--steps", "1", "--out=$RESULTS/a"]) == 0
    assert (tmp_path / "a" / "00000.png").exists()


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
diffusion.figures.tile(diffusion.load(sys.argv[1], device="cpu").sample(3, steps=2))
print(*sys.modules)
"""


def test_commands_start_without_what_only_trains_draws_compiles_or_brings_data(trained: Path) -> None:
    slow = {"matplotlib", "torchvision", "sklearn", "scipy", "pandas", "sympy", "torch._dynamo"}
    lines = python("-c", IMPORTS, str(trained)).stdout.splitlines()
    inspected, imported, drawn = (set(line.split()) for line in lines)
    assert "torch" in inspected and "accelerate" not in inspected, "a report without measurement does not train"
    assert {"torch", "accelerate", "diffusion.figures"} <= imported and not imported & slow
    assert imported < drawn and not drawn & slow, "nor does a model that is loaded and drawn from"


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
        one = module.removeprefix(".page.server" if name == "page" else "") or name
        assert one == attribute or name == "inpaint", "one file for each command, and one for both restorations"
        found = getattr(importlib.import_module(f".{module}", "diffusion.commands"), attribute)
        (parameter,) = inspect.signature(found, eval_str=True).parameters.values()
        assert parameter.annotation is options


def test_the_option_of_a_device_holds_for_its_command_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(monkeypatch, cuda=2, DIFFUSION_DEVICE="cpu")
    seen: list[torch.device] = []
    monkeypatch.setattr(sample, "sample", lambda options: seen.append(distributed.device()) or 0)
    assert cli.main(["sample", ".", "--device", "cuda:1"]) == cli.main(["sample", "."]) == 0
    assert seen == [torch.device("cuda:1"), torch.device("cpu")]
    message = fails(capsys, "sample", ".", "--device", "cuda:2")
    assert message == "error: --device: must be a device of this machine, cpu, cuda:0, cuda:1, got cuda:2\n"


COMPUTE = {"demo", "train", "distill", "sample", "encode", "decode", "inpaint", "restore", "evaluate", "compare"}
COMPUTE |= {"complete", "distance", "inspect", "verify-resume"}


def test_whatever_computes_takes_a_device() -> None:
    assert {name for name, entry in cli.COMMANDS.items() if hasattr(entry.options, "device")} == COMPUTE


@pytest.mark.parametrize(("platform", "expected"), [("darwin", "1"), ("linux", None)])
def test_what_a_mac_lacks_is_done_on_its_cpu(
    monkeypatch: pytest.MonkeyPatch, platform: str, expected: str | None
) -> None:
    """torch reads the variable when it is imported; nothing is there to see yet when the command is imported."""
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    found: list[str | None] = []
    monkeypatch.setattr(cli, "_as_meant", lambda chosen: found.append(os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK")))
    monkeypatch.setattr(cli, "_called", lambda function, chosen: 0)
    assert cli.main(["doctor"]) == 0 and found == [expected]
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "0")
    assert cli.main(["doctor"]) == 0 and found == [expected, "0"]
