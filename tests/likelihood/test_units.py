"""The units of the table of Sohl-Dickstein et al. (2015), whose rows check each other."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion.likelihood.units import bits, bits_per_dim, bits_per_pixel, meaning, null_log_likelihood

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


def test_the_meaning_of_bits_says_the_levels_and_what_a_guess_has() -> None:
    text = meaning(4096, (0, 4095), dim=64, std=500.0)
    assert text.startswith("bits/dim: of 4,096 gray levels, the values 0 to 4,095 of the files")
    assert "a uniform guess has 12.0000" in text


def test_a_density_in_the_values_of_files_differs_by_the_unit() -> None:
    """The density of d normal values of deviation s has d log2 s bits more than that of the standardized ones."""
    dim, std, low, high = 6, 0.125, -2.0, 6.0
    text = meaning(None, (low, high), dim=dim, std=std)
    deviation = std * (high - low)
    entropies = [dim * torch.distributions.Normal(0.0, s).entropy().item() / math.log(2) for s in (1.0, deviation)]
    assert f"{deviation:g} in the values of the files" in text
    assert text.endswith(f"{entropies[1] - entropies[0]:+.4f}")
    assert meaning(None, (0.0, 40.0), dim=3, std=0.2).endswith("+9.0000")
