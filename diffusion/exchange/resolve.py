"""Runs by address: hf://OWNER/NAME becomes a run folder on this machine, wherever a run is taken.

A repository may hold a run of this package, whole or one of its checkpoints, or a folder of diffusers, which is
imported. Either becomes a run in the cache of this package, one for each commit, and is used from there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from diffusion import checkpoint
from diffusion.checkpoint import FOLDER, MANIFEST, PREFIX
from diffusion.data.images.scan import default_cache
from diffusion.distributed import say
from diffusion.errors import InputError, require
from diffusion.exchange import folder, imported, kept, weights
from diffusion.exchange.hub import REPO, Address, Repository, download, look_up
from diffusion.exchange.importing import ALONE, read
from diffusion.exchange.schedulers import NAME as SCHEDULER_FILE
from diffusion.files import is_address, new_folder, numbered

WEIGHTS = "model.safetensors"
CHECKPOINT = re.compile(rf"{FOLDER}/{PREFIX}(\d+)/{re.escape(MANIFEST)}")
# The files of a model of diffusers beside its weights.
SETTINGS = (
    *(folder.INDEX, folder.CONFIG, SCHEDULER_FILE),
    *(f"{folder.NETWORK}/{folder.CONFIG}", f"{folder.SCHEDULER}/{SCHEDULER_FILE}"),
)


def address_of(run: str | Path, revision: str = "") -> str:
    """Returns the address on the hub that a run stands for (`loading.load`); empty for a run on this machine."""
    if is_address(run):
        given = Address.parse(str(run))
        require(not (revision and given.revision), "revision", "left out where the address has one", revision)
        return str(replace(given, revision=revision or given.revision))
    named = isinstance(run, str) and REPO.fullmatch(run) and not os.path.lexists(run)
    if named and (revision or not os.path.lexists(Path(run).parent)):
        return str(Address(str(run), revision))
    require(not revision, "revision", f"left out for {run}, a run on this machine", revision)
    return ""


def local(text: str, *, variant: str = "") -> Path:
    """Returns the run in the cache of this package that an address on the hub stands for, made if it is not there.

    Raises InputError for a repository that cannot be had, or holds no model that can be used.
    """
    address = Address.parse(text)
    repository = look_up(address)
    parts = [*repository.address.repo.split("/"), *filter(None, repository.address.inside.split("/"))]
    run = default_cache() / kept.MODELS / kept.name_of(parts, repository.commit, variant)
    if run.exists():
        kept.note_use(run)
        return run
    try:
        if run_files(repository.files, address.inside):
            link_run(repository, run)
        else:
            found = read(fetch(repository, variant), variant=variant, source=str(address), commit=repository.commit)
            for line in found.lines:
                say(f"{address}: {line}")
            imported.write(found, run)
            say(f"{address}: imported into {run}")
    except InputError:
        # Another process may have made it at the same time.
        if not run.exists():
            raise
    return run


def at_hand(text: str) -> Path:
    """Returns a run folder in runs/ for an address on the hub, where the results of commands belong.

    Its files are those of the run in the cache (`local`). Another name is taken where another run has that of the
    repository.
    """
    cached, address = local(text), Address.parse(text)
    for run in numbered(Path("runs") / address.repo.rpartition("/")[2]):
        if not os.path.lexists(run):
            try:
                with new_folder(run) as temporary:
                    _link(cached, temporary, [path.relative_to(cached) for path in cached.rglob("*") if path.is_file()])
                say(f"{address}: is the run folder {run} from here on")
            except InputError:
                if not os.path.lexists(run):
                    raise
        if _same(run, cached):
            return run
    raise AssertionError("numbers do not end")


def link_run(repository: Repository, run: Path) -> None:
    """Makes a run folder of the newest checkpoint that a repository holds.

    Raises InputError where it is damaged, and where something lies at `run`.
    """
    files = run_files(repository.files, repository.address.inside)
    source = download(repository, [*files])
    with new_folder(run) as temporary:
        place = temporary / FOLDER / "new"
        for name, own in files.items():
            _link(source / PurePosixPath(name).parent, place, [Path(own)])
        step = checkpoint.verify(place)
        place.rename(place.with_name(f"{PREFIX}{step:08d}"))
    say(f"{repository.address}: a run at step {step}, which is {run} here")


def _same(run: Path, other: Path) -> bool:
    """Whether the newest checkpoint of a run is that of another, by its hashes."""
    newest = [next(iter(checkpoint.folders(folder)), folder) / MANIFEST for folder in (run, other)]
    return newest[0].is_file() and newest[0].read_bytes() == newest[1].read_bytes()


def fetch(repository: Repository, variant: str = "") -> Path:
    """Downloads the files of a model that somebody else trained, and returns its folder or file."""
    inside = repository.address.inside
    return download(repository, model_files(repository, variant)) / inside


def model_files(repository: Repository, variant: str) -> list[str]:
    """The files of a model that somebody else trained: its settings and one variant of its weights.

    Raises InputError, which says what there is, for a repository without a model.
    """
    address, names = repository.address, repository.files
    if address.inside in names:
        if not address.inside.endswith(ALONE):
            raise InputError(f"{address}: must be a folder, or a file of guided-diffusion ({', '.join(ALONE)})")
        return [address.inside]
    root = address.inside and f"{address.inside}/"
    inner = {name.removeprefix(root) for name in names if name.startswith(root)}
    if not folder.holds_model(inner):
        files = [name for name in sorted(names) if name.endswith(ALONE)]
        hint = f"; to import a file of guided-diffusion, name it: {address}/{files[0]}" if files else ""
        raise InputError(f"{address}: holds neither a run of this package nor a model of diffusers{hint}")
    place = f"{folder.NETWORK}/" if f"{folder.NETWORK}/{folder.CONFIG}" in inner else ""
    beside = [name.removeprefix(place) for name in inner if PurePosixPath(name).parent == PurePosixPath(place)]
    chosen = [name for name in SETTINGS if name in inner] + [
        place + name for name in weights.chosen(beside, variant, str(address))
    ]
    return [root + name for name in chosen]


def run_files(names: Collection[str], inside: str = "") -> dict[str, str]:
    """The files of the newest checkpoint among those of a repository, and what they are called in a run folder.

    It is empty for a repository without one. A checkpoint may lie in it by itself, as a manifest with its files.
    """
    root = inside and f"{inside}/"
    inner = {name.removeprefix(root) for name in names if name.startswith(root)}
    steps = [int(part[1]) for name in inner if (part := CHECKPOINT.fullmatch(name))]
    place = f"{FOLDER}/{PREFIX}{max(steps):08d}/" if steps else ""
    if not {f"{place}{MANIFEST}", f"{place}{WEIGHTS}"} <= inner:
        return {}
    parts = [name for name in inner if name.startswith(place) and "/" not in name.removeprefix(place)]
    kept = [name for name in parts if name.endswith((".safetensors", MANIFEST))]
    return {root + name: name.removeprefix(place) for name in kept}


def _link(source: Path, target: Path, names: Sequence[Path]) -> None:
    """Gives files a second name in another folder, or copies them where a disk cannot do that."""
    for name in names:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link((source / name).resolve(), path)
        except OSError:
            shutil.copyfile(source / name, path)
