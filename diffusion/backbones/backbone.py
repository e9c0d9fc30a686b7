"""What every backbone is: a network F(x, log-SNR, label), and nothing about schedules, losses or samplers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class ResidualBlock(nn.Module, ABC):
    """A residual block, the unit that a network repeats."""

    @abstractmethod
    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x: (B, C, *); embedding: (B, E), of the noise level and the label. Returns (B, C', *)."""


class Backbone(nn.Module, ABC):
    """A network F that maps a scaled noisy example, its log-SNR and an optional label to `out_channels` channels.

    `in_channels` are the channels of an example; `out_channels` is the same, or twice that when the variance is learned
    too. `classes` is the number of labels; label -1 (or no label at all) means unconditional.

    With `gradient_checkpointing` the activations within a block are computed again in the backward pass instead of
    kept: less memory for about a third more time (Chen et al. 2016, arXiv 1604.06174).
    """

    gradient_checkpointing = False

    def __init__(self, in_channels: int, out_channels: int, classes: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.classes = in_channels, out_channels, classes

    @abstractmethod
    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        """x: (B, C, *) with about unit variance; log_snr: (B,); label: (B,) int64. Returns (B, out_channels, *)."""

    def project_(self) -> None:
        """Puts the parameters back on the set they live on, if the design has one; called after every optimizer
        step.
        """

    def run_block(self, block: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
        """The output of a block."""
        again = self.gradient_checkpointing and torch.is_grad_enabled()
        y: Tensor = checkpoint(block, x, embedding, use_reentrant=False) if again else block(x, embedding)
        return y

    def residual_blocks(self) -> list[ResidualBlock]:
        """The units that are compiled, and divided over processes, each for itself."""
        return [module for module in self.modules() if isinstance(module, ResidualBlock)]

    def compile_blocks(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compiles each block for itself at its first call, with a backend of `torch.compile`.

        Blocks of equal widths and sizes share the compiled code, so a deep network takes no longer than a shallow one.
        """
        blocks = self.residual_blocks()
        # Each pair of widths and sizes is a variant of the same forward.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, len(blocks))
        for block in blocks:
            block.compile(dynamic=False, backend=backend)

    def one_hot(self, label: Tensor | None, batch: int, like: Tensor) -> Tensor:
        """Labels as one-hot rows (batch, classes + 1); the last column stands for "no label"."""
        if label is None:
            label = torch.full((batch,), -1, device=like.device)
        index = torch.where(label < 0, self.classes, label)
        return nn.functional.one_hot(index, self.classes + 1).to(like)


@dataclass(frozen=True)
class BackboneConfig(ABC):
    """What is chosen about a backbone before its data are known; frozen, and checked at construction."""

    @abstractmethod
    def build(self, in_channels: int, out_channels: int, classes: int = 0, *, spacing: float | None = None) -> Backbone:
        """A new backbone with random weights, for data that take values `spacing` apart, None for any value."""
