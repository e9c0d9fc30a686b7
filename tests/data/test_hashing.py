from __future__ import annotations

import numpy as np

from diffusion.data.hashing import hashed


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
