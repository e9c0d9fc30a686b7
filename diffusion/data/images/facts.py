"""Numbers that were found out about images, kept in the cache by the bytes of their files, so that each file is read
once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffusion.data.images import store

DIGESTS, ROWS = "digests.npy", "rows.npy"


def known(cache: Path, family: str, digests: npt.NDArray[np.bytes_], width: int) -> npt.NDArray[np.float64]:
    """Returns `width` numbers about each image, (N, width), from the entries of a family, by the hashes of the files.

    The numbers of images that no entry knows are NaN.
    """
    rows = np.full((len(digests), width), np.nan)
    for entry in sorted(cache.glob(f"{family}-*")):
        missing = np.flatnonzero(np.isnan(rows[:, 0]))
        if not len(missing):
            break
        if store.read(entry) is None:
            continue
        try:
            there, numbers = store.array(entry / DIGESTS), store.array(entry / ROWS)
        except OSError:  # Another process has removed it in the meantime.
            continue
        place = store.places(digests[missing], there)
        rows[missing[place >= 0]] = numbers[place[place >= 0]]
    return rows


def publish(entry: Path, digests: npt.NDArray[np.bytes_], rows: npt.NDArray[np.float64]) -> None:
    """Stores the numbers (N, width) of images, but for those that are NaN, with the hashes of their files, (N,).

    Raises OSError when the entry cannot be written.
    """
    lasting = ~np.isnan(rows[:, 0])
    with store.unfinished(entry.parent) as folder:
        for name, values in ((DIGESTS, digests[lasting]), (ROWS, rows[lasting])):
            with store.growing(folder / name, values.dtype, values.shape[1:]) as append:
                append(np.ascontiguousarray(values))
        store.publish(folder, entry, {"images": int(lasting.sum())})
