"""Runs the parts of `benchmarks.gpu`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

import benchmarks.gpu
from benchmarks import common
from benchmarks.gpu import kernels, matched, profile, shipped, smoke, waits
from benchmarks.gpu.parts import Part, Run, apart, measured
from benchmarks.gpu.place import Place, place
from benchmarks.peers import missing


def plan(there: Place, *, rounds: int, compile: bool = True) -> list[Part]:
    """Returns the parts in their order; their weights are about the seconds that they take of eight minutes."""
    settings = [matched.SETTINGS[size] for size in ([8] if there.tiny else [32, 64])]
    absent = "diffusers" if "diffusers" in missing() else ""
    bounds = tuple(matched.goal(setting, needs=absent) for setting in settings)
    sizes = {"cifar10": 60.0, "folder64": 80.0, "folder128": 60.0, "folder256": 60.0}
    return [
        Part("smoke", 60, smoke.measure, (smoke.GOAL,)),
        Part("waits", 25, waits.measure, (waits.TRAINING, waits.SAMPLING) if there.watch else ()),
        Part("profile", 50, partial(profile.measure, compile=compile)),
        Part("kernels", 15, partial(kernels.measure, rounds=rounds)),
        *(
            Part(name, weight, partial(shipped.measure, name, rounds=rounds, compile=compile), shipped.goals(name))
            for name, weight in sizes.items()
        ),
        Part("matched", 5 if absent else 70, partial(matched.measure, settings, rounds=rounds), bounds),
    ]


def main(words: Sequence[str] | None = None, *, there: Place | None = None, run: Run = apart) -> None:
    """Runs what the words of the command line ask for; on a device `there` if it is given, and its parts by `run`."""
    options = common.parser(benchmarks.gpu.__doc__, "gpu")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--minutes", type=float, default=8.0, help="time for the whole benchmark")
    options.add_argument("--parts", nargs="+", metavar="NAME", help="only these parts")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    chosen = options.parse_args(words)
    there = there or place(torch.device(chosen.device))
    parts = plan(there, rounds=chosen.rounds, compile=chosen.compile)
    if unknown := {*(chosen.parts or ())} - {part.name for part in parts}:
        options.error(f"--parts: no part is called {', '.join(unknown)}; they are {', '.join(p.name for p in parts)}")
    parts = [part for part in parts if not chosen.parts or part.name in chosen.parts]
    tables, goals = measured(parts, there, chosen.minutes, run)
    common.finish(goals, tables, chosen.out, check=chosen.check, device=there.device)


if __name__ == "__main__":
    main()
