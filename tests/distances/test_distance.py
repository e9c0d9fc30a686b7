"""The interface: what is refused, and that subsets of rows give what the sets alone give."""

from __future__ import annotations

import pytest
import torch

from diffusion.distances import FEATURE_DISTANCES, IMAGE_DISTANCES
from diffusion.distances.distance import features, indicators
from diffusion.distances.frechet import Frechet
from diffusion.distances.neighbors import Coverage
from diffusion.errors import InputError


@pytest.mark.parametrize("name", FEATURE_DISTANCES)
def test_pairs_of_subsets_are_what_the_sets_are_alone(name: str) -> None:
    """Features have no normalization over all rows, so other rows beside two sets change nothing but rounding."""
    distance = FEATURE_DISTANCES[name]()
    rows = distance.describe(torch.randn(90, 3, generator=torch.Generator().manual_seed(0)))
    mixed = torch.randperm(90, generator=torch.Generator().manual_seed(1))
    sets = [mixed[:30], mixed[30:60], mixed[60:]]
    found = distance.between(rows, sets, [(0, 1), (2, 1), (1, 0)])
    alone = [distance(rows[sets[a]], rows[sets[b]]) for a, b in ((0, 1), (2, 1), (1, 0))]
    # The halves of the extrapolation are drawn set by set, so its second and third pairs have others.
    checked = 1 if name == "frechet_extrapolated" else 3
    assert found.dtype == torch.float64 and found[:checked].tolist() == pytest.approx(alone[:checked], rel=1e-10)


def test_indicators_have_a_column_for_every_set() -> None:
    inside = indicators([torch.tensor([2, 0]), torch.tensor([1])], 3, torch.float32, torch.device("cpu"))
    assert inside.tolist() == [[1, 0], [0, 1], [1, 0]]


def test_what_is_no_set_is_refused() -> None:
    with pytest.raises(InputError, match=r"features: must be of shape \(N, F\), got \(2, 3, 4\)"):
        features(torch.zeros(2, 3, 4))
    with pytest.raises(InputError, match="features: must be finite"):
        features(torch.tensor([[0.0], [torch.nan]]))
    with pytest.raises(InputError, match="samples: must be at least 2 for the Fréchet distance, got 1"):
        Frechet()(torch.zeros(1, 2), torch.zeros(5, 2))
    with pytest.raises(InputError, match="real: must be at least 6 for the coverage, got 5"):
        Coverage()(torch.zeros(9, 2), torch.zeros(5, 2))


@pytest.mark.parametrize("name", IMAGE_DISTANCES)
def test_images_are_described_alike_in_any_batch_and_order(name: str) -> None:
    images = torch.rand(7, 3, 33, 20, generator=torch.Generator().manual_seed(0))
    distance = IMAGE_DISTANCES[name]()
    rows = distance.describe(images)
    order = torch.tensor([3, 0, 6, 5, 1, 2, 4])
    assert torch.equal(distance.describe(images[order]), rows[order])
    assert torch.equal(torch.cat([distance.describe(image[None]) for image in images]), rows)
