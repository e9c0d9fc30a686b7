from __future__ import annotations

from collections import Counter

import pytest
import torch

from diffusion.data import SampleStream


def test_every_epoch_is_another_permutation() -> None:
    epochs = SampleStream(50, seed=3).indices(0, 200).view(4, 50)
    assert epochs.dtype == torch.int64
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(50))
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4


@pytest.mark.parametrize("length", [*range(1, 40), 97, 1000, 4097])
def test_every_example_comes_once_an_epoch_whatever_the_length(length: int) -> None:
    assert sorted(SampleStream(length, seed=1).indices(length, length).tolist()) == list(range(length))


def test_every_order_is_equally_likely() -> None:
    orders = 24
    n = 200 * orders
    counts = Counter(tuple(epoch) for epoch in SampleStream(4, seed=0).indices(0, 4 * n).view(n, 4).tolist())
    assert len(counts) == orders
    chi_square = sum((count - 200) ** 2 / 200 for count in counts.values())
    assert abs(chi_square - (orders - 1)) < 4 * (2 * (orders - 1)) ** 0.5


def test_neighbors_are_parted_and_places_are_shared_evenly() -> None:
    n = 10_000
    order = SampleStream(n, seed=0).indices(0, n).double()
    place = torch.arange(n).double()
    for x in (order, order.roll(1)):
        assert abs(torch.corrcoef(torch.stack([x, place]))[0, 1]) < 4 / n**0.5
    assert abs(torch.corrcoef(torch.stack([order[1:], order[:-1]]))[0, 1]) < 4 / n**0.5
    quarters = (order.view(4, -1) // (n / 4)).long()
    assert abs(torch.stack([q.bincount(minlength=4) for q in quarters]) - n / 16).max() < 4 * (n / 16) ** 0.5


def test_a_part_of_a_billion_examples_is_computed_alone() -> None:
    indices = SampleStream(10**9 + 7, seed=0).indices(3 * 10**9, 1000)
    assert len(set(indices.tolist())) == 1000
    assert 0 <= int(indices.min()) < 10**8 and 9 * 10**8 < int(indices.max()) < 10**9 + 7


@pytest.mark.parametrize("length", [1, 7, 10, 64])
def test_any_part_can_be_asked_for_at_any_time(length: int) -> None:
    whole = SampleStream(length, seed=0).indices(0, 100)
    for start, count in [(93, 7), (0, 1), (9, 21), (50, 50), (10, 10)]:
        assert torch.equal(SampleStream(length, seed=0).indices(start, count), whole[start : start + count])


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_order_is_the_same_on_any_number_of_processes(processes: int) -> None:
    stream, batch = SampleStream(30, seed=1), 8
    share = batch // processes
    parts = [stream.indices(step * batch + rank * share, share) for step in range(10) for rank in range(processes)]
    assert torch.equal(torch.cat(parts), stream.indices(0, 80))


def test_order_depends_on_the_seed() -> None:
    orders = [SampleStream(100, seed).indices(0, 100).tolist() for seed in (0, 1)]
    assert orders[0] != orders[1]


def test_order_ignores_and_keeps_the_global_generator() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = SampleStream(23, seed=5).indices(0, 23)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(SampleStream(23, seed=5).indices(0, 23), first)


def test_changing_the_result_does_not_change_the_stream() -> None:
    stream = SampleStream(10, seed=0)
    first = stream.indices(0, 10)
    expected = first.clone()
    first.zero_()
    assert torch.equal(stream.indices(0, 10), expected)


def test_errors_name_the_field() -> None:
    with pytest.raises(ValueError, match=r"stream\.length: .*got 0"):
        SampleStream(0, seed=0)
    with pytest.raises(ValueError, match="got -1, 1"):
        SampleStream(5, seed=0).indices(-1, 1)
