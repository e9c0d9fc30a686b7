"""What the network of a trained model is told of an example beside x_t, made of what people hold.

It is an observation by the operator that the network has learned, or the pair of an example, such as its sketch.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from diffusion.conditioning import Condition
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.errors import require
from diffusion.families import observation
from diffusion.model.accept import Border
from diffusion.model.conversion import Given
from diffusion.operators import Operator
from diffusion.restoration import Problem


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


def middle(condition: Condition) -> tuple[Operator, float]:
    """Returns the operator and the noise, in units of [0, 1], in the middle of the ranges that were learned."""
    family, (low, high) = condition.family, condition.noises
    return observation(family.at([0.5] * len(family.spans))), (low + high) / 2
