"""Counts the files that a restoration enters from the problem to the samples, and its returns to them.

    python -m benchmarks.walk RUN IMAGE [--out FILE] [--check]

Runs `diffusion restore RUN IMAGE --operator downsample:factor=2` and notes the file of each function call within the
package, from the moment when its problem is given to the model to that when its samples are drawn. What reads
photographs and writes results is not of the walk. Consecutive calls within one file are one stay. A stay in a file that
was entered before is a return. Code that every computation uses does not count as a stay: the
ground floor, the arithmetic of operators, schedules and Gaussians, the configuration, the description of the data,
properties and constructors, and everything in the loop of `samplers.sample`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import diffusion
from benchmarks import common
from benchmarks.common import Goal
from diffusion import cli

FOLDER = Path(diffusion.__file__).parent
EVERYWHERE = {
    *(
        "errors",
        "files",
        "randomness",
        "transfers",
        "threads",
        "memory",
        "distributed",
        "progress",
        "model.progress",
        "precision",
        "compilation",
        "draw",
        "registries",
        "config",
    ),
    *("schedules", "gaussian", "denoiser", "grids", "backbones", "checkpoint", "data.spec", "__init__"),
    *(f"operators.{name}" for name in ("operator", "linear", "downsample", "standardize")),
}
# What is restored in parts is put together again, a return for each of the two.
FILES, RETURNS = 14, 13


@dataclass
class Walk:
    """A profiler of this thread that notes stays in the files of the package."""

    stays: list[str] = field(default_factory=list)
    begun: bool = False
    depth: int = 0
    passed: set[CodeType] = field(default_factory=lambda: set(accessors()))

    @property
    def entered(self) -> int:
        """The number of files entered."""
        return len(set(self.stays))

    @property
    def returns(self) -> int:
        """The number of stays in a file that had been entered before."""
        return len(self.stays) - self.entered

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:  # noqa: ANN401, as profilers are called
        code = frame.f_code
        path = Path(code.co_filename)
        if event not in ("call", "return") or not path.is_relative_to(FOLDER):
            return
        name = ".".join(path.relative_to(FOLDER).with_suffix("").parts)
        if (name, code.co_name) == ("model.model", "solve"):
            self.begun = event == "call"
        if (name, code.co_name) == ("samplers", "sample"):
            self.depth += 1 if event == "call" else -1
            outermost = self.depth == 1 and event == "call"
        else:
            outermost = self.depth == 0 and event == "call"
        hidden = code in self.passed or code.co_name.startswith("<") or code.co_name in ("__init__", "__post_init__")
        used = any(name == other or name.startswith(f"{other}.") for other in EVERYWHERE)
        if self.begun and outermost and not hidden and not used and self.stays[-1:] != [name]:
            self.stays.append(name)


def accessors() -> list[CodeType]:
    """Returns the code of all properties of the package."""
    for info in pkgutil.walk_packages(diffusion.__path__, "diffusion."):
        if not info.name.endswith("__main__"):
            importlib.import_module(info.name)
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "diffusion"]
    classes = {kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)}
    members = [member for kind in classes for member in vars(kind).values()]
    getters = [getattr(member, "fget", None) or getattr(member, "func", None) for member in members]
    return [getter.__code__ for getter in getters if inspect.isfunction(getter)]


def walk(run: Path, image: Path) -> Walk:
    """Returns the walk of one restoration, whose files go to a temporary folder."""
    noted = Walk()
    with tempfile.TemporaryDirectory() as out:
        options = ["--operator", "downsample:factor=2", "--method", "pigdm", "--n", "2", "--steps", "1", "--out", out]
        before = sys.getprofile()
        sys.setprofile(noted)
        try:
            code = cli.main(["restore", str(run), str(image), *options])
        finally:
            sys.setprofile(before)
    if code:
        raise SystemExit(code)
    return noted


def main(arguments: list[str] | None = None) -> None:
    options = common.parser(__doc__, "walk")
    options.add_argument("run", type=Path, help="run folder of a model of images")
    options.add_argument("image", type=Path, help="degraded image")
    chosen = options.parse_args(arguments)
    found = walk(chosen.run, chosen.image)
    rows = [{"stay": number, "file": name} for number, name in enumerate(found.stays, 1)]
    goals = [
        Goal("files entered", found.entered, FILES, "at most"),
        Goal("returns", found.returns, RETURNS, "at most"),
    ]
    common.finish(goals, {"stays": rows}, chosen.out, check=chosen.check, values="one walk")


if __name__ == "__main__":
    main()
