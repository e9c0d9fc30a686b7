from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffusion.data import Dataset, DataSpec, standardized, swiss_roll
from diffusion.data.dataset import Rows, content_hash
from diffusion.errors import InputError


def images(n: int, margin: int = 0, labels: bool = False, copies: int = 1) -> Dataset:
    """n different noise images of 1 x 4 x 6 pixels and a margin, each repeated `copies` times in a row."""
    side = 2 * margin
    values = np.random.default_rng(0).integers(0, 256, (n, 1, 4 + side, 6 + side), dtype=np.uint8)
    values = values.repeat(copies, axis=0)
    label = np.arange(n * copies) % 3 if labels else None
    names = tuple(f"{i}.png" for i in range(n * copies))
    return Dataset(values, DataSpec((1, 4, 6), 256, ("a", "b", "c") if labels else ()), label, names, margin)


def everything(dataset: Dataset) -> np.ndarray:
    return dataset.batch(range(len(dataset)))[0].numpy()


@pytest.mark.parametrize("indices", [[4, 0, 4], torch.tensor([4, 0, 4]), np.array([4, 0, 4])])
def test_batch_keeps_the_order_of_the_indices(indices: list[int]) -> None:
    dataset = images(5, labels=True)
    values, labels = dataset.batch(indices)
    assert (values.dtype, values.shape) == (torch.uint8, (3, 1, 4, 6))
    assert np.array_equal(values, np.asarray(dataset.values)[[4, 0, 4]])
    assert labels is not None
    assert (labels.dtype, labels.tolist()) == (torch.int64, [1, 0, 1])
    assert images(5).batch(indices)[1] is None


def test_batch_is_a_copy() -> None:
    dataset = images(5)
    before = everything(dataset).copy()
    dataset.batch([0])[0].zero_()
    assert np.array_equal(everything(dataset), before)


def test_batch_refuses_what_is_not_there() -> None:
    with pytest.raises(IndexError):
        images(5).batch([5])


def test_center_removes_the_margin() -> None:
    dataset = images(2, margin=3)
    values, _ = dataset.batch([0, 1])
    assert torch.equal(dataset.center(values), values[:, :, 3:7, 3:9])
    assert images(2).center(values) is values


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [0]), (2, [0, 8]), (3, [0, 4, 8]), (9, list(range(9))), (20, list(range(9)))]
)
def test_evenly_takes_examples_of_the_whole_order(count: int, expected: list[int]) -> None:
    part = images(9, labels=True).evenly(count)
    assert part.names == tuple(f"{i}.png" for i in expected)
    assert np.array_equal(everything(part), everything(images(9))[expected])


def test_subset_of_a_subset_keeps_values_labels_and_names_together() -> None:
    dataset = images(9, labels=True)
    part = dataset.subset([8, 2, 5]).subset([2, 0])
    assert len(part) == 2
    assert part.names == ("5.png", "8.png")
    assert part.values.shape == (2, 1, 4, 6)
    assert np.array_equal(np.asarray(part.values), everything(dataset)[[5, 8]])
    values, labels = part.batch([1, 0])
    assert np.array_equal(values, everything(dataset)[[8, 5]])
    assert labels is not None
    assert labels.tolist() == [2, 2]


def test_subset_does_not_copy_the_values() -> None:
    dataset = images(9)
    values = dataset.subset([1, 2]).values
    assert isinstance(values, Rows)
    assert values.array is dataset.values


def test_parts_must_be_equally_many() -> None:
    with pytest.raises(ValueError, match="3 values, 1 names"):
        Dataset(np.zeros((3, 2), np.float32), DataSpec((2,), None), None, ("a",))


def test_split_parts_the_dataset_in_order() -> None:
    dataset = images(500, labels=True)
    train, held_out = dataset.split(0.2, seed=1)
    numbers = [[int(name.split(".")[0]) for name in part.names] for part in (train, held_out)]
    assert numbers == [sorted(part) for part in numbers]
    assert sorted(numbers[0] + numbers[1]) == list(range(500))
    assert abs(len(held_out) - 100) < 4 * (500 * 0.2 * 0.8) ** 0.5
    assert np.array_equal(everything(held_out), everything(dataset)[numbers[1]])


def test_split_depends_on_the_seed_only_through_its_hash() -> None:
    dataset = images(200)
    assert dataset.split(0.3, seed=1)[1].names == dataset.split(0.3, seed=1)[1].names
    assert dataset.split(0.3, seed=1)[1].names != dataset.split(0.3, seed=2)[1].names


def test_further_files_move_no_others() -> None:
    dataset = images(400)
    some = dataset.subset(range(0, 400, 2))
    held_out = set(dataset.split(0.1, seed=0)[1].names)
    assert set(some.split(0.1, seed=0)[1].names) == held_out & set(some.names)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5])
@pytest.mark.parametrize(("n", "copies"), [(2, 1), (3, 1), (9, 1), (2, 5), (40, 3)])
def test_copies_stay_together_and_the_held_out_part_is_fair(n: int, copies: int, share: float) -> None:
    dataset = images(n, copies=copies)
    for seed in range(10):
        train, held_out = dataset.split(share, seed)
        assert 1 <= len(held_out) <= len(dataset) // 2
        assert len(train) + len(held_out) == len(dataset)
        contents = [{row.tobytes() for row in everything(part)} for part in (train, held_out)]
        assert not contents[0] & contents[1]


