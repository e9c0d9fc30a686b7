from __future__ import annotations

import pytest
import torch

from diffusion.data import SampleStream


def test_every_epoch_is_another_permutation() -> None:
    epochs = SampleStream(50, seed=3).indices(0, 200).view(4, 50)
    assert epochs.dtype == torch.int64
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(50))
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4


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
