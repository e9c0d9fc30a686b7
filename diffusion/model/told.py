"""What the network of a trained model is told of an example beside x_t: made of what people hold, or of the example.

It is an observation by the operator that the network has learned, or the pair of an example, such as its sketch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from diffusion.conditioning import Condition
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.data.hashing import uniform
from diffusion.errors import require
from diffusion.families import observation
from diffusion.model.accept import Border
from diffusion.model.conversion import Given
from diffusion.operators import Operator
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.restoration import Problem
from diffusion.transfers import host_memory, to_device


def by_operator(experiment: Config, spec: DataSpec, problem: Problem) -> Tensor:
    """Returns the channels (1, K, *) of the observation of a problem in the units of the data.

    Raises InputError, which says what differs, for a network that has learned another operator or noise or none, and
    for an image that is smaller than those that it has learned.
    """
    condition = experiment.condition
    require(
        condition.operator, "operator", "one that the model was trained with (condition.operator)", problem.operator
    )
    large = all(side >= own for side, own in zip(problem.x_shape, spec.shape, strict=True))
    require(large, "size", f"at least {spec.shape[1:]}, which this network learned", problem.x_shape[1:])
    mean, std = spec.mean / spec.top, spec.std / spec.top
    return condition.of(problem.in_model_units(mean, std, torch.zeros(1, *problem.x_shape)), std)


def by_pair(experiment: Config, border: Border, y: Given) -> Tensor:
    """Returns the channels (1, K, *) of an image y in units that stands beside an example as in `data.condition`.

    Raises InputError for a model without such, and for an image of another size or other channels.
    """
    data, spec = experiment.data, border.spec
    require(data.condition, "operator", "given, for a model that was not trained on pairs (data.condition)", "none")
    # Pairs are read in the range of their own files.
    own = replace(spec, shape=(data.paired_channels, *spec.shape[1:]), value_range=None)
    pairs = replace(border, spec=own)
    x = spec.standardize(pairs.example(y, "y"))[None]
    return experiment.condition.paired(x, torch.full((1, 1), math.inf, dtype=torch.float64))


def of_examples(
    experiment: Config, spec: DataSpec, x: Tensor, pairs: Tensor | None, numbers: Sequence[int], seed: int
) -> Tensor | None:
    """Returns the channels (B, K, *) of all examples x (B, C, *), in the units of the model: of their stored `pairs`
    (B, K', *), or of what the learned operator makes of them; None for a network that is told neither.

    Options of the operator and noise are drawn as in training, by the seed and the `numbers` of the examples.
    """
    condition = experiment.condition
    if experiment.data.condition and pairs is not None:
        return channels(condition, spec, x, pairs, torch.full((len(x), 1), math.inf, dtype=torch.float64), None)
    if not condition.operator:
        return None
    u, noise = draws(condition, spec.shape, numbers, seed)
    u[:, -1] = math.inf
    return channels(condition, spec, x, None, u, noise)


def draws(
    condition: Condition,
    shape: tuple[int, ...],
    numbers: Sequence[int],
    seed: int,
    *,
    device: torch.device | None = None,
    threads: int = 1,
) -> tuple[Tensor, Tensor | None]:
    """Draws what is told of examples of a `shape`: the uniform numbers (B, draws) of a condition, and its noise (B,
    values), None where there is none. Both are on the CPU, the noise in memory that suits copies to the `device`.
    """
    keys = np.array([example_seed(seed, Stream.CONDITION, number) for number in numbers], np.uint64)
    u = torch.from_numpy(uniform(keys[:, None], np.arange(condition.draws)))
    count = condition.values(shape)
    if not count:
        return u, None
    noise = ExampleNoise([example_seed(seed, Stream.CONDITION_NOISE, number) for number in numbers])
    memory = host_memory((len(numbers), count), torch.float32, device or torch.device("cpu"))
    return u, noise.fill(memory, threads)


def channels(
    condition: Condition, spec: DataSpec, x: Tensor, pairs: Tensor | None, u: Tensor, noise: Tensor | None
) -> Tensor:
    """Returns the channels (B, K, *) of examples x (B, C, *), in the units of the model, for what `draws` drew of them;
    of their stored `pairs` (B, K', *), if the data have such.
    """
    if pairs is not None:
        return condition.paired(to_device(spec.encode(pairs), x.device), u)
    noise = None if noise is None else to_device(noise, x.device)
    return condition(x, u, noise, spec.mean / spec.top, spec.std / spec.top)


def middle(condition: Condition) -> tuple[Operator, float]:
    """Returns the operator and the noise, in units of [0, 1], in the middle of the ranges that were learned."""
    family, (low, high) = condition.family, condition.noises
    return observation(family.at([0.5] * len(family.spans))), (low + high) / 2
