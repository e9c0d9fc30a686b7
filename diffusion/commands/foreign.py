"""Other packages called diffusion in the environment of this one.

The distribution diffusion of the package index is the client library of another firm. It installs a package diffusion
too: the one that is installed later replaces files of the other, and neither works. A folder called diffusion may also
hide this package from programs that run beside it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

import diffusion

DISTRIBUTION, PACKAGE = "reverse-diffusion", "diffusion"
COMMAND = "diffusion.cli:main"
AGAIN = f"pip install --force-reinstall --no-deps {DISTRIBUTION}"


@dataclass(frozen=True)
class Foreign:
    """A package called diffusion that is not this one, and what to do; `broken` if files of this one were replaced."""

    text: str
    cure: str
    broken: bool = False


def foreign() -> Iterator[Foreign]:
    """Yields the distributions and folders that offer another package diffusion, and the damage that they did."""
    for found in distributions():
        name = re.sub(r"[-_.]+", "-", str(found.metadata["Name"])).lower()
        if name == DISTRIBUTION:
            yield from _replaced(found)
        elif name == PACKAGE or PACKAGE in _top_level(found):
            yield _described(found, name)
    ours = Path(diffusion.__file__).resolve()
    for folder in dict.fromkeys(Path(entry or ".").resolve() for entry in (*sys.path, "")):
        for file in (folder / PACKAGE / "__init__.py", folder / f"{PACKAGE}.py"):
            if file.is_file() and file.resolve() != ours:
                yield Foreign(
                    f"{file} is another package of this name, which programs beside it import",
                    "rename it, or run programs elsewhere",
                )


def _top_level(found: Distribution) -> set[str]:
    """The names of the packages and modules that a distribution installs."""
    listed = (found.read_text("top_level.txt") or "").split()
    files = (Path(file).parts[0].removesuffix(".py") for file in found.files or () if str(file).endswith(".py"))
    return {*listed, *files}


def _described(found: Distribution, name: str) -> Foreign:
    """Tells an earlier version of this package, which had another name, from foreign ones."""
    if any(entry.value == COMMAND for entry in found.entry_points):
        text = f"{name} {found.version} is this package under its former name"
    else:
        text = f"{name} {found.version} installs another package diffusion into the place of this one"
    return Foreign(text, f"pip uninstall {name}, then: {AGAIN}; or give each an environment of its own")


def _replaced(found: Distribution) -> Iterator[Foreign]:
    """Yields the damage where files of this package are not those that were installed."""
    changed = [
        str(file)
        for file in found.files or ()
        if file.parts[0] == PACKAGE and file.hash is not None and file.hash.mode == "sha256"
        if not (path := Path(str(file.locate()))).is_file() or _hash(path) != file.hash.value
    ]
    if changed:
        more = f" and {len(changed) - 1} more files" if len(changed) > 1 else ""
        yield Foreign(f"{changed[0]}{more} not as {DISTRIBUTION} {found.version} installed it", AGAIN, broken=True)


def _hash(path: Path) -> str:
    """The sha256 of a file in the form of a RECORD."""
    return base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
