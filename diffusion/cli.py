"""The `diffusion` command: parses the options, then imports the file of the command and runs it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tyro

from diffusion.commands import options
from diffusion.errors import InputError

DESCRIPTION = "Diffusion models of a folder of images: train, sample, restore damaged images, measure the likelihood."


class Command(NamedTuple):
    """The class of a command's options, and the function that takes them, as "module:function" of `commands`."""

    options: Callable[..., Any]
    function: str


COMMANDS: dict[str, Command] = {
    "train": Command(options.Train, "train:train"),
    "distill": Command(options.Distill, "distill:distill"),
    "sample": Command(options.Sample, "sample:sample"),
    "inpaint": Command(options.Inpaint, "restore:inpaint"),
    "restore": Command(options.Restore, "restore:restore"),
    "evaluate": Command(options.Evaluate, "evaluate:evaluate"),
    "compare": Command(options.Compare, "compare:compare"),
    "inspect": Command(options.Inspect, "inspect:inspect"),
    "verify-resume": Command(options.VerifyResume, "verify_resume:verify_resume"),
    "doctor": Command(options.Doctor, "doctor:doctor"),
}
# Options and their values that had another name once, by command; an error says the new one.
RENAMED: dict[str, dict[tuple[str, str], str]] = {
    "distill": {("--calls", ""): "--nfe"},
    "evaluate": {("--method", "work"): "--method importance"},
    **{name: {("--method", "selected"): "--method resampling"} for name in ("sample", "inpaint", "restore")},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses arguments, by default those of the process, runs their command and returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return _dispatch(arguments, arguments[0] if arguments else "", prog="diffusion")


def main_as(name: str) -> int:
    """Runs one command as a program of its own, for train.py and sample.py."""
    return _dispatch(sys.argv[1:], name, prog=f"{name}.py")


def _dispatch(arguments: Sequence[str], name: str, *, prog: str) -> int:
    if renamed := _renamed(arguments, name):
        print(f"error: {renamed}", file=sys.stderr)
        return 2
    if prog == "diffusion":
        kinds = {command: entry.options for command, entry in COMMANDS.items()}
        chosen = tyro.extras.subcommand_cli_from_dict(kinds, prog=prog, description=DESCRIPTION, args=arguments)
    else:
        chosen = tyro.cli(COMMANDS[name].options, prog=prog, args=arguments)
    return run(chosen)


def _renamed(arguments: Sequence[str], name: str) -> str:
    """Says what an option of a command, or a value of one, is called now; empty if all have their names of today."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, _, given = argument.partition("=")
        for (old, value), new in RENAMED.get(name, {}).items():
            if option == old and value in ("", given or following):
                return f"{f'{old} {value}'.rstrip()}: is called {new} now"
    return ""


def run(chosen: Any) -> int:  # noqa: ANN401, the options of any command
    """Runs the command of parsed options and returns its exit code.

    A mistake that a person can mend is one line on standard error and exit code 2; Ctrl-C is 130.
    """
    entry = next(entry for entry in COMMANDS.values() if entry.options is type(chosen))
    module, _, function = entry.function.partition(":")
    try:
        code: int = getattr(importlib.import_module(f"diffusion.commands.{module}"), function)(chosen)
    except (InputError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return code
