"""The likelihood of examples the model has not seen, by the named terms of the trajectory bound, with a standard
error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from diffusion import processes
from diffusion.data import Dataset
from diffusion.errors import require
from diffusion.model import Model
from diffusion.units import bits_per_dim

TERMS = ("prior", "diffusion", "decoder", "total")
BATCH = 128


@dataclass(frozen=True)
class Evaluation:
    """Means over examples and standard errors of those means, by term, in `unit`.

    The standard error covers the choice of examples and the Monte Carlo noise of each example's estimate together.
    """

    unit: str
    examples: int
    mean: dict[str, float]
    standard_error: dict[str, float]

    def table(self) -> str:
        """One line per term."""
        lines = [f"{'':10s} {self.unit:>14s}   standard error   ({self.examples:,} held-out examples, upper bound)"]
        for term in TERMS:
            lines.append(f"{term:10s} {self.mean[term]:14.4f}   {self.standard_error[term]:.4f}")
        return "\n".join(lines)


def evaluate(
    model: Model,
    held_out: Dataset,
    *,
    limit: int | None = None,
    steps: int = 100_000,
    draws: int = 16,
    seed: int = 0,
    shared: bool = False,
    progress: bool = False,
) -> Evaluation:
    """The bound on -log p of held-out examples: bits/dim for 8-bit images, nats for points.

    Each example is seen at `draws` noise levels of a grid of `steps`. Labels are given to a model that was trained with
    them. With `shared` the processes, which must all call this alike, take some batches each.

    Raises ValueError when nothing was held out.
    """
    require(limit is None or limit >= 1, "limit", "at least 1", limit)
    require(len(held_out) > 0, "data.held_out", "positive to evaluate on examples kept from training", 0)
    count = min(limit or len(held_out), len(held_out))
    starts = range(0, count, BATCH)
    if shared:
        # Whole batches, because the noise levels of a batch are drawn together.
        mine = processes.share(len(starts))
        starts = starts[mine.start : mine.stop]
    parts = [torch.zeros(0, len(TERMS), dtype=torch.float64)]
    for start in tqdm(starts, desc="evaluating", disable=not progress):
        values, label = held_out.batch(range(start, min(start + BATCH, count)))
        if held_out.spec.is_image:
            values = held_out.center(values)
        bound = model.bound(values, steps=steps, draws=draws, seed=seed + start, label=label)
        nats = torch.stack([bound.prior, bound.diffusion, bound.decoder, bound.total], dim=1).cpu()
        parts.append(bits_per_dim(nats, model.spec.dim) if model.spec.levels else nats)
    rows = torch.cat(parts)
    rows = processes.gather(rows) if shared else rows
    spread = rows.std(0) / math.sqrt(count) if count > 1 else torch.full((len(TERMS),), math.nan)
    return Evaluation(
        "bits/dim" if model.spec.levels else "nats",
        count,
        dict(zip(TERMS, rows.mean(0).tolist(), strict=True)),
        dict(zip(TERMS, spread.tolist(), strict=True)),
    )
