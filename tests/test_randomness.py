"""Noise is a function of (seed, number) alone."""

from __future__ import annotations

import pytest
import torch

from diffusion.randomness import ExampleNoise, example_seed


def test_seeds_never_change() -> None:
    assert example_seed(0) == 4246866556266386882
    assert example_seed(0, 0) == 5046677104938694277
    assert example_seed(0, 1) == 2024819301478721300
    assert example_seed(1, 0) == 5250232019403110347
    assert example_seed(7, 12, 3) == 6569119626237874087


def test_seeds_are_63_bits_and_distinct() -> None:
    seeds = [example_seed(seed, i) for seed in range(20) for i in range(500)]
    assert len(set(seeds)) == len(seeds) and min(seeds) >= 0 and max(seeds) < 2**63
    assert example_seed(1, 11) != example_seed(11, 1) != example_seed(111)


def test_the_first_numbers_never_change() -> None:
    for dtype in (torch.float32, torch.float64):
        noise = ExampleNoise([example_seed(0, 0)])(torch.zeros(1, 3, dtype=dtype))
        assert noise[0].tolist() == pytest.approx([-0.24418943, 1.30311863, -1.44994144], abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_depends_on_its_seed_alone(dtype: torch.dtype) -> None:
    seeds = [example_seed(3, i) for i in range(7)]
    whole = ExampleNoise(seeds)(torch.zeros(7, 3, 4, 4, dtype=dtype))
    assert whole.dtype == dtype
    for i in (0, 4, 6):
        assert torch.equal(ExampleNoise(seeds[i : i + 1])(torch.zeros(1, 3, 4, 4, dtype=dtype))[0], whole[i])
    correlation = torch.corrcoef(whole.flatten(1)).fill_diagonal_(0)
    assert correlation.abs().max() < 0.5, "48 numbers each: 0.5 is 3.5 standard errors"


def test_calls_continue_the_stream() -> None:
    noise = ExampleNoise([1, 2])
    first, second = noise(torch.zeros(2, 16)), noise(torch.zeros(2, 16))
    again = ExampleNoise([1, 2])
    assert torch.equal(again(torch.zeros(2, 16)), first) and torch.equal(again(torch.zeros(2, 16)), second)
    assert (first - second).abs().min() > 0


def test_it_is_standard_normal() -> None:
    noise = ExampleNoise([5])(torch.zeros(1, 200_000, dtype=torch.float64))
    assert noise.mean().abs() < 0.01 and (noise.std() - 1).abs() < 0.01
    assert (noise.square() < 1).double().mean() == pytest.approx(0.6827, abs=0.005)


def test_another_batch_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="noise: 2 seeds were given for a batch of 3 examples"):
        ExampleNoise([1, 2])(torch.zeros(3, 4))
