"""The `diffusion` command: parses the options, then imports the file of the command and runs it.

Mistakes that `diffusion.arguments` finds are one line on standard error; tyro explains the others in a box.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import tyro

import diffusion
from diffusion import launched
from diffusion.arguments import HELP, arranged, with_expanded_paths
from diffusion.commands import options
from diffusion.errors import InputError, nearest
from diffusion.files import is_address

DESCRIPTION = "Diffusion models of a folder of images: train, sample, restore damaged images, measure the likelihood."


class Command(NamedTuple):
    """The class of a command's options, and the function that takes them: "module:function", relative to `commands`."""

    options: Callable[..., Any]
    function: str


COMMANDS: dict[str, Command] = {
    "demo": Command(options.Demo, "demo:demo"),
    "train": Command(options.Train, "train:train"),
    "distill": Command(options.Distill, "distill:distill"),
    "sample": Command(options.Sample, "sample:sample"),
    "encode": Command(options.Encode, "encode:encode"),
    "decode": Command(options.Decode, "decode:decode"),
    "inpaint": Command(options.Inpaint, "restore:inpaint"),
    "restore": Command(options.Restore, "restore:restore"),
    "complete": Command(options.Complete, "complete:complete"),
    "evaluate": Command(options.Evaluate, "evaluate:evaluate"),
    "compare": Command(options.Compare, "compare:compare"),
    "distance": Command(options.Distance, "distance:distance"),
    "import": Command(options.Import, "import_:import_"),
    "export": Command(options.Export, "export:export"),
    "publish": Command(options.Publish, "publish:publish"),
    "page": Command(options.Page, ".page.server:page"),
    "inspect": Command(options.Inspect, "inspect:inspect"),
    "verify-resume": Command(options.VerifyResume, "verify_resume:verify_resume"),
    "cache": Command(options.Cache, "cache:cache"),
    "doctor": Command(options.Doctor, "doctor:doctor"),
    "schema": Command(options.Schema, "schema:schema"),
}
# The command that tyro itself answers, as it alone knows all options.
COMPLETION = "completion"
# The number of SIGPIPE, which not all systems have.
BROKEN_PIPE = 13
# Options and their values that had another name once, by command; an error says the new one.
RENAMED: dict[str, dict[tuple[str, str], str]] = {
    "distill": {("--calls", ""): "--nfe"},
    "evaluate": {("--method", "work"): "--method importance"},
    **{name: {("--method", "selected"): "--method resampling"} for name in ("sample", "inpaint", "restore")},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses arguments, runs their command and returns its exit code; by default, as the program of this process."""
    if arguments is None:
        return launched.leave(main(sys.argv[1:]))
    given = [*arguments] or ["--help"]
    if given[0] == "help":
        given = [*given[1:], "--help"]
    return _dispatch(given, given[0], prog="diffusion")


def main_as(name: str) -> int:
    """Runs one command as a program of its own, for train.py and sample.py."""
    return launched.leave(_dispatch(sys.argv[1:], name, prog=f"{name}.py"))


def _dispatch(arguments: Sequence[str], name: str, *, prog: str) -> int:
    if renamed := _renamed(arguments, name):
        return _failed(renamed)
    try:
        return _run_parsed(arguments, name, prog=prog)
    except BrokenPipeError:
        # Whoever reads the output has read enough, as in `diffusion --help | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + BROKEN_PIPE


def _run_parsed(arguments: Sequence[str], name: str, *, prog: str) -> int:
    if [*arguments] == ["--version"]:
        print(f"diffusion {diffusion.__version__}", flush=True)
        return 0
    try:
        if prog == "diffusion":
            chosen = _parse_all(_arranged(arguments, name, program=True))
        else:
            chosen = tyro.cli(COMMANDS[name].options, prog=prog, args=_arranged(arguments, name, program=False))
    except InputError as error:
        return _failed(error)
    if isinstance(chosen, options.Completion):
        return _complete(chosen.shell)
    return run(chosen)


def _parse_all(arguments: Sequence[str]) -> Any:  # noqa: ANN401, the options of any command
    """Parses a command and its options."""
    kinds = {name: entry.options for name, entry in COMMANDS.items()} | {COMPLETION: options.Completion}
    return tyro.extras.subcommand_cli_from_dict(kinds, prog="diffusion", description=DESCRIPTION, args=arguments)


def _complete(shell: str) -> int:
    """Prints the script by which a shell completes commands and options."""
    _parse_all(["--tyro-print-completion", shell])
    return 0


def _arranged(arguments: Sequence[str], name: str, *, program: bool) -> list[str]:
    """Returns arguments in the order that tyro takes. Raises InputError for a command or option that does not exist."""
    rest = arguments[1:] if program else arguments
    if program and (name in HELP or name.startswith("--tyro-")):
        return [*arguments]
    kinds: dict[str, Any] = {command: entry.options for command, entry in COMMANDS.items()}
    kinds[COMPLETION] = options.Completion
    if name not in kinds:
        raise InputError(f"{name}: no such command{nearest(name, kinds)}; there are {', '.join(kinds)}")
    return [*([name] if program else []), *arranged(rest, kinds[name], name, kinds.items())]


def _failed(error: object) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


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
    if sys.platform == "darwin":  # torch reads it when it is imported, and does on the CPU what MPS lacks.
        os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    try:
        return _called(entry.function, _as_meant(chosen))
    except BrokenPipeError:
        raise
    except (InputError, OSError, FloatingPointError) as error:
        return _failed(error)
    except KeyboardInterrupt:
        return 130


def _called(function: str, chosen: Any) -> int:  # noqa: ANN401, the options of any command
    """Imports the function of a command and calls it, on the device that the options name."""
    module, _, name = function.partition(":")
    command: Callable[[Any], int] = getattr(importlib.import_module(f".{module}", "diffusion.commands"), name)
    if getattr(chosen, "device", None) is None:
        return command(chosen)
    from diffusion import devices

    with devices.given(chosen.device):
        return command(chosen)


def _as_meant(chosen: Any) -> Any:  # noqa: ANN401, the options of any command
    """Returns options with paths expanded, and with the run that a file or a folder of it or an address stands for."""
    chosen = with_expanded_paths(chosen)
    if not hasattr(chosen, "run"):
        return chosen
    if is_address(chosen.run):
        from diffusion.exchange.resolve import at_hand

        return replace(chosen, run=at_hand(str(chosen.run)))
    from diffusion.checkpoint import named

    return replace(chosen, run=named(chosen.run))