@pytest.mark.parametrize(("n", "copies"), [(1, 1), (1, 7)])
def test_one_distinct_example_is_trained_on(n: int, copies: int) -> None:
    train, held_out = images(n, copies=copies).split(0.1, seed=0)
    assert (len(train), len(held_out)) == (copies, 0)


def test_nothing_held_out_on_request() -> None:
    train, held_out = images(9).split(0, seed=0)
    assert (len(train), len(held_out)) == (9, 0)
    assert everything(held_out).shape == (0, 1, 4, 6)


def test_held_out_is_checked() -> None:
    with pytest.raises(ValueError, match=r"data\.held_out: .*between 0 and 0\.5, got 0\.9"):
        images(9).split(0.9, seed=0)


def test_standardized_images_have_mean_zero_and_variance_one_without_the_margin() -> None:
    dataset = images(300, margin=1)
    spec = standardized(dataset).spec
    x = everything(dataset)[:, :, 1:-1, 1:-1].astype(float)
    assert (spec.mean, spec.std) == (pytest.approx(x.mean(), rel=1e-9), pytest.approx(x.std(), rel=1e-9))
    ends = standardized(dataset, limit=2).spec
    assert ends.mean == pytest.approx(x[[0, -1]].mean(), rel=1e-9)


def test_held_out_images_have_no_part_in_mean_and_std() -> None:
    dataset = images(300, margin=1)
    training, held_out = (part.names for part in dataset.split(0.3, seed=4))
    assert len(held_out) > 50
    rows = [int(name.split(".")[0]) for name in held_out]
    spec = standardized(dataset, held_out=0.3, seed=4).spec
    x = np.delete(everything(dataset), rows, axis=0)[:, :, 1:-1, 1:-1].astype(np.float64)
    assert len(x) == len(training)
    assert (spec.mean, spec.std) == (pytest.approx(x.mean(), rel=1e-12), pytest.approx(x.std(), rel=1e-12))
    assert spec != standardized(dataset).spec
    few = standardized(dataset, held_out=0.3, seed=4, limit=3).spec
    assert few.mean == pytest.approx(x[[0, round((len(x) - 1) / 2), -1]].mean(), rel=1e-12)
    # Contents that are known decide the split, so that other values of the held-out images leave it as it is.
    known = replace(dataset, contents=np.fromiter(dataset._contents(), np.uint64))
    changed = everything(dataset).copy()
    changed[rows] = 255
    assert standardized(replace(known, values=changed), held_out=0.3, seed=4).spec == spec
    assert standardized(replace(known, values=changed)).spec.mean > spec.mean + 10


def test_points_keep_the_scale_of_their_distribution() -> None:
    points = swiss_roll(100, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dataset, "split", lambda *_: pytest.fail("split, which hashes all examples"))
        assert standardized(points, held_out=0.1) is points


def test_nothing_to_standardize_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        standardized(images(9).subset([]))
    flat = Dataset(np.full((9, 1, 4, 4), 7, np.uint8), DataSpec((1, 4, 4), 256), None, ("",) * 9)
    with pytest.raises(ValueError, match="every value is 7"):
        standardized(flat)


def damaged(n: int, margin: int = 1, *, paint: int = 255) -> Dataset:
    """n noise images with random holes, in which the values are `paint`."""
    whole = images(n, margin)
    seen = np.random.default_rng(1).random((n, 1, *whole.values.shape[2:])) < 0.7
    values = np.where(seen, np.asarray(whole.values), np.uint8(paint))
    return replace(whole, values=values, seen=seen.astype(np.uint8))


def test_unseen_pixels_have_no_part_in_mean_std_and_split() -> None:
    one, other = damaged(200), damaged(200, paint=7)
    assert standardized(one, held_out=0.2).spec == standardized(other, held_out=0.2).spec
    training, held_out = one.split(0.2, seed=3)
    assert [part.names for part in other.split(0.2, seed=3)] == [training.names, held_out.names]
    # The expected numbers are over the seen pixels of the training images without their margin.
    assert training.seen is not None
    center = np.s_[:, :, 1:-1, 1:-1]
    values = np.asarray(training.values)[center][np.asarray(training.seen)[center] == 1].astype(np.float64)
    spec = standardized(one, held_out=0.2, seed=3).spec
    assert abs(spec.mean - values.mean()) < 1e-9 and abs(spec.std - values.std()) < 1e-9


def test_a_hash_is_of_the_seen_pixels_and_of_the_mask() -> None:
    row, seen = np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.ones((1, 3, 4), np.uint8)
    assert content_hash(row, seen) == content_hash(row), "an image that is wholly seen is as it is without a mask"
    seen[0, 1, 2] = 0
    painted, other = row.copy(), row.copy()
    painted[:, 1, 2], other[0, 0, 0] = 200, 200
    hole = content_hash(row, seen)
    assert content_hash(painted, seen) == hole != content_hash(other, seen)
    moved = np.roll(seen, 1)
    assert len({hole, content_hash(row), content_hash(row, moved)}) == 3


def test_images_of_which_nothing_was_seen_are_an_error() -> None:
    dataset = replace(images(4), seen=np.zeros((4, 1, 4, 6), np.uint8))
    with pytest.raises(InputError, match=r"data\.masks: none of the pixels of the training images was seen"):
        standardized(dataset)
