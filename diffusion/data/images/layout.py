"""Recognizes how data sets are laid out: splits such as train and val, a folder around all, images beside their masks.

Such folders are no classes. All functions take the number of images by folder, a path with slashes that is empty for
images without one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# The parts of data sets, in lower case.
SPLITS = frozenset(
    {
        *("train", "training", "trn", "val", "valid", "validation", "test", "testing", "tst", "dev", "eval"),
        *("evaluation", "holdout", "heldout", "unlabeled", "unlabelled", "pred"),
    }
)
# Words that may stand beside the name of a split: train_images, testA, DIV2K_valid_HR.
_BESIDE = frozenset({"image", "images", "imgs", "img", "set", "data", "split", "part", "fold", "a", "b", "hr", "lr"})
_SPLIT = re.compile(f"({'|'.join(sorted(SPLITS, key=len, reverse=True))})(set|data|images|imgs|split)?")
# Folders of images and of what is drawn on them, in lower case without separators.
_IMAGES = frozenset(
    {
        *("images", "image", "imgs", "img", "photos", "jpegimages", "input", "inputs", "rgb", "original", "originals"),
        *("leftimg8bit", "imagestr", "frames", "color", "colour"),
    }
)
_TARGETS = frozenset(
    {
        *("labels", "label", "masks", "mask", "annotations", "annotation", "segmentation", "segmentations", "seg"),
        *("segmentationclass", "segmentationobject", "gt", "groundtruth", "gtfine", "targets", "target", "labelstr"),
        *("depth", "depths", "trimaps", "instances", "mattes", "alpha", "edges", "normals"),
    }
)

Folders = Mapping[str, int]


@dataclass(frozen=True)
class Parts:
    """Folders that are parts of one data set, below the folder `parent`: their names with the number of images."""

    parent: str
    counts: dict[str, int]

    @property
    def first(self) -> str:
        """The path of the part to train on: the one for training, or else the largest."""
        names = [name for name in self.counts if {"train", "training", "trn"} & split_words(name)]
        name = names[0] if len(names) == 1 else max(names or self.counts, key=lambda each: self.counts[each])
        return "/".join(filter(None, (self.parent, name)))

    def __str__(self) -> str:
        return ", ".join(f"{name} ({count:,})" for name, count in self.counts.items())


def split_words(name: str) -> set[str]:
    """Returns the words of a name that are parts of data sets: of "train2017" and of "testA", train and test."""
    return {found[1] for word in _words(name) if (found := _SPLIT.fullmatch(word))}


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def find_splits(folders: Folders) -> Parts | None:
    """Returns the parts of a data set, such as train and val, among the folders of the first level, if they are that.

    All folders are named like parts, or at least two are and hold subfolders of the same names. Folders around all of
    them are passed.
    """
    parent, below = descended(folders)
    counts = _children(below)
    named = [name for name in counts if _is_split(name)]
    words = set().union(*(split_words(name) for name in named))
    if len(named) < 2 or len(words) < 2:
        return None
    inner = [{path.split("/")[1] for path in below if path.startswith(f"{name}/")} for name in named]
    agree = all(inner) and len(set.intersection(*inner)) * 2 >= max(map(len, inner))
    if agree or not set(counts) - {*named, ""}:
        return Parts(parent, {name: counts[name] for name in named})
    return None


def _is_split(name: str) -> bool:
    words = _words(name)
    split = split_words(name)
    others = [word for word in words if word not in _BESIDE and not _SPLIT.fullmatch(word)]
    return len(split) == 1 and (not others or (bool(re.search(r"[\W_\d]", name)) and len(others) <= 2))


def find_wrapper(folders: Folders) -> Parts | None:
    """Returns the only folder of the first level with the subfolders of which it would make one class, if it has two.

    The parent of the parts is that folder, or the innermost of several around each other.
    """
    parent, below = descended(folders)
    counts = _children(below)
    counts.pop("", None)
    return Parts(parent, dict(counts)) if parent and len(counts) > 1 else None


def descended(folders: Folders) -> tuple[str, dict[str, int]]:
    """Returns the innermost folder that holds all images, and the folders below it with paths that begin there."""
    parent, below = "", dict(folders)
    while len(_children(below)) == 1 and (name := next(iter(_children(below)))) and len(below) > 1:
        parent = "/".join(filter(None, (parent, name)))
        below = {path[len(name) + 1 :]: count for path, count in below.items()}
    return parent, below


def find_targets(folders: Folders) -> list[tuple[str, str]]:
    """Returns pairs of folders, one of images and one beside it of masks or labels drawn as images."""
    beside: dict[str, dict[str, str]] = {}
    for path in folders:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            beside.setdefault("/".join(parts[: depth - 1]), {})["/".join(parts[:depth])] = parts[depth - 1]
    pairs = []
    for paths in beside.values():
        plain = {path: re.sub(r"[\W_]", "", name).lower() for path, name in paths.items()}
        images = [path for path, name in plain.items() if name in _IMAGES]
        targets = [path for path, name in plain.items() if name in _TARGETS]
        if images and len(images) + len(targets) == len(plain):
            pairs += [(images[0], target) for target in targets]
    return pairs


def within(folders: Folders, folder: str) -> int:
    """Returns the number of images in a folder and below it."""
    return sum(count for path, count in folders.items() if path == folder or path.startswith(f"{folder}/"))


def _children(folders: Folders) -> Counter[str]:
    counts: Counter[str] = Counter()
    for path, count in folders.items():
        counts[path.partition("/")[0]] += count
    return counts


def split_files(names: Iterable[str]) -> list[str]:
    """Returns the names of files that are parts of different splits, as train-0.tar and val-0.tar are; else none."""
    found = {name: split_words(name.partition(".")[0]) for name in names}
    words = set().union(*found.values())
    return list(found) if len(words) > 1 and all(found.values()) else []
