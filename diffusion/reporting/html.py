"""report.html: a run in one file, which opens anywhere, asks nothing of any server, and outlives the run.

It is complete without its script; with it, tables of numbers become charts and sheets of pictures become scrubbers. The
content security policy names that script and that style by their hashes, so that nothing else can run, and nothing can
be fetched. BUDGET bounds its bytes however long the run was: curves are thinned, at most GRIDS grids are kept, and each
picture has its share (`reporting.pictures`).
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from diffusion.files import write_text
from diffusion.reporting import comparison, inlining, sections
from diffusion.reporting.markup import Markup, data, element, joined, plain
from diffusion.reporting.names import PICTURES
from diffusion.reporting.run_folder import RunFolder
from diffusion.reporting.state import State
from diffusion.reporting.summary import curves
from diffusion.reporting.words import moment

REPORT = "report.html"
# The most bytes of a report or of a comparison, of which GRIDS_SHARE are for grids of samples, OTHERS_SHARE for other
# pictures, and the rest for numbers, words and the script.
BUDGET, GRIDS_SHARE, OTHERS_SHARE = 6_000_000, 3_900_000, 1_200_000
# The most grids that are kept: the first, the last, and between them ever fewer.
GRIDS = 60
PARTS = Path(__file__).parent / "parts"
# In the order in which they import each other.
MODULES, STYLES = ("dom", "axes", "chart", "curves", "scrubber", "report"), ("base", "report")


def write_report(run: Path | RunFolder, *, state: State | None = None) -> Path:
    """Writes report.html into a run folder in one step, so that a reader sees the old one or the new, and returns it.

    `state` is what the run is about to be, for the process that holds its lock; by default it is what the folder says.
    Raises OSError where it cannot be written.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    shares = sections.Shares(GRIDS, GRIDS_SHARE // GRIDS, OTHERS_SHARE // len(PICTURES))
    now = time.time()
    body = joined(
        sections.head(folder, state or folder.state, now),
        element("main", sections.parts(folder, shares, _called(folder.path))),
    )
    drawn = {
        "runs": [{"name": plain(folder.name, 80), "curves": curves(folder)}],
        "levels": sections.levels(folder),
        "marks": sections.marks(folder),
    }
    path = folder.path / REPORT
    write_text(path, _document(f"{plain(folder.name, 80)} · diffusion", body, drawn, now))
    return path


def write_comparison(runs: Sequence[Path | RunFolder], path: Path) -> Path:
    """Writes a page of the same form about several runs: their numbers, their curves over each other, where their
    configurations differ, and their grids by step, side by side.

    Raises OSError where it cannot be written.
    """
    folders = [run if isinstance(run, RunFolder) else RunFolder(run) for run in runs]
    names, count = comparison.names([folder.path for folder in folders]), max(1, len(folders))
    # With many runs there are fewer grids of each, and with very many they are smaller too.
    kept = max(6, GRIDS // count)
    shares = sections.Shares(kept, GRIDS_SHARE // (kept * count), OTHERS_SHARE // count)
    now = time.time()
    body = joined(
        comparison.head(folders, now), element("main", comparison.parts(list(zip(names, folders, strict=True)), shares))
    )
    drawn = {
        "runs": [{"name": name, "curves": curves(each)} for name, each in zip(names, folders, strict=True)],
        "levels": [
            {**line, "name": name} for name, each in zip(names, folders, strict=True) for line in sections.levels(each)
        ],
        # Those of several runs would stand over each other.
        "marks": [],
    }
    write_text(path, _document(f"{len(folders)} runs · diffusion", body, drawn, now))
    return path


def _called(path: Path) -> str:
    """How a run is called in commands: its path from here if it lies below, else its whole path."""
    whole = path.absolute()
    return os.path.relpath(whole) if whole.is_relative_to(Path.cwd()) else str(whole)


def _document(title: str, body: Markup, drawn: object, now: float) -> str:
    """Returns a whole page, whose policy allows its own script and style and nothing from anywhere."""
    script, style = _script(), _style()
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = joined(
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        Markup(f"<style>{style}</style>"),
    )
    foot = element(
        "footer", f"Written {moment(now)}. This file needs nothing from anywhere: copy it, keep it, send it."
    )
    inner = joined(
        element("div", body, foot, class_="report"),
        data("data", drawn),
        Markup(f'<script type="module">{script}</script>'),
    )
    return f"<!doctype html>\n{element('html', element('head', head), element('body', inner), lang='en')}\n"


@cache
def _script() -> str:
    return inlining.bundled({name: (PARTS / f"{name}.js").read_text(encoding="utf-8") for name in MODULES})


@cache
def _style() -> str:
    return "\n".join((PARTS / f"{name}.css").read_text(encoding="utf-8") for name in STYLES)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
