"""Every backbone projects its weights, saves memory, compiles block by block, and knows its labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from diffusion.backbones import BACKBONES
from diffusion.backbones.backbone import Backbone, ResidualBlock
from diffusion.backbones.embedding import Embedding
from diffusion.backbones.magnitude import UnitConv
from diffusion.backbones.unet import DESIGNS
from tests.backbones.conftest import build, images, log_snrs, parameter_gradients

BOTH = pytest.mark.parametrize("design", DESIGNS)


class Shift(Backbone):
    """A network as a newcomer writes it: of the shared embedding, and without a word about projections."""

    def __init__(self) -> None:
        super().__init__(2, 2, 3)
        self.embed = Embedding(8, 3)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        y: Tensor = x + self.head(self.embed(log_snr, self.one_hot(label, len(x), log_snr)))
        return y


def test_a_backbone_that_says_nothing_of_projections_is_projected() -> None:
    torch.manual_seed(0)
    model = Shift()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 2), log_snrs(8), torch.arange(8) % 4 - 1).square().sum().backward()
        optimizer.step()
    units = [m.weight.detach() for m in model.modules() if isinstance(m, UnitConv)]
    moved, head = [w.square().mean(1) for w in units], model.head.weight.detach().clone()
    assert len(units) == 2 and all((rows - 1).abs().max() > 0.01 for rows in moved)
    model.project_()
    for weight in units:
        assert torch.allclose(weight.square().mean(1), torch.ones(len(weight)), rtol=1e-6)
    assert torch.equal(model.head.weight, head), "what has no projection is left alone"


def test_projection_keeps_directions_and_makes_weights_unit() -> None:
    model = build(classes=2)
    units = {id(m.weight) for m in model.modules() if isinstance(m, UnitConv)}
    drawn = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.mul_(0.5 + 0.2 * (i % 9))
    moved = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.project_()
    for name, parameter in model.named_parameters():
        unit = id(parameter) in units
        assert torch.allclose(parameter, drawn[name] if unit else moved[name], rtol=1e-5)
        if unit:
            rows = parameter.square().flatten(1).mean(1)
            assert torch.allclose(rows, torch.ones_like(rows), rtol=1e-5)


def test_the_last_column_of_one_hot_labels_is_no_label() -> None:
    model, like = Shift(), torch.zeros(1, dtype=torch.float64)
    found = model.one_hot(torch.tensor([2, 0, -1]), 3, like)
    assert found.dtype == torch.float64 and found.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert model.one_hot(None, 2, like).tolist() == [[0, 0, 0, 1]] * 2


@pytest.mark.parametrize("name", BACKBONES)
def test_configurations_build_what_they_say(name: str) -> None:
    model = BACKBONES[name]().build(3, 6)
    assert (model.in_channels, model.out_channels, model.classes) == (3, 6, 0)
    blocks = model.residual_blocks()
    assert all(isinstance(block, ResidualBlock) for block in blocks) and bool(blocks) == (name != "rbf")


@BOTH
def test_checkpointed_gradients_are_the_same_and_keep_less(design: str) -> None:
    model = build(design=design, blocks=2, dropout=0.2).train()
    found, kept = [], []
    for model.gradient_checkpointing in (False, True):
        sizes: list[int] = []

        def pack(x: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(x.numel())
            return x

        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            found.append(parameter_gradients(model))
        kept.append(sum(sizes))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert kept[1] < 0.5 * kept[0]


def test_compiled_blocks_compute_the_same_and_share_code() -> None:
    torch.compiler.reset()
    model, counter = build(blocks=3), CompileCounter()
    expected = model(images(2, 3, 16, 16), log_snrs(2))
    model.compile_blocks(backend=counter)
    assert torch.equal(model(images(2, 3, 16, 16), log_snrs(2)), expected)
    first = counter.frame_count
    # Twelve blocks of five kinds: by width in and out, size, and whether they attend.
    assert 1 <= first <= 6 < len([m for m in model.modules() if isinstance(m, ResidualBlock)])
    model(images(2, 3, 16, 16, seed=9), log_snrs(2) + 1)
    assert counter.frame_count == first, "nothing is compiled again for the next batch"
    torch.compiler.reset()
