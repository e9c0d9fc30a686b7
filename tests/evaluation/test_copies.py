"""The ratio test flags copies, and of honest samples the share that it says, measured over many calibrations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffusion.distances.nearest import Neighbors
from diffusion.evaluation.copies import RatioTest, Verdict, below_third

DIM, TRAINING = 6, 200


def points(n: int, generator: torch.Generator) -> Tensor:
    """Draws from a mixture in which some points have much nearer neighbors than others."""
    spread = torch.tensor([0.1, 1.0, 3.0])[torch.randint(3, (n, 1), generator=generator)]
    return (spread * torch.randn(n, DIM, generator=generator)).double()


def neighbors(x: Tensor, training: Tensor) -> Neighbors:
    distances, numbers = torch.cdist(x, training).topk(2, largest=False)
    return Neighbors(numbers, distances)


@pytest.mark.parametrize(("flagged", "held_out", "rank"), [(0.05, 100, 5), (0.01, 30, 1)])
def test_honest_samples_are_flagged_at_the_rate_that_the_test_states(flagged: float, held_out: int, rank: int) -> None:
    """200 calibrations on new data. Each true rate is measured on 1,000 samples of the same distribution."""
    rates = []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        training = points(TRAINING, generator)
        test = RatioTest.of(neighbors(points(held_out, generator), training).ratios, flagged)
        rates.append(float(test(neighbors(points(1000, generator), training).ratios).double().mean()))
    stated, found = rank / (held_out + 1), torch.tensor(rates)
    assert test.rank == rank and test.rate.mean == pytest.approx(stated)
    error = float(found.std()) / 200**0.5
    assert float(found.mean()) == pytest.approx(stated, abs=3 * error) and error < 0.1 * stated
    low, high = test.rate.interval
    covered = float(((low <= found) & (found <= high)).double().mean())
    assert 0.9 <= covered <= 0.99, "the measured rates have errors of their own"


def test_copies_are_flagged_and_their_share_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    training = points(TRAINING, generator)
    test = RatioTest.of(neighbors(points(199, generator), training).ratios, 0.01)
    copied = training[:60] + 0.002 * torch.randn(60, DIM, generator=generator)
    mixed = neighbors(torch.cat([copied, points(140, generator)]), training)
    verdict = Verdict(mixed, test, 0.0)
    assert verdict.flagged[:60].double().mean() >= 0.95 and verdict.flagged[60:].double().mean() < 0.1
    shares = verdict.shares
    assert shares["copies"].low < 0.3 < shares["copies"].high and shares["copies"].low > 0.2
    assert below_third(mixed).value == float((mixed.ratios < 1 / 3).double().mean())


def test_a_ratio_is_flagged_where_its_p_value_is_as_small_as_asked() -> None:
    held_out = torch.tensor([0.9, 0.2, 0.5, 0.7, 0.4, 0.3, 0.6, 0.8, 0.95], dtype=torch.float64)
    for flagged, rank, enough in ((0.2, 2, True), (0.3, 3, True), (0.19, 1, True), (0.1, 1, True), (0.09, 1, False)):
        test = RatioTest.of(held_out, flagged)
        assert (test.rank, test.enough) == (rank, enough)
        ratios = torch.tensor([0.1, 0.2, 0.25, 0.3, 0.35, 1.0], dtype=torch.float64)
        assert test.p_values(ratios).tolist() == pytest.approx([0.1, 0.2, 0.2, 0.3, 0.3, 1.0])
        assert torch.equal(test(ratios), test.p_values(ratios) <= rank / 10 + 1e-9)


def test_samples_farther_from_copies_than_unseen_images_are_told_from_honest_ones() -> None:
    test = RatioTest.of(torch.linspace(0.01, 1, 100, dtype=torch.float64), 0.1)
    distances = torch.tensor([[0.9, 1.0]], dtype=torch.float64).expand(300, 2)
    assert Verdict(Neighbors(torch.zeros(300, 2), distances), test, 0.0).fewer
    assert not Verdict(Neighbors(torch.zeros(5, 2), distances[:5]), test, 0.0).fewer
