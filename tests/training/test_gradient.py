"""The gradient of a batch against torch's own; `tests/faults/test_memory.py` has memory that runs out."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from diffusion.objectives import Batch
from diffusion.randomness import example_seed
from diffusion.training.gradient import largest_divisor
from diffusion.training.trainer import Trainer
from tests.conftest import tiny
from tests.training.test_trainer import start


@pytest.fixture(scope="module")
def trainer(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    experiment = tiny(shapes, backbone={"dropout": 0.2}, training={"accumulate": 2, "seed": 5})
    trainer = start(experiment, tmp_path_factory.mktemp("gradient"))
    # Residual branches, in which units are dropped, begin at zero.
    for step in range(5):
        trainer.update(trainer.maker(step))
    return trainer


def test_loss_and_gradient_are_those_of_the_mean_over_the_batch(trainer: Trainer) -> None:
    batch, step = trainer.maker(3), 3
    trainer.network.zero_grad()
    loss, parts = trainer.gradient(batch, step)
    got = [parameter.grad.clone() for parameter in trainer.network.parameters() if parameter.grad is not None]
    assert trainer.gradient.at_once == 4 and [len(losses) for _, losses in parts] == [4, 4]
    expected_levels = trainer.objective.log_snr(batch.u, trainer.config.schedule)
    assert torch.equal(torch.cat([log_snr for log_snr, _ in parts]), expected_levels)
    losses = torch.cat([losses for _, losses in parts])
    assert float(loss) == pytest.approx(float(losses.mean()), rel=1e-6) and not losses.requires_grad

    # Dropout draws from torch's generator, seeded by the seed of the run, the step and the process.
    trainer.network.zero_grad()
    torch.manual_seed(example_seed(5, step, 0))
    halves = [slice(4), slice(4, None)]
    expected = torch.cat(
        [
            trainer.objective.loss(trainer.denoiser, Batch(batch.x[h], batch.u[h], batch.noise[h], batch.label[h]))
            for h in halves
            if batch.label is not None
        ]
    )
    expected.mean().backward()
    torch.testing.assert_close(losses, expected.detach(), rtol=1e-6, atol=0)
    for mine, parameter in zip(got, trainer.network.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-6)
    trainer.network.zero_grad()


def test_dropout_depends_on_the_step_alone(trainer: Trainer) -> None:
    batch = trainer.maker(0)
    losses = []
    for step in (0, 1, 0):
        losses.append(float(trainer.gradient(batch, step)[0]))
        trainer.network.zero_grad()
    assert losses[0] == losses[2] != losses[1]


def test_a_loss_that_is_not_finite_makes_no_gradient_finite(trainer: Trainer) -> None:
    batch = trainer.maker(0)
    batch.x[0] = math.inf
    loss, _ = trainer.gradient(batch, 0)
    assert not bool(loss.isfinite())
    gradients = [parameter.grad for parameter in trainer.network.parameters() if parameter.grad is not None]
    assert gradients and not any(bool(gradient.isfinite().any()) for gradient in gradients)
    trainer.network.zero_grad()


def test_at_once_divides_the_share() -> None:
    for share in range(1, 40):
        for most in range(-1, share + 3):
            divisors = [d for d in range(1, share + 1) if share % d == 0 and d <= most]
            assert largest_divisor(share, most) == max(divisors, default=1)
