"""The memory of a U-Net by its configuration, against the bytes that torch keeps and has alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from diffusion.backbones import UNetConfig
from diffusion.backbones.footprint import blocks, evaluated_bytes, trained_bytes

NETWORKS = {
    "plain": (UNetConfig(channels=(32, 64), blocks=2, attention=(), patch=2), 16),
    "attention": (UNetConfig(channels=(32, 64), blocks=1, attention=(1,)), 16),
    "several heads": (UNetConfig(channels=(64, 128), blocks=1, attention=(0, 1)), 8),
    "three stages": (UNetConfig(channels=(32, 64, 96), blocks=2, attention=(1, 2)), 16),
}
DESIGNS = ("magnitude", "group_norm")
# Measured: at most 5.5 % for what is kept and 3.1 % for what is alive, in the smallest network.
KEPT, ALIVE = 0.07, 0.04


def network_of(config: UNetConfig, *, mapped: bool = False) -> nn.Module:
    return config.build(3, 3, mapped=mapped).to(memory_format=torch.channels_last)


def kept(network: nn.Module, side: int, images: int, dtype: torch.dtype, *, mapped: bool = False) -> int:
    """Counts the bytes of the storages that a forward pass keeps, once each, without the weights."""
    level = torch.randn(images, 1, side, side) if mapped else None
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage  # It is held, so that no other takes its address.
        return value

    keeping = torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value)
    with keeping, torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        y = network(torch.randn(images, 3, side, side), torch.zeros(images), None, level)
    assert y.requires_grad
    return sum(storage.nbytes() for storage in found.values())


class Alive(TorchDispatchMode):
    """Counts the bytes of the storages that are alive at a time, of those that are made within the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak, self.sizes = 0, 0, dict[int, int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        result = func(*args, **(kwargs or {}))
        for value in tree_flatten(result)[0]:
            if isinstance(value, Tensor) and (key := (storage := value.untyped_storage())._cdata) not in self.sizes:
                self.sizes[key] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, key)
        return result

    def _freed(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


def alive(network: nn.Module, side: int, images: int) -> int:
    """Counts the most bytes that an evaluation has alive at a time."""
    x = torch.randn(images, 3, side, side)
    with torch.no_grad(), Alive() as mode:
        network(x, torch.zeros(images))
    return mode.peak


def by_image(count: Callable[[int], int], few: int, many: int) -> float:
    """The bytes of an image, without those that do not depend on the number of images."""
    return (count(many) - count(few)) / (many - few)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)], ids=["fp32", "bf16"])
def test_what_training_keeps(name: str, design: str, dtype: torch.dtype, size: int) -> None:
    config, side = replace(NETWORKS[name][0], design=design), NETWORKS[name][1]
    network = network_of(config)
    counted = by_image(lambda images: kept(network, side, images, dtype), 1, 3)
    assert trained_bytes(config, 3, side**2, bytes_each=size, fused=False) == pytest.approx(counted, rel=KEPT)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_training_keeps_with_a_level_for_every_pixel(name: str, design: str) -> None:
    config, side = replace(NETWORKS[name][0], design=design), NETWORKS[name][1]
    network = network_of(config, mapped=True)
    counted = by_image(lambda images: kept(network, side, images, torch.float32, mapped=True), 1, 3)
    found = trained_bytes(config, 3, side**2, bytes_each=4, fused=False, mapped=True)
    assert found == pytest.approx(counted, rel=KEPT)


@pytest.mark.parametrize("design", DESIGNS)
def test_what_training_keeps_with_the_fused_attention_of_gpus(design: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's own fused kernel keeps the same tensors."""
    config, side = replace(NETWORKS["several heads"][0], design=design), 16
    network = network_of(config)
    plain = by_image(lambda images: kept(network, side, images, torch.float32), 1, 3)
    monkeypatch.setattr(Tensor, "is_cuda", True)
    counted = by_image(lambda images: kept(network, side, images, torch.float32), 1, 3)
    assert trained_bytes(config, 3, side**2, bytes_each=4) == pytest.approx(counted, rel=KEPT)
    assert counted < 0.9 * plain


@pytest.mark.parametrize("design", DESIGNS)
def test_what_training_keeps_with_gradient_checkpointing(design: str) -> None:
    """Without what the block keeps that runs again, which is there in the backward pass alone."""
    config, side = replace(NETWORKS["three stages"][0], design=design), 16
    network = network_of(config)
    network.gradient_checkpointing = True  # type: ignore[assignment]
    counted = by_image(lambda images: kept(network, side, images, torch.float32), 1, 3)
    whole = trained_bytes(config, 3, side**2, bytes_each=4, fused=False, checkpointing=True)
    largest = trained_bytes(replace(config, blocks=1), 3, side**2, bytes_each=4, fused=False)
    assert counted < whole < counted + largest / 2
    assert whole < trained_bytes(config, 3, side**2, bytes_each=4, fused=False) / 2


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_an_evaluation_has_alive(name: str, design: str) -> None:
    config, side = replace(NETWORKS[name][0], design=design), NETWORKS[name][1]
    network = network_of(config)
    # With few images the weights that are scaled for each convolution outweigh them.
    counted = by_image(lambda images: alive(network, side, images), 16, 24)
    assert evaluated_bytes(config, side**2, bytes_each=4, fused=False) == pytest.approx(counted, rel=ALIVE)


def test_the_blocks_are_those_of_the_network() -> None:
    for config, side in NETWORKS.values():
        seen: list[tuple[int, int]] = []

        def note(module: nn.Module, given: tuple[Tensor, ...], y: Tensor, seen: list[tuple[int, int]] = seen) -> None:
            seen.append((given[0].shape[1] * given[0][0, 0].numel(), y.shape[1] * y[0, 0].numel()))

        network = config.build(3, 3)
        for block in network.residual_blocks():
            block.register_forward_hook(note)
        network(torch.zeros(1, 3, side, side), torch.zeros(1))
        assert seen == [(b.inputs * b.positions, b.width * b.positions) for b in blocks(config, side**2)]
