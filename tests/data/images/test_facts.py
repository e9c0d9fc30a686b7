"""Numbers about images are found by the bytes of their files, over entries and in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion.data.images import facts, store


def digests(*numbers: int) -> np.ndarray:
    return np.array([number.to_bytes(2, "big").ljust(16, b"d") for number in numbers], "S16")


def rows(*numbers: float) -> np.ndarray:
    return np.array([[number, 10 * number] for number in numbers]).reshape(-1, 2)


def test_numbers_are_found_over_entries_and_the_others_are_nan(tmp_path: Path) -> None:
    facts.publish(tmp_path / "a-1", digests(1, 2, 3), rows(1, 2, 3))
    facts.publish(tmp_path / "a-2", digests(7, 3), rows(7, 3))
    facts.publish(tmp_path / "b-1", digests(9), rows(9))
    found = facts.known(tmp_path, "a", digests(7, 9, 2, 2, 1, 4), 2)
    assert np.array_equal(found, rows(7, np.nan, 2, 2, 1, np.nan), equal_nan=True)
    assert facts.known(tmp_path, "c", digests(1), 2).shape == (1, 2)
    assert facts.known(tmp_path, "a", digests(), 2).shape == (0, 2)


def test_what_is_nan_is_not_stored(tmp_path: Path) -> None:
    facts.publish(tmp_path / "a-1", digests(1, 2), rows(np.nan, 2))
    content = store.read(tmp_path / "a-1")
    assert content == {"images": 1}
    facts.publish(tmp_path / "a-2", digests(1), rows(np.nan))
    assert np.array_equal(facts.known(tmp_path, "a", digests(1, 2), 2), rows(np.nan, 2), equal_nan=True)


def test_a_damaged_entry_tells_nothing(tmp_path: Path) -> None:
    facts.publish(tmp_path / "a-1", digests(1), rows(1))
    content = bytearray((tmp_path / "a-1" / facts.ROWS).read_bytes())
    content[-1] ^= 1
    (tmp_path / "a-1" / facts.ROWS).write_bytes(content)
    assert np.isnan(facts.known(tmp_path, "a", digests(1), 2)).all()
