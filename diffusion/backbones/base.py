"""What every backbone is: a network F(x, log-SNR, label), and nothing about schedules, losses or samplers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """A network F that maps a scaled noisy example, its log-SNR and an optional label to `out_channels` channels.

    `in_channels` are the channels of an example; `out_channels` is the same, or twice that when the variance is learned
    too. `classes` is the number of labels; label -1 (or no label at all) means unconditional.
    """

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
    def build(self, in_channels: int, out_channels: int, classes: int = 0) -> Backbone:
        """A new backbone with random weights."""
