"""Examples are known by their values and classes, at any place and in any order."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion.data import Dataset, DataSpec, dead_leaves, identity, mixture, swiss_roll
from diffusion.data.identity import Change

VALUES = np.random.default_rng(0).integers(0, 256, (6, 1, 2, 2), dtype=np.uint8)


def dataset(values: np.ndarray = VALUES, labels: list[int] | None = None, classes: tuple[str, ...] = ()) -> Dataset:
    numbers = None if labels is None else np.array(labels)
    return Dataset(values, DataSpec((1, 2, 2), 256, classes), numbers, [str(i) for i in range(len(values))])


def test_a_hash_is_that_of_the_values_whatever_is_known_of_them_before() -> None:
    plain = identity.hashes_of(dataset())
    assert len(set(plain.tolist())) == 6
    order = np.array([3, 1, 5, 0, 2, 4])
    assert np.array_equal(identity.hashes_of(dataset(VALUES[order])), plain[order])
    assert np.array_equal(identity.hashes_of(dataset().subset(order)), plain[order])
    known = replace(dataset(), contents=np.arange(6, dtype=np.uint64))
    assert identity.hashes_of(known).tolist() == [0, 1, 2, 3, 4, 5], "hashes that the cache has are not made again"


def test_a_hash_has_the_mask_in_it_and_not_what_lies_behind() -> None:
    seen = np.ones((6, 1, 2, 2), np.uint8)
    assert np.array_equal(identity.hashes_of(replace(dataset(), seen=seen)), identity.hashes_of(dataset())), (
        "images that are wholly seen are those without masks"
    )
    seen[2, 0, 0, 1] = 0
    painted = VALUES.copy()
    painted[2, 0, 0, 1] ^= 255
    one, other = (identity.hashes_of(replace(dataset(values), seen=seen)) for values in (VALUES, painted))
    assert np.array_equal(one, other)
    assert np.flatnonzero(one != identity.hashes_of(dataset())).tolist() == [2]


def test_a_hash_has_the_name_of_the_class_in_it_and_not_its_number() -> None:
    one = identity.hashes_of(dataset(labels=[0, 1, 0, 1, 0, 1], classes=("cat", "dog")))
    other = identity.hashes_of(dataset(labels=[2, 0, 2, 0, 2, 0], classes=("dog", "bird", "cat")))
    assert np.array_equal(one, other)
    moved = identity.hashes_of(dataset(labels=[1, 1, 0, 1, 0, 1], classes=("cat", "dog")))
    assert np.flatnonzero(one != moved).tolist() == [0]
    assert not np.isin(one, identity.hashes_of(dataset())).any()


def test_generated_examples_are_known_by_some_of_them() -> None:
    one, same, other = (identity.hashes_of(dead_leaves(1000, seed, (4, 4))) for seed in (0, 0, 1))
    assert len(one) == identity.MADE and np.array_equal(one, same) and not np.isin(one, other).any()


def test_points_are_known_by_all_of_them() -> None:
    one, other = (identity.hashes_of(swiss_roll(300, seed, 0.02)) for seed in (0, 1))
    assert len(one) == 300 and not np.isin(one, other).any()
    assert len(identity.hashes_of(mixture(10, 0, labels=True))) == 10


def test_the_digest_of_a_set_does_not_depend_on_its_order() -> None:
    hashes = np.array([5, 2**63, 7, 7], np.uint64)
    assert identity.digest(hashes) == identity.digest(hashes[::-1]) != identity.digest(hashes[:3])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], Change(0, 0, 3, reordered=False)),
        ([1, 2, 3], [3, 1, 2], Change(0, 0, 3, reordered=True)),
        ([1, 2, 3], [0, 1, 5, 2, 3, 9], Change(3, 0, 3, reordered=False)),
        ([1, 2, 3], [3], Change(0, 2, 1, reordered=False)),
        ([1, 2], [3, 4], Change(2, 2, 0, reordered=False)),
        ([1, 1, 2], [1, 2, 2], Change(1, 1, 2, reordered=False)),
        ([], [4], Change(1, 0, 0, reordered=False)),
    ],
)
def test_a_change_counts_what_came_and_what_went(old: list[int], new: list[int], expected: Change) -> None:
    found = identity.change(np.array(old, np.uint64), np.array(new, np.uint64))
    assert found == expected
    assert (found.same, found.grown) == (sorted(old) == sorted(new), expected.removed == 0)


def test_a_change_in_words() -> None:
    assert str(Change(1200, 3, 5, reordered=False)) == "1,200 more and 3 fewer"


def test_spellings_of_one_place_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", str(tmp_path))
    for spelling in (
        "photos/",
        "./photos",
        "link",
        "link/../photos",
        "~/photos",
        "$DATA/photos",
        str(tmp_path / "link"),
    ):
        assert identity.same_place("photos", spelling), spelling
    assert not identity.same_place("photos", "photo") and not identity.same_place("photos", "")
    assert identity.same_place("hf://a/b", "hf://a/b") and not identity.same_place("hf://a/b", "hf://a/c")
    assert not identity.same_place("$NO_SUCH_VARIABLE/a", "photos")
    assert identity.place("hf://a/b") == "hf://a/b" and identity.place("photos") == os.path.realpath("photos")


def test_tensors_of_indices_and_margins_change_nothing() -> None:
    """The values are hashed as they are stored, with the margin."""
    padded = replace(dataset(), spec=DataSpec((1, 1, 1), 256), margin=0)
    chosen = padded.subset(torch.arange(6).numpy())
    assert np.array_equal(identity.hashes_of(chosen), identity.hashes_of(dataset()))
