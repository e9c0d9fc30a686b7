"""Takes the places of files on this machine out of what is published.

A path becomes its last part: /home/jane/photos is photos. Addresses such as hf://OWNER/NAME stay. What still holds a
path afterwards is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from diffusion.errors import InputError

# A path from the root, from a home folder or from a drive, where it begins a text or follows one of these signs.
PATH = re.compile(r"(?:^|[\s'\"=(\[,;])(?:~[\w.-]*[/\\]|[A-Za-z]:[/\\]|\\\\|/(?=[^\s/]))")
SEPARATOR = re.compile(r"[/\\]+")


def without_paths(tree: Any, key: str = "") -> tuple[Any, list[str]]:  # noqa: ANN401, values as JSON has them
    """Returns nested plain values with paths as their last parts, and a line about each, named by its `key`."""
    if isinstance(tree, Mapping):
        parts = {name: without_paths(value, f"{key}.{name}" if key else str(name)) for name, value in tree.items()}
        return {name: value for name, (value, _) in parts.items()}, [
            line for _, lines in parts.values() for line in lines
        ]
    if isinstance(tree, list | tuple):
        inner = [without_paths(value, key) for value in tree]
        return [value for value, _ in inner], [line for _, lines in inner for line in lines]
    if not isinstance(tree, str) or not _is_path(tree):
        return tree, []
    name = last_part(tree)
    return name, [f"{key}: {tree} is published as {name}"]


def last_part(path: str) -> str:
    """Returns the last part of a path; an address stays as it is."""
    if "://" in path:
        return path
    parts = [part for part in SEPARATOR.split(path) if part not in ("", ".", "..", "~") and not part.endswith(":")]
    return parts[-1] if parts else "data"


def refuse_paths(name: str, text: str) -> None:
    """Raises InputError, which names the file, where a text that is to be published has a path of this machine."""
    if found := PATH.search(text):
        line = text[found.start() :].strip().partition("\n")[0]
        raise InputError(f"{name}: would publish a path of this machine, {line[:60]!r}; nothing was written")


def _is_path(text: str) -> bool:
    return "://" not in text and bool(SEPARATOR.search(text) or text.startswith("~"))
