"""A peer made of our own network, so that no other package is needed and its cost is matched exactly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from benchmarks.peers import Peer
from benchmarks.training import Setting
from diffusion.backbones import UNetConfig

WIDTHS = (16, 32, 64)


class Twin(Peer):
    """Our U-Net of fixed widths, trained without an average."""

    package = "twin"

    def __init__(self, size: int, channels: int, width: int, *, device: str | torch.device, bf16: bool = False) -> None:
        super().__init__(size, channels, width, device=device, bf16=bf16)
        self.network = UNetConfig(channels=WIDTHS).build(channels, channels).to(device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-3)

    def step(self, images: Tensor) -> None:
        with self.autocast():
            self.network(images, torch.zeros(len(images))).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def sample(self, n: int, steps: int) -> Tensor:
        x = torch.zeros(n, self.channels, self.size, self.size)
        with torch.no_grad(), self.autocast():
            for _ in range(steps):
                x = self.network(x, torch.zeros(n))
        return x


@pytest.fixture(autouse=True)
def _own_precision() -> Iterator[None]:
    """Accelerate keeps one precision per process; benchmarks run in the default one, other tests in float32."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def twin() -> type[Peer]:
    return Twin


@pytest.fixture
def setting() -> Setting:
    """Images so small that a step takes milliseconds."""
    return Setting(8, 3, 4, (2, 4), (("twin", 16),))
