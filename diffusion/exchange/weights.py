"""The files of weights in a folder of diffusers: one, or shards that an index lists; safetensors before torch's format.

diffusion_pytorch_model.safetensors                 all weights
diffusion_pytorch_model.fp16.safetensors            the variant fp16 of them
diffusion_pytorch_model.safetensors.index.json      the name of the shard of each tensor; .index.fp16.json likewise
diffusion_pytorch_model.bin                         torch's format, which `pickled` reads without running a pickle
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffusion.errors import InputError
from diffusion.exchange import pickled
from diffusion.exchange.settings import Settings

STEM, KINDS = "diffusion_pytorch_model", ("safetensors", "bin")
# All names of the files above: a variant comes before or after the number of a shard, or after "index".
NAME = re.compile(
    rf"{STEM}(?:\.(?P<variant>\w+))?(?:-\d+-of-\d+)?(?:\.(?P<after>\w+))?\.(?P<kind>safetensors|bin)"
    r"(?P<index>\.index(?:\.(?P<of_index>\w+))?\.json)?"
)


def variants(names: Iterable[str]) -> list[str]:
    """Returns the variants of weights that files of these names hold, "" for those without a variant."""
    parts = [NAME.fullmatch(name) for name in names]
    return sorted({_variant(part) for part in parts if part})


def chosen(names: Iterable[str], variant: str, where: str) -> list[str]:
    """Returns the names among those in a folder `where` that belong to one variant of the weights: safetensors if there
    are any, else files of torch's format.

    Raises InputError, which says which there are, for a folder without them.
    """
    names = [*names]
    for kind in KINDS:
        parts = [(name, NAME.fullmatch(name)) for name in names]
        found = [name for name, part in parts if part and part["kind"] == kind and _variant(part) == variant]
        if found:
            return found
    others = ", ".join(f"--variant {each}" if each else "weights without a variant" for each in variants(names))
    hint = f"there are {others}" if others else f"a file {STEM}.safetensors or .bin is looked for"
    raise InputError(f"{where}: no weights{f' of the variant {variant}' if variant else ''}; {hint}")


def find(folder: Path, variant: str = "") -> list[Path]:
    """Returns the files of the weights in a folder. Raises InputError where they or some shards are missing."""
    names = chosen((path.name for path in folder.iterdir() if path.is_file()), variant, str(folder))
    indices = [name for name in names if name.endswith(".json")]
    single = [name for name in names if "-of-" not in name and name not in indices]
    if single:
        return [folder / single[0]]
    if not indices:
        raise InputError(f"{folder}: {names[0]} is a shard, but no index lists all of them; download {STEM}*.json too")
    return _shards(folder / indices[0])


def read(files: Iterable[Path]) -> dict[str, Tensor]:
    """Reads weights, on the CPU. Raises InputError that names a file that cannot be read."""
    tensors: dict[str, Tensor] = {}
    for path in files:
        tensors |= _read(path)
    return tensors


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        return pickled.read(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: is not a safetensors file or is not whole ({error}); download it again") from None


def _variant(part: re.Match[str]) -> str:
    return part["variant"] or part["after"] or part["of_index"] or ""


def _shards(index: Path) -> list[Path]:
    """The files that an index lists, which lie beside it."""
    listed = Settings.read(index).values.get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(name, str) for name in listed.values()):
        raise InputError(f"{index}: weight_map: must have a file for each tensor; download it again")
    names = sorted(set(listed.values()))
    for name in names:
        if not NAME.fullmatch(name):
            raise InputError(f"{index}: weight_map: {name!r} is not a name of a file of weights")
        if not (index.parent / name).is_file():
            raise InputError(f"{index.parent}: {name} is missing, one of {len(names)} shards that {index.name} lists")
    return [index.parent / name for name in names]
