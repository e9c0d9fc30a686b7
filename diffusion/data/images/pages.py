"""The pages of TIFF stacks and the frames of animations as images of their own.

All pages of a file are held out together or not at all, since neighbors in a stack or a film are nearly the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby

import numpy as np
import numpy.typing as npt

from diffusion.data.images.index import Entry, Index

FIRST, ALL = "first", "all"
PAGES = (FIRST, ALL)
# The pages of a file are decoded one after the other, and this many bytes of them are held at once.
MAX_BYTES = 1 << 26


def paged(index: Index) -> Index:
    """Returns an index in which every page of a file is an image: the pages of a file follow each other.

    The index is returned as it is where no file has several.
    """
    frames = index.rows["frames"]
    if not np.any(frames > 1):
        return index
    counts = np.maximum(frames, 1)
    rows = np.repeat(np.asarray(index.rows), counts)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    several = rows["frames"] > 1
    rows["frame"] = np.where(several, number, -1)
    held = np.ascontiguousarray(rows["digest"]).view("<u8").reshape(len(rows), 2)[:, 0].copy()
    for place in np.flatnonzero(several):
        # The digest stands for the pixels, which are those of the page alone.
        facts = rows["digest"][place] + b"#" + str(number[place]).encode()
        rows["digest"][place] = hashlib.blake2b(facts, digest_size=16).digest()
    identity = hashlib.blake2b(f"{index.content['identity']} {ALL}".encode(), digest_size=16).hexdigest()
    return replace(index, rows=rows, content=index.content | {"identity": identity}, held=held)


def by_file(index: Index, kept: npt.NDArray[np.int64], contents: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Returns the hashes by which the images `kept` of an index are held out: `contents`, but the file's for a page."""
    if index.held is None:
        return contents
    return np.where(index.rows["frame"][kept] >= 0, index.held[kept], contents)


def runs(entries: Iterable[Entry], page_bytes: int) -> Iterator[list[Entry]]:
    """Yields images by file: alone, or as many pages of a file as may be held at once, of `page_bytes` each."""
    limit = max(1, MAX_BYTES // page_bytes)
    for _, group in groupby(entries, key=lambda entry: (entry.path, entry.offset)):
        pages = list(group)
        for start in range(0, len(pages), limit):
            yield pages[start : start + limit]
