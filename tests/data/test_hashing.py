from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion.data import hashing
from diffusion.data.hashing import hashed, normal


def test_the_published_sequence() -> None:
    """The first outputs of SplitMix64 from state 1234567, whose state grows by the golden gamma."""
    gamma = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + i * gamma) % 2**64 for i in range(3)], np.uint64)
    assert hashed(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_every_bit_of_the_input_moves_half_of_the_output() -> None:
    x = np.arange(2000, dtype=np.uint64)
    for bit in range(64):
        changed = np.bitwise_count(hashed(x) ^ hashed(x ^ np.uint64(1 << bit)))
        assert abs(changed.mean() - 32) < 0.6


def test_normal_numbers_are_quantiles_and_finite_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(np.arange(500, dtype=np.uint64)[:, None], np.arange(400)).double()
    assert x.shape == (500, 400)
    quantiles = torch.special.ndtr(x.flatten().sort().values)
    even = (torch.arange(x.numel()) + 0.5) / x.numel()
    assert float((quantiles - even).abs().max()) < 1.63 / x.numel() ** 0.5, "Kolmogorov-Smirnov at 1 %"
    # Neighbors within a row and between rows: four standard errors.
    for other in (x[:, 1:] * x[:, :-1], x[1:] * x[:-1]):
        assert abs(float(other.mean())) < 4 / other.numel() ** 0.5
    monkeypatch.setattr(hashing, "uniform", lambda keys, numbers: np.array([0.0, 0.5, 1 - 2.0**-53]))
    low, middle, high = normal(np.zeros(1, np.uint64), np.arange(3)).tolist()
    assert -8.4 < low < -8 and middle == 0 and 8 < high < 8.4
