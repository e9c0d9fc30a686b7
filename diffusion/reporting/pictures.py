"""Pictures within a page, as data: URLs, each within a share of its bytes.

A picture is kept to the last bit where its share allows it: as its file, or as lossless WebP where that is smaller. A
larger one becomes lossy WebP, and where even that is too large it is made smaller.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from diffusion.reporting.markup import plain

# Qualities of lossy WebP, of which the first shows no difference beside the original.
QUALITIES = (92, 82, 70)
# No side of a picture is longer: it would not be seen on a screen.
SIDE = 2400
# Pictures are kept to the last bit if their files are at most so many times their share: WebP rarely saves more.
HOPE = 2.0


@dataclass(frozen=True)
class Picture:
    """A picture as a data: URL, with its width and height in pixels."""

    url: str
    width: int
    height: int


def embedded(path: Path | None, most: int) -> Picture | None:
    """Returns a picture whose URL has at most `most` characters; None for a file that is missing or damaged.

    The newest ones are remembered, as a report is written again and again with most of the same pictures.
    """
    if path is None:
        return None
    try:
        stamp = path.stat()
        return _embedded(path, stamp.st_mtime_ns, stamp.st_size, most)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


@lru_cache(maxsize=192)
def _embedded(path: Path, modified: int, size: int, most: int) -> Picture:
    """`embedded` of a file at a time, which tells it from those that were there before."""
    with Image.open(path) as image:
        image.load()
        picture = image.convert(image.mode if image.mode in ("L", "RGB", "RGBA") else "RGB")
    if max(picture.size) > SIDE:
        picture.thumbnail((SIDE, SIDE))
    # Four characters of base64 are three bytes; the rest is what a URL begins with.
    share, found = (most - 32) * 3 // 4, None
    if picture.size == image.size and size <= HOPE * share:
        found = min(
            ("png", path.read_bytes()), ("webp", _saved(picture, lossless=True, quality=20, method=2)), key=_size
        )
    while found is None or _size(found) > share:
        lossy = (("webp", _saved(picture, quality=quality, method=4)) for quality in QUALITIES)
        found = next((one for one in lossy if _size(one) <= share), None)
        if found is None:
            picture = picture.resize([max(1, side * 3 // 4) for side in picture.size], Image.Resampling.LANCZOS)
    kind, content = found
    return Picture(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", *image.size)


def _size(found: tuple[str, bytes]) -> int:
    return len(found[1])


def _saved(picture: Image.Image, *, quality: int, method: int, lossless: bool = False) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="webp", quality=quality, method=method, lossless=lossless)
    return file.getvalue()


def facts(path: Path | None) -> dict[str, Any]:
    """Returns what the metadata of a picture tell; empty for a file that is missing or tells nothing."""
    if path is not None:
        with suppress(OSError, ValueError, SyntaxError, RecursionError), Image.open(path) as image:
            found = json.loads(image.info.get("diffusion", "{}"))
            return found if isinstance(found, dict) else {}
    return {}


def spread(steps: Sequence[int], most: int) -> list[int]:
    """Returns at most `most` of some steps: the first, the last, and between them ever fewer, as logarithms go."""
    if len(steps) <= most:
        return [*steps]
    chosen: set[int] = set()
    for wanted in range(most, 2 * most):
        places = {round(len(steps) ** (i / (wanted - 1))) - 1 for i in range(wanted)}
        if len(places) > most:
            break
        chosen = places
    return [steps[i] for i in sorted(chosen)]


def listed(names: Sequence[str], most: int = 12) -> str:
    """Returns names as one line, of which those beyond `most` are counted."""
    shown = ", ".join(plain(name, 60) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"
