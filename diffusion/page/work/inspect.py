"""What is in the images that a run learns from, as `diffusion inspect` finds it, as data."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffusion.errors import InputError
from diffusion.page.work.given import CONFIG
from diffusion.page.work.kind import Kind, Outcome
from diffusion.page.work.place import Place

if TYPE_CHECKING:
    from diffusion.data import Scan

# The entries of each list.
LISTED = 100


@dataclass(frozen=True)
class Inspect(Kind):
    """Look through the images of a run."""

    __pydantic_config__ = CONFIG

    def carry_out(self, place: Place) -> Outcome:
        """Finds sizes, classes, copies, near duplicates and damaged files."""
        from diffusion.commands.inspect import labeled
        from diffusion.commands.options import Inspect as Options
        from diffusion.data import table
        from diffusion.data.images.duplicates import check_pixels, copies
        from diffusion.data.images.scan import cache_folder, open_container
        from diffusion.data.sources import FROM_FILES
        from diffusion.model import load, origin

        data = origin.data_of(place.run, load(place.run).config)
        if data.source not in FROM_FILES or not data.path:
            raise InputError("data: this run does not learn from a folder of images, which could be looked through")
        container = open_container(data.path)
        asked = data.labels if isinstance(data.labels, str) else ""
        masks = data.masks if isinstance(data.masks, str) else ""
        options = Options(data.path, labels=bool(data.labels), labels_from=asked, masks=masks)
        found, _ = labeled(options, container, cache_folder(None, container.root))
        print(table(found))
        exact, pixels = copies(found), check_pixels(found)
        return Outcome(
            {
                **_counts(found),
                "copies": _pairs(found, exact),
                "alike": _pairs(found, pixels.near),
                "damaged": _listed([[str(one.path), one.reason] for one in pixels.damaged]),
                "left_out": _listed([[str(one.path), one.reason] for one in found.problems]),
            }
        )


def _counts(found: Scan) -> dict[str, Any]:
    """How many images there are, in all and by size, mode, format and class."""
    entries = found.entries
    sizes = Counter(zip(entries.rows["width"].tolist(), entries.rows["height"].tolist(), strict=True))
    return {
        "images": len(entries),
        "sizes": [{"width": w, "height": h, "count": count} for (w, h), count in sizes.most_common(LISTED)],
        "modes": {str(name): int(count) for name, count in entries.modes.items()},
        "formats": {str(name): int(count) for name, count in entries.formats.items()},
        "classes": _classes(found),
    }


def _classes(found: Scan) -> dict[str, int]:
    from diffusion.data.images.index import counted

    return dict(counted(found.entries.rows["group"], found.classes)) if found.classes else {}


def _pairs(found: Scan, pairs: Any) -> dict[str, Any]:  # noqa: ANN401, a sequence of pairs of numbers
    """Pairs of images by their names, the later one first."""
    names = found.entries.names
    return _listed([[str(names[later]), str(names[earlier])] for earlier, later in pairs])


def _listed(rows: list[list[str]]) -> dict[str, Any]:
    """The number of rows, and the first ones."""
    return {"count": len(rows), "rows": rows[:LISTED]}
