"""The scale of the loss of a network that trains in fp16, which keeps small gradients from becoming zero.

Gradients below 6e-8 vanish in fp16. So the loss is multiplied by a scale before the backward pass, and the gradients of
the weights, which are float32, are divided by it afterwards (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2).
The scale is as large as it can be: a gradient that overflows halves it and the step is skipped, and after `INTERVAL`
steps without one it doubles. Steps are skipped at first, until the scale is found, and one every `INTERVAL` or so.

All of it stays on the device, and no step waits for it (torch's GradScaler does, in `step`). Scales are powers of two,
so that scaling and unscaling round nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from diffusion.training import sharding

# The rules of torch's GradScaler, with an end on both sides: no gradient of a sane loss overflows at the smallest.
FIRST, SMALLEST, LARGEST = 2.0**16, 1.0, 2.0**32
INTERVAL = 2000


class LossScaler:
    """The scale of the loss, with the steps since it last changed and the overflows so far, each () on the device.

    Processes agree about it without a word, because the gradient that they see is the same.
    """

    scale: Tensor
    good: Tensor
    overflows: Tensor

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.load_state_dict({})

    def unscale_(self, parameters: Iterable[Tensor]) -> None:
        """Divides the gradients of parameters, which may be sharded, by the scale."""
        gradients = [
            p.grad.to_local() if sharding.is_sharded(p.grad) else p.grad for p in parameters if p.grad is not None
        ]
        torch._foreach_mul_(gradients, self.scale.reciprocal())

    def update(self, skip: Tensor) -> None:
        """Ends a step; `skip`, (), is 1 if its gradient was not finite, else 0."""
        overflow, grown = skip > 0, self.good + 1 >= INTERVAL
        factor = torch.where(overflow, 0.5, torch.where(grown, 2.0, 1.0))
        self.scale = (self.scale * factor).clamp(SMALLEST, LARGEST)
        self.good = torch.where(overflow | grown, 0.0, self.good + 1)
        self.overflows = self.overflows + skip

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the state, the same on all processes."""
        return {"scale": self.scale, "good": self.good, "overflows": self.overflows}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes the state that `state_dict` returned; an empty one is the beginning of training in fp16."""
        first = {"scale": FIRST, "good": 0.0, "overflows": 0.0}
        self.scale, self.good, self.overflows = (
            torch.as_tensor(tensors.get(name, value), dtype=torch.float32, device=self.device)
            for name, value in first.items()
        )
