"""Reads a model that somebody else trained: a folder of diffusers, or a file of guided-diffusion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from diffusion.errors import InputError, require
from diffusion.exchange import adm, folder
from diffusion.exchange.imported import Imported

# Files of weights that say nothing of their network.
ALONE = (".pt", ".pth")


def read(
    path: Path,
    *,
    source: str,
    commit: str = "",
    variant: str = "",
    size: tuple[int, int] | None = None,
    flags: str = "",
    card: str = "",
    within: str | None = None,
) -> Imported:
    """Reads the model at a path, which came from a `source`, and on the hub from a `commit`.

    `variant` and `size` are those of `folder.read`, and belong to folders; `flags`, `card` and `within` are those of
    `adm.read`, and belong to files of guided-diffusion. Raises InputError, which names what cannot be used.
    """
    if not path.exists():
        raise InputError(f"{path}: is not there; name a folder of diffusers, a .pt file, or hf://OWNER/NAME")
    alone = path.is_file() and path.suffix in ALONE
    foreign = {"variant": variant, "size": size} if alone else {"flags": flags, "card": card, "within": within}
    for name, value in foreign.items():
        rule = "left out for a file of weights" if alone else f"left out, as only files ({', '.join(ALONE)}) need it"
        require(not value, f"--{name}", rule, value)
    if alone:
        found = adm.read(path, flags=flags, card=card, within=within)
    else:
        found = folder.read(path, variant=variant, size=size)
    return replace(found, origin={"source": source, **({"commit": commit} if commit else {}), **found.origin})
