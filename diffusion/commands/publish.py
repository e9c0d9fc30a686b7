"""`diffusion publish`: puts a model on the Hugging Face hub."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from diffusion.commands.options import Publish
from diffusion.errors import InputError, require
from diffusion.exchange import publishing
from diffusion.exchange.hub import REPO
from diffusion.files import refuse_taken
from diffusion.progress import say


def publish(options: Publish) -> int:
    """Lists what travels, uploads it, and returns the exit code."""
    require(REPO.fullmatch(options.repo), "repo", "OWNER/NAME", options.repo)
    if options.out is not None:
        refuse_taken(options.out)
    license = publishing.checked_license(_license(options.license))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary) / "published"
        made = publishing.write(options.run, folder, repo=options.repo, license=license)
        for line in made.lines:
            say(line)
        say(f"{options.repo} gets {len(made.files)} files, under {license}:")
        for name, size in made.files.items():
            say(f"  {name:20s} {size:14,} bytes")
        if options.out is not None or options.dry_run:
            say("nothing was uploaded" if options.out is None else f"{options.out}: written, and nothing was uploaded")
            return 0
        url = publishing.upload(
            folder,
            [*made.files],
            options.repo,
            private=options.private,
            revision=options.revision,
            message=f"Publish step {made.step} of a model",
        )
    say(f"{url}: published; to load it: diffusion.load({options.repo!r})")
    return 0


def _license(given: str | None) -> str:
    """The license that is given, or asked for on a terminal. Raises InputError where nobody can be asked."""
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise InputError(
            "--license: must be given, the license under which others may use the model, such as mit, apache-2.0 or "
            f"cc-by-4.0 ({publishing.LICENSES}); that of the training data may decide it"
        )
    return input(f"License of the model, such as mit, apache-2.0 or cc-by-4.0 ({publishing.LICENSES}): ")
