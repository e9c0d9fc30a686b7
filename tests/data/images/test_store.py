"""An entry of the cache is whole or not there, and is hashed again only if it may have changed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from diffusion.data.images import store

VALUES = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
CONTENT = {"failed": {"3": "why"}}


def write(place: Path, name: str = "entry", values: np.ndarray = VALUES) -> Path:
    """Publishes an entry with one array file."""
    place.mkdir(exist_ok=True)
    with store.unfinished(place) as folder:
        with store.growing(folder / "values.npy", values.dtype, values.shape[1:]) as append:
            append(values)
        store.publish(folder, place / name, CONTENT)
    return place / name


@pytest.fixture
def hashed_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed from here on."""
    names: list[str] = []
    file_digest = store.file_digest

    def noted(path: Path) -> bytes:
        names.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(store, "file_digest", noted)
    return names


def test_the_digest_is_the_same_in_memory_and_on_disk(tmp_path: Path) -> None:
    content = bytes(range(256)) * 3000
    expected = hashlib.blake2b(content, digest_size=16).digest()
    assert store.digest(io.BytesIO(content)) == expected
    (tmp_path / "file").write_bytes(content)
    assert store.file_digest(tmp_path / "file") == expected
    with pytest.raises(FileNotFoundError):
        store.file_digest(tmp_path / "gone")


def test_a_stamp_is_inode_size_and_times(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    os.utime(tmp_path / "file", ns=(5, 7))
    status = os.stat(tmp_path / "file")
    assert store.stamp(status) == (status.st_ino, 3, 7, status.st_ctime_ns)


def test_settled_means_longer_ago_than_the_clock_ticks() -> None:
    assert store.settled(10, 11 + store.CLOCK_NS)
    assert not store.settled(10, 10 + store.CLOCK_NS)


@pytest.mark.parametrize("dtype", ["uint8", "<i8", "float32", [("end", "<i8"), ("digest", "S16")]])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_a_growing_array_is_that_of_all_rows(tmp_path: Path, dtype: object, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    size = np.dtype(dtype).itemsize  # type: ignore[call-overload]
    parts = [np.frombuffer(rng.bytes(int(np.prod((n, *shape))) * size), dtype).reshape(n, *shape) for n in (2, 0, 1, 5)]
    with store.growing(tmp_path / "a.npy", dtype, shape) as append:  # type: ignore[arg-type]
        for part in parts:
            append(part)
    found = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert (found.dtype, found.shape) == (np.dtype(dtype), (8, *shape))  # type: ignore[call-overload]
    assert found.tobytes() == np.concatenate(parts).tobytes()


def test_an_array_without_rows_is_empty(tmp_path: Path) -> None:
    with store.growing(tmp_path / "a.npy", np.uint8, (3, 4)):
        pass
    assert np.load(tmp_path / "a.npy").shape == (0, 3, 4)


def test_what_is_published_is_read(tmp_path: Path) -> None:
    entry = write(tmp_path / "cache")
    assert store.read(entry) == CONTENT
    values = store.array(entry / "values.npy")
    assert isinstance(values, np.memmap) and not values.flags.writeable
    assert np.array_equal(values, VALUES)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["entry"]
    assert store.read(tmp_path / "cache" / "other") is None


def test_an_error_leaves_nothing_but_mapped_arrays_can_be_read(tmp_path: Path) -> None:
    mapped = []

    def interrupted() -> None:
        with store.unfinished(tmp_path) as folder:
            np.save(folder / "a.npy", VALUES)
            mapped.append(store.array(folder / "a.npy"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    assert np.array_equal(mapped[0], VALUES)


def test_an_entry_that_was_found_whole_is_not_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed_files: list[str]
) -> None:
    monkeypatch.setattr(store, "CLOCK_NS", 0)
    entry = write(tmp_path / "cache")
    hashed_files.clear()
    for expected in (["values.npy"], []):
        time.sleep(0.01)
        assert store.read(entry) == CONTENT
        assert hashed_files == expected
        hashed_files.clear()
    os.utime(entry / "values.npy", ns=(1, 1))
    assert store.read(entry) == CONTENT
    assert hashed_files == ["values.npy"]


def test_a_file_changed_this_moment_is_hashed_every_time(tmp_path: Path, hashed_files: list[str]) -> None:
    entry = write(tmp_path / "cache")
    hashed_files.clear()
    for _ in range(2):
        assert store.read(entry) == CONTENT
    assert hashed_files == ["values.npy", "values.npy"]
    assert not (entry / store.STAMPS).exists()


def test_stamps_that_cannot_be_written_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, text: str) -> None:
        raise PermissionError(path)

    entry = write(tmp_path / "cache")
    monkeypatch.setattr(store, "CLOCK_NS", 0)
    monkeypatch.setattr(store, "write_text", refuse)
    time.sleep(0.01)
    assert store.read(entry) == CONTENT


def test_another_content_or_file_breaks_the_seal(tmp_path: Path) -> None:
    entry = write(tmp_path / "cache")
    manifest = json.loads((entry / store.MANIFEST).read_text())
    for changed in (
        manifest | {"content": {"failed": {}}},
        manifest | {"files": {"values.npy": "00" * 16}},
        manifest | {"files": {}},
        {"files": manifest["files"], "content": manifest["content"]},
        [manifest],
    ):
        (entry / store.MANIFEST).write_text(json.dumps(changed))
        assert store.read(entry) is None
    (entry / store.MANIFEST).write_text(json.dumps(manifest))
    assert store.read(entry) == CONTENT


def test_a_damaged_entry_is_replaced_and_a_whole_one_is_kept(tmp_path: Path) -> None:
    entry = write(tmp_path / "cache")
    write(tmp_path / "cache", values=VALUES + 1)
    assert np.array_equal(store.array(entry / "values.npy"), VALUES)
    (entry / "values.npy").write_bytes(b"damaged")
    assert store.read(entry) is None
    write(tmp_path / "cache", values=VALUES + 1)
    assert store.read(entry) == CONTENT
    assert np.array_equal(store.array(entry / "values.npy"), VALUES + 1)


def test_only_what_lay_unfinished_for_a_day_is_swept(tmp_path: Path) -> None:
    old, young = (tmp_path / f"{store.UNFINISHED}{age}" for age in ("old", "young"))
    for path in (old, young):
        path.mkdir()
    long_ago = time.time() - store.DAY - 60
    os.utime(old, (long_ago, long_ago))
    (tmp_path / "entry").mkdir()
    os.utime(tmp_path / "entry", (long_ago, long_ago))
    with store.unfinished(tmp_path) as folder:
        assert sorted(tmp_path.iterdir()) == sorted([folder, young, tmp_path / "entry"])


def test_places_are_the_first_of_equal_hashes_and_minus_one_without_any() -> None:
    a, b, zero_at_the_end, absent = (bytes([n, 7]) * 8 for n in (9, 1, 5, 3))
    zero_at_the_end = zero_at_the_end[:-1] + b"\0"
    among = np.array([a, zero_at_the_end, b, a], "S16")
    digests = np.array([b, absent, a, zero_at_the_end, b], "S16")
    assert store.places(digests, among).tolist() == [2, -1, 0, 1, 2]
    assert store.places(digests, among[:0]).tolist() == [-1] * 5
    assert store.places(digests[:0], among).shape == (0,)
