"""The interface of backbones, networks F(x, log-SNR, label), which know nothing about schedules, losses or samplers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffusion.errors import InputError, require

# Codes that a block may have for each of its kinds: one for each size of a batch that halves when memory runs out, in
# training and, without gradients, in evaluation.
CODES = 32
# Networks receive a map of log-SNRs in this unit, in which those of the usual schedules lie within about ±2.
LOG_SNR_UNIT = 8.0


class ResidualBlock(nn.Module, ABC):
    """A residual block, the unit that a network repeats and that is compiled and sharded.

    `draws` says whether it draws random numbers in training, which it has to draw again when it is checkpointed.
    """

    draws = True

    @abstractmethod
    def forward(self, x: Tensor, embedding: Tensor, share: Tensor | None = None) -> Tensor:
        """x: (B, C, *); embedding of log-SNR and label: (B, E). Returns (B, C', *).

        With `share` (B, 1, *) there are two embeddings, (2B, E), and each pixel is this far from the first to the
        second.
        """


class Backbone(nn.Module, ABC):
    """A network F that maps a scaled noisy example, its log-SNR and an optional label to `out_channels` channels.

    `in_channels` is the number of channels of an example; `out_channels` is the same, or twice that if the variance is
    learned too. `classes` is the number of labels; label -1, or no label at all, means unconditional. A network that is
    `mapped` takes a log-SNR for every pixel too, and one with `condition_channels` takes so many channels beside x.

    `compiled` says whether `compile_blocks` was called.

    With `gradient_checkpointing` the activations within a block are not stored but recomputed in the backward pass,
    which takes less memory and about a third more time (Chen et al. 2016, arXiv 1604.06174).
    """

    mapped = False
    condition_channels = 0
    # The weights of the first layer, by their name, and the number of its inputs after those of `inputs_beside`.
    first_weight = "stem.weight"
    inputs_after = 0
    # The weights by which labels are told: those of each class along an axis, followed by those of no label, if there
    # are any. `labels_add` says whether labels whose weights are zero leave the network as it is without labels.
    label_weight = "embed.label.weight"
    label_axis = 1
    labels_add = False
    gradient_checkpointing = False
    compiled = False
    _dynamic = False
    _on_failure: Callable[[Exception], None] | None = None

    def __init__(self, in_channels: int, out_channels: int, classes: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.classes = in_channels, out_channels, classes

    def __call__(
        self,
        x: Tensor,
        log_snr: Tensor,
        label: Tensor | None = None,
        log_snr_map: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Evaluates the network (`forward`); again without compiled blocks if compiling them fails.

        Raises InputError for a map or a condition that the network was not built for.
        """
        if log_snr_map is not None and not self.mapped:
            raise InputError("t: must be one time for all pixels, as this network takes no map (observed.share = 0)")
        channels = self.condition_channels if condition is None else condition.shape[1]
        rule = f"{self.condition_channels or 'no'} channels, those that this network was built for"
        require(channels == self.condition_channels, "condition", rule, channels)
        beside = () if log_snr_map is None and condition is None else (log_snr_map, condition)
        try:
            y: Tensor = super().__call__(x, log_snr, label, *beside)
        except Exception as error:
            if self._on_failure is None:
                raise
            self._on_failure(error)
            self._uncompile_blocks()
            y = super().__call__(x, log_snr, label, *beside)
        return y

    @abstractmethod
    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        label: Tensor | None = None,
        log_snr_map: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """x: (B, C, *) with about unit variance; log_snr: (B,); label: (B,) int64; log_snr_map: (B, 1, *), by default
        log_snr everywhere; condition: (B, K, *), by default zeros. Returns (B, out_channels, *).

        B is taken from shapes, x.shape[0], as exporters take len(x) for a constant.
        """

    def project_(self) -> None:
        """Projects the parameters back onto the set that they are constrained to; called after every optimizer step.

        By default each module of the network that has a method `project_` projects its own, as `UnitConv` does.
        """
        for module in self.modules():
            project: Callable[[], None] | None = getattr(module, "project_", None)
            if project is not None and module is not self:
                project()

    def run_block(self, block: nn.Module, x: Tensor, embedding: Tensor, share: Tensor | None = None) -> Tensor:
        """Returns the output of a block, with gradient checkpointing if it is on."""
        arguments = (x, embedding) if share is None else (x, embedding, share)
        if self._dynamic:
            for argument in arguments:
                torch._dynamo.maybe_mark_dynamic(argument, 0)
        y: Tensor
        if self.gradient_checkpointing and torch.is_grad_enabled():
            # Reading and setting the generators takes a while on a GPU.
            draws = getattr(block, "draws", True)
            y = checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=draws)
        else:
            y = block(*arguments)
        return y

    def residual_blocks(self) -> list[ResidualBlock]:
        """Returns the residual blocks, each of which is compiled, and sharded over processes, on its own."""
        return [module for module in self.modules() if isinstance(module, ResidualBlock)]

    def compile_blocks(
        self,
        backend: str | Callable[..., Any] = "inductor",
        *,
        dynamic: bool = False,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        """Compiles each residual block on its own, at its first evaluation, with a backend of `torch.compile`.

        Blocks of equal widths and sizes share the compiled code, so that a deep network takes no longer to compile than
        a shallow one. There is one code for each batch size, or with `dynamic` one for all of them but 1.

        `on_failure` is called with an error of the network. If it returns, all blocks go on without compilation.
        """
        blocks = self.residual_blocks()
        # Each pair of widths and sizes is a variant of the same forward. Beyond the limits blocks would run as they
        # are, with a warning.
        config, most = torch._dynamo.config, CODES * len(blocks)
        config.recompile_limit = max(config.recompile_limit, most)
        config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, most)
        # The compiler is to fail in the forward pass, which can begin again, for the backward pass too.
        if hasattr(torch._functorch.config, "force_non_lazy_backward_lowering"):
            torch._functorch.config.force_non_lazy_backward_lowering = True
        self.compiled, self._dynamic, self._on_failure = True, dynamic, on_failure
        for block in blocks:
            block.compile(dynamic=False, backend=backend)

    def _uncompile_blocks(self) -> None:
        self._dynamic, self._on_failure = False, None
        for block in self.residual_blocks():
            block._compiled_call_impl = None

    def beside(self, x: Tensor, log_snr: Tensor, log_snr_map: Tensor | None, condition: Tensor | None) -> list[Tensor]:
        """Returns what the network receives beside the values of x (B, C, *), each in the shape of x but for channels:
        the map of log-SNRs in units of `LOG_SNR_UNIT`, if it is `mapped`, and the condition, if it takes one.
        """
        found, spatial = [], [1] * (x.ndim - 1)
        if self.mapped:
            level = log_snr.reshape(-1, *spatial).expand(-1, *x[:1, : self.map_channels].shape[1:])
            found.append((level if log_snr_map is None else log_snr_map) / LOG_SNR_UNIT)
        if self.condition_channels:
            shape = x.shape[0], self.condition_channels, *x.shape[2:]
            found.append(x.new_zeros(shape) if condition is None else condition)
        return found

    @property
    def map_channels(self) -> int:
        """The number of channels of a map: one, as the channels of a pixel share its level."""
        return 1

    @property
    def inputs_beside(self) -> tuple[int, int]:
        """The inputs of the first layer for a map and for a condition, which follow those for the values of x."""
        return self.mapped * self.map_channels, self.condition_channels

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
    """The settings of a backbone that do not depend on its data; frozen, and checked at construction.

    `free` names those on which its weights do not depend.
    """

    free: ClassVar[tuple[str, ...]] = ("dropout",)

    @abstractmethod
    def build(
        self,
        in_channels: int,
        out_channels: int,
        classes: int = 0,
        *,
        spacing: float | None = None,
        mapped: bool = False,
        condition_channels: int = 0,
    ) -> Backbone:
        """Returns a new backbone with random weights.

        `spacing` is the distance between the values that quantized data take, None for continuous data. A backbone that
        is `mapped` takes a log-SNR for every pixel, and one with `condition_channels` takes so many channels beside x.
        """
