"""What a network is told of the examples whose likelihood is measured, where it learned to be told something of them.

The likelihood is then that of p(x | what is told): what the learned operator makes of each example, with options and
noise drawn as in training, or the pair that the data have of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffusion.conditioning import Condition
from diffusion.data import Dataset
from diffusion.evaluation.evaluator import Setting
from diffusion.model import Model, told


@dataclass(frozen=True)
class Telling:
    """Tells the network of a model what is known of examples. `tells` says whether it does, and `notes` what."""

    model: Model
    tells: bool
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Model, examples: Dataset, setting: Setting) -> Telling:
        """What is told of examples under a setting; nothing by a model that was given an observation for all."""
        experiment = model.config
        if not experiment.conditioned or given_for_all(model):
            return cls(model, False)
        paired, without = bool(experiment.data.condition), "told nothing: the bits are those of p(x)"
        if not setting.condition:
            return cls(model, False, (without,))
        if paired and examples.condition is None:
            return cls(model, False, (f"{without}, as the examples have no pairs (data.condition)",))
        what = "its pair (data.condition)" if paired else _said(experiment.condition)
        return cls(model, True, (f"told of each example: {what}, given which the bits are",))

    def __call__(self, examples: Dataset, values: Tensor, numbers: Sequence[int], seed: int) -> Tensor | None:
        """The channels (B, K, *) of the examples of some numbers, with stored `values` (B, *) without their margin.

        None where nothing is told.
        """
        if not self.tells:
            return None
        spec, (_, pairs) = self.model.spec, examples.beside(numbers)
        pairs = None if pairs is None else examples.center(pairs)
        x = spec.encode(values).to(self.model.device)
        return told.of_examples(self.model.config, spec, x, pairs, numbers, seed)


def untold(model: Model) -> list[str]:
    """Says that samples are drawn without what a model learned to be told of them; empty where it learned nothing."""
    if not model.config.conditioned or given_for_all(model):
        return []
    return ["told nothing: the samples are of p(x), though the model learned to be told of x"]


def given_for_all(model: Model) -> bool:
    """Whether a model was given one observation for all that is drawn or measured."""
    return getattr(model.denoiser, "condition", None) is not None


def _said(condition: Condition) -> str:
    """Says what is observed of an example."""
    low, high = condition.noises
    noise = f" and noise of {low:g}" if low == high else f" and noise from {low:g} to {high:g}"
    return f"what condition.operator, {condition.operator}, makes of it{noise if high else ''}"
