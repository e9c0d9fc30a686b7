"""The interface of backbones, networks F(x, log-SNR, label), which know nothing about schedules, losses or samplers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class ResidualBlock(nn.Module, ABC):
    """A residual block, the unit that a network repeats and that is compiled and sharded."""

    @abstractmethod
    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x: (B, C, *); embedding of log-SNR and label: (B, E). Returns (B, C', *)."""


class Backbone(nn.Module, ABC):
    """A network F that maps a scaled noisy example, its log-SNR and an optional label to `out_channels` channels.

    `in_channels` is the number of channels of an example; `out_channels` is the same, or twice that if the variance is
    learned too. `classes` is the number of labels; label -1, or no label at all, means unconditional.

    With `gradient_checkpointing` the activations within a block are not stored but recomputed in the backward pass,
    which takes less memory and about a third more time (Chen et al. 2016, arXiv 1604.06174).
    """

    gradient_checkpointing = False

    def __init__(self, in_channels: int, out_channels: int, classes: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.classes = in_channels, out_channels, classes

    @abstractmethod
    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        """x: (B, C, *) with about unit variance; log_snr: (B,); label: (B,) int64. Returns (B, out_channels, *)."""

    def project_(self) -> None:
        """Projects the parameters back onto the set that they are constrained to; called after every optimizer step.

        By default each module of the network that has a method `project_` projects its own, as `UnitConv` does.
        """
        for module in self.modules():
            project: Callable[[], None] | None = getattr(module, "project_", None)
            if project is not None and module is not self:
                project()

    def run_block(self, block: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
        """Returns the output of a block, with gradient checkpointing if it is on."""
        again = self.gradient_checkpointing and torch.is_grad_enabled()
        y: Tensor = checkpoint(block, x, embedding, use_reentrant=False) if again else block(x, embedding)
        return y

    def residual_blocks(self) -> list[ResidualBlock]:
        """Returns the residual blocks, each of which is compiled, and sharded over processes, on its own."""
        return [module for module in self.modules() if isinstance(module, ResidualBlock)]

    def compile_blocks(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compiles each residual block on its own, at its first evaluation, with a backend of `torch.compile`.

        Blocks of equal widths and sizes share the compiled code, so that a deep network takes no longer to compile than
        a shallow one.
        """
        blocks = self.residual_blocks()
        # Each pair of widths and sizes is a variant of the same forward.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, len(blocks))
        for block in blocks:
            block.compile(dynamic=False, backend=backend)

    def one_hot(self, label: Tensor | None, batch: int, like: Tensor) -> Tensor:
        """Returns labels as one-hot rows (batch, classes + 1) in the dtype and on the device of `like`; the last column
        stands for "no label".
        """
        if label is None:
            label = torch.full((batch,), -1, device=like.device)
        index = torch.where(label < 0, self.classes, label)
        return nn.functional.one_hot(index, self.classes + 1).to(like)


@dataclass(frozen=True)
class BackboneConfig(ABC):
    """The settings of a backbone that do not depend on its data; frozen, and checked at construction."""

    @abstractmethod
    def build(self, in_channels: int, out_channels: int, classes: int = 0, *, spacing: float | None = None) -> Backbone:
        """Returns a new backbone with random weights.

        `spacing` is the distance between the values that quantized data take, None for continuous data.
        """
