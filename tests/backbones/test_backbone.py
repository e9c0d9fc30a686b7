"""Every backbone projects its weights, saves memory, compiles block by block, and knows its labels."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounter

from diffusion.backbones import BACKBONES, backbone
from diffusion.backbones.backbone import Backbone, ResidualBlock
from diffusion.backbones.embedding import Embedding, LabelTable
from diffusion.backbones.magnitude import UnitConv
from diffusion.backbones.unet import DESIGNS, UNetConfig
from tests.backbones.conftest import build, images, log_snrs, parameter_gradients

BOTH = pytest.mark.parametrize("design", DESIGNS)
# The layers whose rows are projected.
UNIT = (UnitConv, LabelTable)


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
    units = [m.weight.detach() for m in model.modules() if isinstance(m, UNIT)]
    moved, head = [w.square().mean(1) for w in units], model.head.weight.detach().clone()
    assert len(units) == 2 and all((rows - 1).abs().max() > 0.01 for rows in moved)
    model.project_()
    for weight in units:
        assert torch.allclose(weight.square().mean(1), torch.ones(len(weight)), rtol=1e-6)
    assert torch.equal(model.head.weight, head), "what has no projection is left alone"


def test_projection_keeps_directions_and_makes_weights_unit() -> None:
    model = build(classes=2)
    units = {id(m.weight) for m in model.modules() if isinstance(m, UNIT)}
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


@pytest.mark.parametrize("checkpointed", [False, True])
def test_maps_of_levels_are_computed_the_same_compiled_and_checkpointed(checkpointed: bool) -> None:
    torch.compiler.reset()
    model, counter = UNetConfig(channels=(16, 32), blocks=1, attention=(1,)).build(3, 3, mapped=True), CompileCounter()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)
    log_snr_map = images(2, 1, 16, 16, seed=3) * 4

    def found(levels: Tensor) -> list[Tensor]:
        model.zero_grad()
        y = model(images(2, 3, 16, 16), log_snrs(2), None, levels)
        (y * images(2, 3, 16, 16, seed=5)).sum().backward()
        return [y.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    expected = found(log_snr_map)
    assert not torch.equal(found(-log_snr_map)[0], expected[0])
    model.gradient_checkpointing = checkpointed
    model.compile_blocks(backend=counter)
    assert all(torch.equal(a, b) for a, b in zip(found(log_snr_map), expected, strict=True))
    first = counter.frame_count
    found(-log_snr_map)
    assert first >= 1 and counter.frame_count == first, "nothing is compiled again for another map"
    torch.compiler.reset()


@pytest.mark.parametrize("dynamic", [False, True])
@torch._dynamo.config.patch(recompile_limit=2, accumulated_recompile_limit=2)
def test_every_block_stays_compiled_at_all_sizes_of_a_batch(dynamic: bool) -> None:
    torch.compiler.reset()
    model, counter = build(channels=(8, 8), attention=()), CompileCounter()
    plain = copy.deepcopy(model)
    model.compile_blocks(backend=counter, dynamic=dynamic)
    compiled = []
    for batch in (16, 8, 4, 2, 1, 3):
        x, log_snr = images(batch, 3, 16, 16), log_snrs(batch)
        assert torch.equal(model(x, log_snr), plain(x, log_snr))
        compiled.append(counter.frame_count)
    # There are two kinds of blocks, at two sizes of an image.
    assert compiled == ([2, 4, 4, 4, 6, 6] if dynamic else [2, 4, 6, 8, 10, 12])
    torch.compiler.reset()


class Broken(Exception):
    pass


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_blocks_that_do_not_compile_are_evaluated_as_they_are(where: str, gradient_checkpointing: bool) -> None:
    torch.compiler.reset()
    model, seen = build(channels=(8, 8), attention=()), []
    model.gradient_checkpointing = gradient_checkpointing
    expected = parameter_gradients(model)

    def compiler(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        if not seen:  # Some blocks have been evaluated by then.
            seen.append(None)
            return make_boxed_func(graph.forward)
        raise Broken

    good = {"fw_compiler": lambda graph, inputs: make_boxed_func(graph.forward)}
    failing = {"fw_compiler" if where == "forward" else "bw_compiler": compiler}
    told: list[Exception] = []
    model.compile_blocks(backend=aot_autograd(**{**good, **failing}), on_failure=told.append)
    found = parameter_gradients(model)
    assert len(told) == 1 and isinstance(getattr(told[0], "inner_exception", told[0]), Broken)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert model.compiled and all(block._compiled_call_impl is None for block in model.residual_blocks())
    torch.compiler.reset()


def test_an_error_that_is_raised_again_leaves_the_blocks_compiled() -> None:
    torch.compiler.reset()
    model = build()

    def refuse(error: Exception) -> None:
        raise error

    model.compile_blocks(backend=CompileCounter(), on_failure=refuse)
    with pytest.raises(RuntimeError):
        model(images(2, 5, 16, 16), log_snrs(2))  # Another number of channels.
    assert all(block._compiled_call_impl is not None for block in model.residual_blocks())
    torch.compiler.reset()


def test_compilation_changes_no_names_and_no_copies() -> None:
    model = build()
    names = list(model.state_dict())
    model.compile_blocks(backend=CompileCounter())
    assert list(model.state_dict()) == names
    copied = copy.deepcopy(model)
    assert all(block._compiled_call_impl is None for block in copied.residual_blocks())


@pytest.mark.parametrize(("dropout", "preserved"), [(0.0, False), (0.2, True)])
@BOTH
def test_checkpointing_keeps_the_generators_only_where_something_is_drawn(
    design: str, dropout: float, preserved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def noting(block: nn.Module, *arguments: Tensor, use_reentrant: bool, preserve_rng_state: bool) -> Tensor:
        asked.append(preserve_rng_state)
        y: Tensor = block(*arguments)
        return y

    monkeypatch.setattr(backbone, "checkpoint", noting)
    model = build(design=design, dropout=dropout)
    model.gradient_checkpointing = True
    model(images(2, 3, 16, 16), log_snrs(2))
    assert asked and set(asked) == {preserved}
    assert ResidualBlock.draws, "a block that says nothing is taken to draw"
