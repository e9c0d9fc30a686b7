"""Evaluations and backward passes of a denoiser are counted, and its estimates stay what they are."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.guidance import Labeled
from diffusion.restoration.counting import CountingDenoiser
from diffusion.samplers import Heun, sample
from diffusion.schedules import Cosine
from tests.oracles import correlated

T = torch.tensor(0.4, dtype=torch.float64)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_batch_is_one_evaluation_whose_estimate_is_that_of_the_denoiser() -> None:
    oracle = correlated(Cosine(), (3,))
    counted = CountingDenoiser(oracle)
    assert counted.schedule is oracle.schedule and (counted.nfe, counted.backward) == (0, 0)
    for n in (1, 5):
        assert torch.equal(counted(normal(n, 3), T).mean, oracle(normal(n, 3), T).mean)
    assert (counted.nfe, counted.backward) == (2, 0)


def test_the_evaluations_of_a_sampler_are_counted_and_their_times_watched() -> None:
    times = torch.tensor([0.9, 0.5, 0.2, 0.1], dtype=torch.float64)
    seen: list[float] = []
    counted = CountingDenoiser(correlated(Cosine(), (3,)), watch=lambda t: seen.append(float(t)))
    sample(counted, Heun(), normal(4, 3), times)
    assert counted.nfe == 6, "two evaluations for each of three steps"
    assert seen == [0.9, 0.5, 0.5, 0.2, 0.2, 0.1]


def test_backward_passes_are_counted_only_where_they_reach_the_estimate() -> None:
    counted = CountingDenoiser(correlated(Cosine(), (3,)))
    leaf = normal(2, 3).requires_grad_()
    mean = counted(leaf, T).mean
    for passes in (1, 2, 3):
        torch.autograd.grad(mean.sum(), leaf, retain_graph=True)
        assert (counted.nfe, counted.backward) == (1, passes)
    torch.autograd.grad(leaf.square().sum(), leaf)
    with torch.no_grad():
        counted(leaf, T)
    assert (counted.nfe, counted.backward) == (2, 3)


def test_labels_reach_the_denoiser() -> None:
    class Shifted:
        schedule = Cosine()

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            assert label is not None
            return Prediction(x_t + label[:, None])

    counted = CountingDenoiser(Labeled(Shifted(), torch.tensor([2])))
    assert torch.equal(counted(normal(3, 2), T).mean, normal(3, 2) + 2)
    assert torch.equal(counted(normal(3, 2), T, torch.tensor([0, 1, 2])).mean[0], normal(3, 2)[0])
