"""The models of the hub that lie in the cache of this package, each a run folder for one commit (`resolve.py`).

A run in runs/ has names of its own for their files, so that removing them takes nothing from it.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from diffusion.data.images import store
from diffusion.data.images.inventory import Stored, size, unfinished

MODELS = "models"
# The parts of a name are those of the repository, the path within it, the commit, and the variant of the weights.
BETWEEN = "--"
NAME = re.compile(r"(?P<repository>.+)--(?P<commit>[0-9a-f]{12})(--(?P<variant>.+))?")


def models(cache: Path) -> list[Stored]:
    """Returns the models in a cache, the largest first, and what is being written there or was left unfinished."""
    place = cache / MODELS
    found = [_stored(path) for path in place.iterdir() if path.is_dir()] if place.is_dir() else []
    return sorted(found, key=lambda entry: (-entry.bytes, entry.path.name))


def note_use(model: Path) -> None:
    """Notes that a model is used now. A cache that belongs to another user is left as it is."""
    with contextlib.suppress(OSError):
        os.utime(model)


def name_of(repository: list[str], commit: str, variant: str) -> str:
    """Returns the name of the folder of a model, by its owner, name and path, the commit and the variant."""
    return BETWEEN.join([*repository, commit[:12], *filter(None, [variant])])


def commit_of(model: Path) -> str:
    """Returns the first digits of the commit of a model; empty for a folder that is none."""
    parts = NAME.fullmatch(model.name)
    return parts["commit"] if parts else ""


def _stored(path: Path) -> Stored:
    parts = NAME.fullmatch(path.name)
    if parts is None or path.name.startswith((store.UNFINISHED, ".")):
        return unfinished(path)
    address = f"hf://{parts['repository'].replace(BETWEEN, '/')}@{parts['commit']}"
    what = f"model of the hub{', ' * bool(parts['variant'])}{parts['variant'] or ''}"
    return Stored(path, what, None, (address,), size(path), os.lstat(path).st_mtime)
