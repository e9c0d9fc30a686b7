"""`diffusion import`: makes a run folder of a model that somebody else trained."""

from __future__ import annotations

from pathlib import Path

from diffusion.checkpoint import FOLDER, MANIFEST
from diffusion.commands import finetuning
from diffusion.commands.options import Import
from diffusion.commands.samples.sized import parse_size
from diffusion.errors import InputError
from diffusion.exchange import imported, resolve
from diffusion.exchange.hub import Address, look_up
from diffusion.exchange.importing import read
from diffusion.files import expanded, is_address, refuse_taken
from diffusion.progress import say


def import_(options: Import) -> int:
    """Says what the model is and what is dropped or changed, writes the run folder, and returns the exit code."""
    address = Address.parse(options.source) if is_address(options.source) else None
    path = Path(address.repo if address else options.source)
    out = options.out or Path("runs") / (path.resolve().stem if path.is_file() else path.name)
    refuse_taken(out)
    commit, variant, source = "", options.variant or "", expanded(options.source)
    if address:
        repository = look_up(address)
        if resolve.run_files(repository.files, address.inside):
            resolve.link_run(repository, out)
            return 0
        source, commit = resolve.fetch(repository, variant), repository.commit
    elif (source / FOLDER).is_dir() or (source / MANIFEST).is_file():
        raise InputError(f"{options.source}: is a run of this package already; all commands take it as it is")
    model = read(
        source,
        source=str(address or source.absolute()),
        commit=commit,
        variant=variant,
        size=parse_size(options.size),
        flags=options.flags or "",
        card=options.card or "",
        within=options.within,
    )
    for line in model.lines:
        say(line)
    imported.write(model, out)
    say(f"{out}: written; to draw images from it: diffusion sample {out}")
    path = finetuning.write(model.experiment, out)
    say(f"{out}: to train on from it: diffusion train {path} data.path=FOLDER --out RUN")
    return 0
