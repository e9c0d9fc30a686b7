"""The network is that of torch-fidelity to the last bit, though not made by the constructor that loads weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch_fidelity import FeatureExtractorInceptionV3

from diffusion.errors import InputError
from diffusion.evaluation.inception import Inception


def random_weights(seed: int) -> dict[str, Tensor]:
    """Weights by which features of different images differ, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key, value in Inception().network.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim > 1:
            weights[key] = noise * (2 / value[0].numel()) ** 0.5
        else:
            positive = key.endswith(("running_var", "bn.weight"))
            weights[key] = value if value.ndim == 0 else 0.1 * noise + float(positive)
    return weights


def test_features_are_those_of_torch_fidelity(tmp_path: Path) -> None:
    weights, network = random_weights(0), Inception()
    torch.save(weights, tmp_path / "weights.pth")
    theirs = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(tmp_path / "weights.pth"))
    network.network.load_state_dict(weights)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, 3, 20, 24), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        ours = network.eval()(images)
    assert torch.equal(ours, theirs(images)[0])
    assert ours.shape == (2, Inception.width) and float((ours[0] - ours[1]).abs().max()) > 0.1


def test_without_torch_fidelity_an_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(InputError, match=r"needs torch-fidelity .* python -m pip install torch-fidelity"):
        Inception()
