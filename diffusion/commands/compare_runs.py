"""`diffusion compare RUN RUN...`: runs side by side in one file, as `reporting.html` writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffusion.commands.options import Compare
from diffusion.errors import InputError
from diffusion.reporting.html import write_comparison
from diffusion.reporting.run_folder import RunFolder, list_runs
from diffusion.reporting.summary import bits
from diffusion.reporting.words import interval

PAGE = Path("compare.html")


def are_runs(places: Sequence[Path]) -> bool:
    """Whether all of some places are run folders, rather than images.

    Raises InputError where some are and some are not.
    """
    runs = [path for path in places if path.is_dir() and list_runs(path) == [path]]
    others = [path for path in places if path not in runs]
    if runs and others:
        raise InputError(
            f"{others[0]}: must be a run folder like {runs[0]}, as runs are compared with runs and images with images"
        )
    return bool(runs)


def compare_runs(options: Compare) -> int:
    """Writes the page, and prints the newest bound of each run and where the page is.

    Raises InputError for options of images, for a run that is named twice, and where the page cannot be written.
    """
    given = {"--lpips": options.lpips, "--device": options.device}
    for name, value in given.items():
        if value is not None:
            raise InputError(f"{name}: has no effect on runs; it is for images")
    places, seen = (options.images, options.originals, *options.more), set[Path]()
    for path in places:
        if path.resolve() in seen:
            raise InputError(f"{path}: must be named once, got the same run twice")
        seen.add(path.resolve())
    page = options.out or PAGE
    if page.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out: must end with .html for runs, got {page}")
    runs = [RunFolder(path) for path in places]
    try:
        write_comparison(runs, page)
    except OSError as error:
        raise InputError(f"{page}: cannot be written ({error})") from error
    width = max(len(str(path)) for path in places)
    for path, run in zip(places, runs, strict=True):
        print(f"{path!s:{width}}  {' '.join(interval(bits(run))).strip()}")
    print(f"{page}: open it in a browser")
    return 0
