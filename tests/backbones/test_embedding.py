"""Features and embeddings have unit mean square and tell log-SNRs and labels apart."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion.backbones.embedding import Embedding, LabelTable, LogSNRFeatures
from tests.backbones.conftest import rms


def test_features_are_waves_of_unit_mean_square() -> None:
    features, log_snr = LogSNRFeatures(6), torch.linspace(-15, 15, 31)
    found = features(log_snr)
    for i, frequency in enumerate((0.05, 0.15**0.5, 3.0)):
        assert torch.allclose(found[:, i], math.sqrt(2) * torch.cos(frequency * log_snr), atol=1e-5)
        assert torch.allclose(found[:, 3 + i], -math.sqrt(2) * torch.sin(frequency * log_snr), atol=1e-5)
    assert torch.allclose(found.square().mean(1), torch.ones(31), rtol=1e-5)


@pytest.mark.parametrize("classes", [0, 10])
def test_an_embedding_has_unit_mean_square(classes: int) -> None:
    torch.manual_seed(0)
    embed, log_snr = Embedding(512, classes), torch.linspace(-15, 15, 500)
    one_hot = torch.nn.functional.one_hot(torch.arange(500) % (classes + 1), classes + 1).float()
    # Measured over 20 seeds: 0.98 to 1.03.
    assert rms(embed(log_snr, one_hot)) == pytest.approx(1, abs=0.08)


def test_log_snrs_and_labels_are_told_apart() -> None:
    torch.manual_seed(0)
    embed, one_hot = Embedding(128, 3), torch.eye(4)
    labels = embed(torch.zeros(4), one_hot)
    assert (torch.cdist(labels, labels) + 100 * torch.eye(4)).min() > 0.5 * 128**0.5
    log_snr = embed(torch.tensor([-12.0, -11.5, 11.5, 12.0]), one_hot[:1].expand(4, -1))
    assert (torch.cdist(log_snr, log_snr) + 100 * torch.eye(4)).min() > 0.1 * 128**0.5
    plain = Embedding(128, 0)
    assert plain.label is None and torch.equal(*plain(torch.zeros(2), torch.tensor([[1.0], [0.0]])))


def test_the_rows_of_a_new_table_of_labels_are_projected_to_unit_mean_square_and_shown_as_stored() -> None:
    torch.manual_seed(0)
    table = LabelTable(4, 7)
    drawn = table.weight.detach().clone()
    assert torch.allclose(drawn.square().mean(1), torch.ones(7), rtol=1e-5)
    assert torch.allclose(table(torch.eye(5)), drawn.T, rtol=1e-6)
    with torch.no_grad():
        table.weight.mul_(torch.linspace(0.2, 4, 7)[:, None])
    table.project_()
    assert torch.allclose(table.weight, drawn, rtol=1e-5) and table.weight.requires_grad


def test_a_table_that_takes_columns_of_another_is_projected_as_that_one() -> None:
    """Rows of an average are shorter than 1: what the projection makes of them is the same in both."""
    torch.manual_seed(0)
    old, new = LabelTable(3, 6), LabelTable(5, 6)
    with torch.no_grad():
        old.weight.mul_(torch.linspace(0.7, 1, 6)[:, None])
        new.weight.copy_(old.weight[:, [2, 0, 1, 1, 1, 3]])
        new.weight[:, 2:5] /= 9  # Such as the means of many columns.
    before = [table.weight.detach().clone() for table in (old, new)]
    new.keep_from_(old)
    assert float((new.rms - 1).abs().max()) > 0.1
    for table in (old, new):
        table.project_()
    factors = [table.weight / was for table, was in zip((old, new), before, strict=True)]
    expected = (1 / torch.linspace(0.7, 1, 6))[:, None]
    assert all(torch.allclose(factor, expected.expand_as(factor), rtol=1e-5) for factor in factors)
    again = LabelTable(3, 6)
    again.keep_from_(again)
    assert torch.equal(again.rms, torch.ones(6)), "the same columns keep their mean square to the last bit"
