"""The options of the page in the browser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Page:
    """Show runs in the browser while they train and afterwards: curves, pictures, and jobs such as inpainting.

    It reads the folders of runs and writes results below them. Training does not depend on it. It needs starlette and
    uvicorn: pip install 'reverse-diffusion[page]'.
    """

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|RUNS")] = Path("runs")
    """A run, or a folder of runs."""
    host: str = "127.0.0.1"
    """The address to listen at, by default that of this machine for itself alone. Any other one needs a token."""
    port: int | None = None
    """The port, which must be free; by default 8765 or the next free one."""
    token: str | None = None
    """What whoever opens the page has to know; for other hosts than this machine one is made up if none is given."""
    open: bool = False
    """Open the page in the browser of this machine."""
