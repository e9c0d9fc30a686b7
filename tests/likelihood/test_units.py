"""The units of the table of Sohl-Dickstein et al. (2015), whose rows check each other."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion.likelihood.units import bits, bits_per_dim, bits_per_pixel, null_log_likelihood

NULL = null_log_likelihood(1) / math.log(2)


@pytest.mark.parametrize(
    ("k", "dim", "difference"), [(2.35, 2, 6.45), (-0.55, 1, 1.5), (1.489, 1, 3.536), (5.4, 3, 11.5)]
)
def test_every_gaussian_row_of_the_table_of_2015(k: float, dim: int, difference: float) -> None:
    assert k - null_log_likelihood(dim) / math.log(2) == pytest.approx(difference, abs=0.05)


def test_a_scalar_of_the_null_has_the_entropy_of_a_unit_normal() -> None:
    assert pytest.approx(-2.0471, abs=1e-4) == NULL
    x = torch.tensor([[1.5, -0.2, 0.7]], dtype=torch.float64)
    density = torch.distributions.Normal(0, 1).log_prob(x).sum().item()
    assert null_log_likelihood(3, second_moment=x.square().mean().item()) == pytest.approx(density, rel=1e-12)


def test_bits_per_pixel_of_cifar_10_are_its_bits_per_dim() -> None:
    std = 0.2516 * 255
    assert bits_per_pixel(4.20, colors=3, std=std) == pytest.approx(5.4, abs=0.02)


def test_a_density_becomes_the_probability_of_a_gray_level_by_its_width() -> None:
    """For a Gaussian with a standard deviation of 40 gray levels, the bits of density and probability agree."""
    std, levels = 40.0, torch.arange(256, dtype=torch.float64)
    distribution = torch.distributions.Normal(127.5, std)
    p = distribution.cdf(levels + 0.5) - distribution.cdf(levels - 0.5)
    p = p / p.sum()
    bits_of_levels = -(p * p.log2()).sum().item()
    density = -(p * torch.distributions.Normal(0, 1).log_prob((levels - 127.5) / std)).sum() / math.log(2)
    assert bits_per_pixel(bits_of_levels, colors=1, std=std) == pytest.approx(-density.item(), abs=0.02)


def test_bits_per_dim() -> None:
    assert bits_per_dim(torch.tensor(12 * math.log(256)), 12).item() == pytest.approx(8)
    assert bits(torch.tensor(math.log(2))).item() == pytest.approx(1)
