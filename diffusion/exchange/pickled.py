"""Weights in files of `torch.save`, read without unpickling: no code that a file names or holds is run.

Such a file holds its tensors as bytes (`torch_archive`), and a pickle that says which part of them is which tensor
(`pickle_machine`): storage, offset, shape and strides. They are checked against the bytes that are there. Numbers and
texts are read, so that files with them can be, but only tensors are returned.
"""

from __future__ import annotations

import math
from collections import deque
from pathlib import Path

from torch import Tensor

from diffusion.errors import InputError, require
from diffusion.exchange.pickle_machine import DEEPEST, LARGEST, View, run
from diffusion.exchange.torch_archive import MOST_AT_ONCE, TorchArchive, opened
from diffusion.progress import bar

# Tensors may share storages and repeat values, but have together at most so many times the bytes of the file, or these.
MOST_TIMES, LEAST_MOST = 4, 1 << 20


def read(path: Path, within: str | None = None, *, show: bool = True) -> dict[str, Tensor]:
    """Returns the tensors of a file of `torch.save` by their names, on the CPU, as `torch.load` would.

    Where the file holds several dictionaries of tensors, `within` names one by the keys that lead to it, such as
    "state_dict" or "model/ema", "" for the outermost; None takes the only one. Numbers, texts and other dictionaries
    are left out. Tensors that share a storage in the file share memory. Only storages that are needed are read.

    Raises InputError for a file that is damaged, in another format, or holds anything but plain values and tensors; the
    message names the file, what was met, and what to do.
    """
    path = Path(path)
    with opened(path) as archive:
        views = _chosen(path, _groups(path, _tree(archive)), within)
        _check(archive, views)
        sizes = {view.storage.key: view.storage.count * view.storage.dtype.itemsize for view in views.values()}
        storages: dict[str, Tensor] = {}
        with bar(sum(sizes.values()), f"reading {path.name}", "bytes", show=show) as moving:
            for key, size in sizes.items():
                storages[key] = archive.read(f"data/{key}")
                moving.update(size)
    return {
        name: storages[view.storage.key].view(view.storage.dtype).as_strided(view.shape, view.strides, view.offset)
        for name, view in views.items()
    }


def _tree(archive: TorchArchive) -> object:
    """What the pickle of an archive describes."""
    where, size = f"{archive.path}: data.pkl", archive.entries["data.pkl"].size
    require(size <= MOST_AT_ONCE, where, f"at most {MOST_AT_ONCE:,} bytes", f"{size:,}")
    return run(archive.read("data.pkl").numpy().tobytes(), where)


def _groups(path: Path, tree: object) -> dict[str, dict[str, View]]:
    """The dictionaries that hold tensors, by the keys that lead to them; each is found once."""
    found: dict[str, dict[str, View]] = {}
    waiting: deque[tuple[tuple[str, ...], object]] = deque([((), tree)])
    seen: set[int] = set()
    while waiting:
        keys, node = waiting.popleft()
        if not isinstance(node, dict) or id(node) in seen or len(keys) > DEEPEST:
            continue
        seen.add(id(node))
        texts = {key: value for key, value in node.items() if isinstance(key, str)}
        views = {key: value for key, value in texts.items() if isinstance(value, View)}
        if views:
            found.setdefault("/".join(keys), views)
        waiting.extend(((*keys, key), value) for key, value in texts.items())
    if not found:
        kind = "one tensor" if isinstance(tree, View) else f"a {type(tree).__name__}"
        raise InputError(f"{path}: holds no tensors by name, but {kind}; save the weights as {{name: tensor}}")
    return found


def _chosen(path: Path, groups: dict[str, dict[str, View]], within: str | None) -> dict[str, View]:
    """The dictionary that is meant. Raises InputError where none of this name is there, or it is not clear which."""
    if within is None and len(groups) == 1:
        return next(iter(groups.values()))
    if within in groups:
        return groups[within]
    largest = sorted(groups.items(), key=lambda item: -len(item[1]))[:8]
    listed = ", ".join(f"{ascii(key)[:80]} ({len(views)})" for key, views in largest)
    met = "several dictionaries of tensors" if within is None else f"no tensors in the dictionary {within!a}"
    raise InputError(f"{path}: has {met}; name the one that is meant (--within): {listed}")


def _check(archive: TorchArchive, views: dict[str, View]) -> None:
    """Raises InputError for a tensor that is not wholly within the bytes that the archive has for its storage."""
    total = 0
    for name, view in views.items():
        where = f"{archive.path}: {ascii(name)[:80]}"
        require(name.isprintable() and name, where, "a name of printable characters", "another")
        storage, entry = view.storage, archive.entries.get(f"data/{view.storage.key}")
        if entry is None:
            raise InputError(f"{where}: its storage {ascii(storage.key)[:80]} is not in the file, which is damaged")
        size = storage.count * storage.dtype.itemsize
        require(size == entry.size, f"{where}: its storage", f"of {size:,} bytes", f"{entry.size:,}")
        fits = view.end <= storage.count and math.prod(n or 1 for n in view.shape) < LARGEST
        described = f"shape {view.shape}, strides {view.strides} from value {view.offset}"
        require(fits, where, f"within the {storage.count:,} values of its storage", described)
        total += view.count * storage.dtype.itemsize
    most = max(MOST_TIMES * sum(entry.size for entry in archive.entries.values()), LEAST_MOST)
    require(total <= most, f"{archive.path}: tensors", f"of at most {most:,} bytes together", f"{total:,}")
