"""Images that entries hold already are found by the bytes of their files, in runs that follow the order asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffusion.data.images import sharing, store, uses


def digest(number: int) -> bytes:
    return number.to_bytes(2, "big").ljust(16, b"d")


def digests(*numbers: int) -> np.ndarray:
    return np.array([digest(number) for number in numbers], "S16")


def publish(cache: Path, name: str, numbers: list[int], failed: dict[int, str] | None = None) -> Path:
    """Publishes an entry of images whose every pixel is their number."""
    cache.mkdir(exist_ok=True)
    good = [number for place, number in enumerate(numbers) if place not in (failed or {})]
    with store.unfinished(cache) as folder:
        for file, values in (
            (sharing.VALUES, np.array(good, np.uint8)[:, None, None, None].repeat(4, axis=2)),
            (sharing.CONTENTS, np.array(good, np.uint64) + np.uint64(100)),
            (sharing.DIGESTS, digests(*numbers)),
        ):
            np.save(folder / file, values)
        store.publish(folder, cache / name, {"failed": failed or {}})
    return cache / name


def copied(shared: sharing.Shared) -> list[int | None]:
    """The numbers of all images that were found, and None for each of the others."""
    found: list[int | None] = []
    for run in shared.runs():
        values = [image for images, _, _ in run.copies() for image in images[:, 0, 0, 0].tolist()]
        contents = [value for _, hashes, _ in run.copies() for value in hashes.tolist()]
        assert contents == [value + 100 for value in values]
        found += values if run.entry else [None] * len(run)
    return found


def test_images_are_found_in_any_order_and_over_entries(tmp_path: Path) -> None:
    publish(tmp_path, "p-1", [1, 2, 3])
    publish(tmp_path, "p-2", [7, 8, 3])
    publish(tmp_path, "q-1", [9])
    shared = sharing.find(tmp_path, "p", digests(8, 3, 9, 1, 1, 4, 2, 7))
    assert copied(shared) == [8, 3, None, 1, 1, None, 2, 7]
    assert shared.missing.tolist() == [2, 5]


def test_failures_are_found_too_and_take_no_row(tmp_path: Path) -> None:
    publish(tmp_path, "p-1", [1, 2, 3, 4], failed={0: "empty", 2: "cut"})
    shared = sharing.find(tmp_path, "p", digests(4, 3, 5, 2, 1))
    assert shared.missing.tolist() == [2]
    reasons = {number: reason for run in shared.runs() for number, reason in run.failed().items()}
    assert reasons == {1: "cut", 4: "empty"}
    assert [image for run in shared.runs() for images, _, _ in run.copies() for image in images[:, 0, 0, 0]] == [4, 2]


def test_many_images_are_copied_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "CHUNK", 3)
    publish(tmp_path, "p-1", [*range(10)])
    shared = sharing.find(tmp_path, "p", digests(*range(9, -1, -1)))
    (run,) = shared.runs()
    assert [len(images) for images, _, _ in run.copies()] == [3, 3, 3, 1] and copied(shared) == [*range(9, -1, -1)]


def test_an_entry_that_shares_nothing_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, "p-1", [1, 2])
    publish(tmp_path, "p-2", [3])
    verified: list[str] = []
    read = store.read
    monkeypatch.setattr(store, "read", lambda entry: verified.append(entry.name) or read(entry))
    sharing.find(tmp_path, "p", digests(3, 5))
    assert verified == ["p-2"]


def test_the_entry_used_last_comes_first_and_no_other_is_read_when_it_has_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, when in (("p-1", 5.0), ("p-2", 9.0), ("p-3", 1.0)):
        uses._write(publish(tmp_path, name, [1, 2]), {"/photos": when})
    shared = sharing.find(tmp_path, "p", digests(1, 2))
    assert len(shared.entries) == 1
    monkeypatch.setattr(store, "read", lambda entry: None)
    assert sharing.find(tmp_path, "p", digests(1)).missing.tolist() == [0], "none of them is whole"


def test_an_entry_that_vanishes_while_it_is_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = publish(tmp_path, "p-1", [1])
    assert sharing.read(place) is not None
    read = store.read

    def vanish(entry: Path) -> store.Manifest | None:
        content = read(entry)
        uses.remove(entry)
        return content

    monkeypatch.setattr(store, "read", vanish)
    assert sharing.read(place) is None


def test_nothing_is_found_in_an_empty_cache_or_for_no_images(tmp_path: Path) -> None:
    assert sharing.find(tmp_path, "p", digests(1, 2)).missing.tolist() == [0, 1]
    publish(tmp_path, "p-1", [1])
    assert [*sharing.find(tmp_path, "p", digests()).runs()] == []
