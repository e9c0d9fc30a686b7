"""`diffusion train`: trains in a run folder."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from diffusion import config, shipped, training
from diffusion.commands.options import Train
from diffusion.distributed import say


def train(options: Train) -> int:
    """Trains the experiment of a configuration and returns the exit code."""
    file = config.locate(options.config)
    if file.is_relative_to(shipped.folder()):
        say(f"configuration {file}")
    run = options.out or Path("runs") / file.stem
    code = training.train(config.load(file, options.overrides), run, strict=options.strict)
    if code == 0:
        say(page_line(run))
    return code


def page_line(run: Path) -> str:
    """Says how to look at a run that has ended: the command that opens the page, as it can be typed here."""
    python = Path(sys.executable)
    here = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    program = "diffusion" if shutil.which("diffusion") else f"{shlex.quote(str(here))} -m diffusion"
    return f"to look at it in the browser: {program} page {shlex.quote(str(run))} --open"
