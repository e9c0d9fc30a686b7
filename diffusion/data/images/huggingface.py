"""Images in a dataset of Hugging Face `datasets`: the encoded bytes in rows of memory-mapped Arrow files.

hf://OWNER/NAME, or hf://OWNER/NAME:SPLIT, is loaded into the library's own cache once. hf://PATH and a plain path name
a folder that `save_to_disk` wrote.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion.data.images.container import Container, Member, Walk
from diffusion.data.images.decoding import BinaryFile, ImageError
from diffusion.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

SCHEME, TRAIN = "hf://", "train"
IMAGE, LABEL = "image", "label"
# The number of labels that are in memory at once.
CHUNK = 10_000


@dataclass(frozen=True)
class HuggingFace(Container):
    """The column of images of a dataset, undecoded, and its column of labels, if it has one.

    `source` is its name in messages: the path as it was given, with the split.
    """

    kind = "dataset"
    labeling = f"the label is the only column of type ClassLabel, or the one named {LABEL!r}; give every row one"

    source: str
    images: Dataset
    labels: Dataset | None

    @property
    def name(self) -> str:
        """Its name in messages: the path as it was given, with the split."""
        return self.source

    def walk(self, *, reading: bool) -> RowWalk:
        """Starts a pass over the rows in their order."""
        return RowWalk(self.images, self.labels, reading)

    def _open(self, path: str, offset: int, size: int) -> BinaryFile:
        (value,) = self.images[offset].values()
        value = value or {}
        if value.get("bytes") is not None:
            return BytesIO(value["bytes"])
        if value.get("path") is not None:
            return Path(value["path"]).open("rb")
        raise ImageError(f"{self.name}/{path}", "the row holds no image")


@dataclass
class RowWalk(Walk):
    """A walk through the rows, which yields nothing unless it is `reading`: Arrow files show any change by their times.

    Images in files of their own lie in the library's cache, whose file names depend on their contents.
    """

    images: Dataset
    labels: Dataset | None
    reading: bool

    def __iter__(self) -> Iterator[Member]:
        for file in self.images.cache_files:
            self.note_file(file["filename"], os.stat(file["filename"]))
        if self.labels is not None:
            (feature,) = self.labels.features.values()
            self.classes = [*feature.names]
            self.note("classes", *self.labels.column_names, *self.classes)
        self.note("images", *self.images.column_names)
        if self.reading:
            for number, group in enumerate(self._groups()):
                yield Member(f"row {number}", offset=number, group=group)

    def _groups(self) -> Iterator[str | None]:
        if self.labels is None:
            yield from repeat(None, len(self.images))
            return
        for rows in self.labels.iter(CHUNK):
            for label in next(iter(rows.values())):
                yield None if label is None or label < 0 else self.classes[label]


def find_dataset(path: str) -> HuggingFace | None:
    """Returns the dataset that a path names, or None when the path names something else.

    Raises InputError when hf:// is followed by no name, the dataset cannot be loaded, it has no such split or no column
    of images, or the library is missing.
    """
    if not path.startswith(SCHEME) and not _is_saved(Path(path)):
        return None
    name, _, split = path.removeprefix(SCHEME).partition(":") if path.startswith(SCHEME) else (path, "", "")
    if not name:
        raise InputError(f"data.path: {path} names no dataset; write {SCHEME}OWNER/NAME or {SCHEME}OWNER/NAME:SPLIT")
    splits = _splits(path, name, split)
    chosen = split or (TRAIN if TRAIN in splits else next(iter(splits)))
    if chosen not in splits:
        raise InputError(f"data.path: {path} has no split {chosen!r}; it has {', '.join(splits)}")
    dataset, source = splits[chosen], f"{path.removesuffix(':' + split)}:{chosen}"
    import datasets

    image = _column(dataset.features, datasets.Image, IMAGE)
    if image is None:
        raise InputError(
            f"data.path: {source} needs a column of type Image, only one or one named {IMAGE!r}; "
            f"its columns are {', '.join(dataset.column_names)}"
        )
    label = _column(dataset.features, datasets.ClassLabel, LABEL)
    dataset = dataset.with_format(None)
    images = dataset.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    labels = None if label is None else dataset.select_columns([label])
    files = images.cache_files
    root = Path(name) if _is_saved(Path(name)) or not files else Path(files[0]["filename"]).parent
    return HuggingFace(root, source, images, labels)


def _is_saved(folder: Path) -> bool:
    """Returns whether `save_to_disk` wrote a folder."""
    one = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return one or (folder / "dataset_dict.json").is_file()


def _splits(path: str, name: str, split: str) -> Mapping[str, Dataset]:
    """Returns splits by their names: all of them, or only the one that is asked for."""
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"data.path: {path} needs the package datasets, which is not installed; "
            "pip install 'reverse-diffusion[datasets]'"
        ) from error
    try:
        if _is_saved(Path(name)):
            loaded = datasets.load_from_disk(name, keep_in_memory=False)
        else:
            loaded = datasets.load_dataset(name, split=split or None, keep_in_memory=False)
    except Exception as error:  # The loaders raise errors of almost every type.
        raise InputError(f"data.path: {path} cannot be loaded: {error}") from error
    return loaded if isinstance(loaded, datasets.DatasetDict) else {str(loaded.split or TRAIN): loaded}


def _column(features: Mapping[str, Any], kind: type, usual: str) -> str | None:
    """Returns the name of the only column of a kind; among several, the usual name if it is there, else None."""
    names = [name for name, feature in features.items() if isinstance(feature, kind)]
    if len(names) == 1:
        return names[0]
    return usual if usual in names else None
