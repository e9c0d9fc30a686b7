from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import flops
from benchmarks.common import Timing


def test_a_multiply_add_counts_as_two_forward_and_twice_that_backward() -> None:
    layer, x = nn.Conv2d(3, 5, 3, padding=1, bias=False), torch.randn(2, 3, 8, 8)
    forward = 2 * 2 * 64 * 5 * 3 * 9
    assert flops.count(lambda: layer(x)) == forward
    assert flops.count(lambda: layer(x).sum().backward()) == 2 * forward  # No gradient of the input is needed.
    assert flops.count(lambda: layer(x.clone().requires_grad_()).sum().backward()) == 3 * forward


def test_fused_attention_is_counted_as_its_two_products() -> None:
    q = torch.randn(2, 4, 16, 8)
    assert flops.count(lambda: F.scaled_dot_product_attention(q, q, q)) == 2 * (2 * 2 * 4 * 16 * 16 * 8)


def test_compiled_code_is_counted_as_if_it_were_not() -> None:
    layer, x = nn.Linear(4, 6), torch.randn(3, 4)
    layer.compile(backend="eager")
    assert flops.count(lambda: layer(x)) == 2 * 3 * 4 * 6


def work(widths: tuple[int, ...]) -> float:
    """The work of levels whose area falls by four from one to the next."""
    return sum(n * n / 4**level for level, n in enumerate(widths))


@pytest.mark.parametrize("factor", [1.0, 1.2, 1.3, 1.9, 2.7, 7.1, 25.0])
def test_widths_are_found_for_work_in_between(factor: float) -> None:
    target = factor * work((32, 64, 128))
    a, b, c = flops.matched_widths(work, target)
    assert a % 16 == b % 16 == 0 and b >= a
    assert c >= 4 * a and (c - 4 * a) % 64 == 0
    assert abs(work((a, b, c)) / target - 1) <= 0.05


@pytest.mark.parametrize("widths", [(16, 32, 64), (32, 96, 128), (64, 128, 256), (64, 144, 256)])
def test_widths_of_the_very_work_are_found(widths: tuple[int, ...]) -> None:
    assert work(flops.matched_widths(work, work(widths))) == work(widths)


def test_work_that_no_widths_match_is_refused() -> None:
    with pytest.raises(ValueError, match=r"within 5% of 0\.500 GFLOP"):
        flops.matched_widths(lambda widths: 1e6 * work(widths), 5e8)


def test_the_match_allows_five_percent_either_way() -> None:
    for ours in (95.1, 104.9):
        flops.check_match(ours, 100.0)
    for ours in (94.9, 105.1):
        with pytest.raises(ValueError, match="must agree"):
            flops.check_match(ours, 100.0)


def test_the_convolutions_of_a_call_are_found_with_their_shapes_options_and_number() -> None:
    first, second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1, stride=2)
    x = torch.randn(2, 3, 8, 8)
    found = flops.convolutions(lambda: second(first(x) + first(x)).sum().backward())
    assert {(c.input, c.weight, c.options[:2]): n for c, n in found.items()} == {
        ((2, 3, 8, 8), (4, 3, 3, 3), ((1, 1), (1, 1))): 2,
        ((2, 4, 8, 8), (4, 4, 1, 1), ((2, 2), (0, 0))): 1,
    }


def test_a_step_without_convolutions_has_no_roofline() -> None:
    with pytest.raises(ValueError, match="no convolution"):
        flops.convolutions(lambda: torch.ones(2) + 1)


def test_a_convolution_on_its_own_runs_in_bf16_with_all_its_work() -> None:
    found = flops.convolutions(lambda: nn.Conv2d(3, 4, 3, padding=1, stride=2)(torch.randn(2, 3, 8, 8)))
    ((name, contestant),) = flops.contestants(found, "cpu").items()
    assert name == "3x3 / 2x2, 3 to 4 channels at 8x8, batch 2"
    assert contestant.work == 3 * (2 * 2 * 16 * 4 * 3 * 9)
    with flops._Recorder() as recorder:
        contestant.call()
    assert recorder.seen == found


def test_the_roofline_is_the_best_rate_and_not_the_shortest_call() -> None:
    timings = {"small": Timing((1.0, 1.0, 0.1), work=1.0), "large": Timing((2.0, 2.0, 2.0), work=3.0)}
    assert flops.roofline(timings) == "large"
