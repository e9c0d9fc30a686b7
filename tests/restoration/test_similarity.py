"""SSIM has the values that its definition gives in closed form."""

from __future__ import annotations

import pytest
import torch

from diffusion.restoration.similarity import ssim


def test_ssim_identities() -> None:
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert ssim(x, x).tolist() == pytest.approx([1, 1], abs=1e-12)
    assert torch.allclose(ssim(x, 1 - x), ssim(1 - x, x))
    # Of constants only the term of the means is left; of one sign of contrast against the other that term is 1.
    a, b = torch.full((1, 1, 11, 11), 0.3).double(), torch.full((1, 1, 11, 11), 0.6).double()
    assert float(ssim(a, b)) == pytest.approx((2 * 0.18 + 1e-4) / (0.09 + 0.36 + 1e-4), abs=1e-9)
    board = (torch.arange(11)[:, None] + torch.arange(11)).remainder(2).double()[None, None]
    assert float(ssim(board, 1 - board)) == pytest.approx((9e-4 - 0.5) / (9e-4 + 0.5), abs=2e-3)
    flat = 0.5 + 0.5 * (x - 0.5)
    assert (ssim(flat, x) < 0.9).all() and (ssim(flat, x) > ssim(0.2 * flat + 0.4, x)).all()
