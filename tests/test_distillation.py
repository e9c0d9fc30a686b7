"""Distillation on Gaussian data, where the flow of the teacher and the perfect student are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from diffusion import gaussian, samplers
from diffusion.denoiser import Denoiser, EDMPrecond, Prediction
from diffusion.distillation import Distillation
from diffusion.grids import UniformLogSNR
from diffusion.objectives import Batch
from diffusion.samplers import DDIM
from diffusion.schedules import EDM as VarianceExploding
from diffusion.schedules import Cosine, Schedule
from tests.oracles import GaussianOracle, OracleNetwork, correlated

SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(), VarianceExploding()], ids=["vp", "ve"])
GRID = UniformLogSNR(first=-5.0, last=3.0)


@dataclass(frozen=True)
class Perfect:
    """The student whose step from each time of a grid follows the flow of a Gaussian exactly, or whose estimate is off
    from that student's by a constant.
    """

    oracle: GaussianOracle
    times: Tensor
    off: float = 0.0

    @property
    def schedule(self) -> Schedule:
        return self.oracle.schedule

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        t = t.expand(len(x_t))
        s = self.times[(self.times[None] - t[:, None]).abs().argmin(1) + 1]
        return Prediction(
            gaussian.distillation_target(self.schedule, self.oracle.flow(x_t, t, s), x_t, t, s) + self.off
        )


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@SCHEDULES
def test_a_perfect_student_samples_exactly_as_the_flow_goes(schedule: Schedule) -> None:
    oracle, times = correlated(schedule), GRID(schedule, 3)
    x = samplers.prior(oracle, normal(16, 2), times[0])
    arrived = samplers.sample(Perfect(oracle, times), DDIM(), x, times)
    assert torch.allclose(arrived, oracle.flow(x, times[0], times[-1]), rtol=1e-9, atol=1e-11)


@SCHEDULES
def test_targets_converge_to_those_of_the_flow_at_the_order_of_the_solver(schedule: Schedule) -> None:
    oracle, times = correlated(schedule), GRID(schedule, 3)
    x_t = gaussian.marginal(schedule, normal(16, 2), times[1]).sample(normal(16, 2, seed=1))
    exact = Perfect(oracle, times)(x_t, times[1]).mean
    errors = [
        float((Distillation(oracle, times, substeps).target(x_t, 1) - exact).abs().max()) for substeps in (32, 64)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.15) and errors[1] < 1e-3


@SCHEDULES
def test_the_loss_is_the_distance_to_the_perfect_student(schedule: Schedule) -> None:
    """The perfect student has loss 0 up to the teacher's own error. Another one has its weighted square error."""
    oracle, times = correlated(schedule), GRID(schedule, 3)
    distillation = Distillation(oracle, times, substeps=256)
    x, noise, u = oracle.sample(30, torch.Generator().manual_seed(0)), normal(30, 2), (torch.arange(30) + 0.5) / 30
    shift = 0.1

    def loss(off: float) -> Tensor:
        student = OracleNetwork(Perfect(oracle, times, off), EDMPrecond())
        return distillation.loss(Denoiser(student, schedule, EDMPrecond()), Batch(x, u, noise))

    snr = distillation.log_snr(u, schedule).exp()
    assert float(loss(0.0).max()) < 1e-6
    assert torch.allclose(loss(shift), (snr + 1) * shift**2, rtol=0.02)


@SCHEDULES
@pytest.mark.parametrize("substeps", [1, 2, 5])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_the_teacher_takes_exactly_its_substeps_evenly_in_log_snr(schedule: Schedule, substeps: int, step: int) -> None:
    times = GRID(schedule, 3)
    path = Distillation(correlated(schedule), times, substeps).path(step)
    assert path.shape == (substeps + 1,) and torch.equal(path[[0, -1]], times[step : step + 2])
    log_snr = schedule.log_snr(path)
    expected = (log_snr[-1] - log_snr[0]) / substeps
    assert torch.allclose(log_snr.diff(), expected, rtol=1e-9)


def test_uniform_numbers_share_the_steps_evenly_and_begin_at_their_log_snrs() -> None:
    schedule = Cosine()
    times = GRID(schedule, 4)
    distillation = Distillation(correlated(schedule), times, substeps=2)
    u = torch.arange(8) / 8
    assert distillation.step(u).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(distillation.log_snr(u, schedule), schedule.log_snr(times[:-1]).repeat_interleave(2))


def test_the_teacher_is_given_the_labels_of_its_examples() -> None:
    """The examples of a batch are at different steps, and reach the teacher in groups."""
    schedule = Cosine()
    seen: list[tuple[float, list[float], list[int]]] = []

    @dataclass(frozen=True)
    class Recorder:
        schedule: Schedule

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            assert label is not None
            seen.append((float(t), x_t[:, 0].tolist(), label.tolist()))
            return Prediction(torch.zeros_like(x_t))

    times = GRID(schedule, 2)
    x, u, label = torch.zeros(4, 2), torch.tensor([0.9, 0.1, 0.8, 0.2]), torch.tensor([3, 5, 7, 9])
    noise = torch.arange(4.0)[:, None].expand(4, 2)
    student = Denoiser(OracleNetwork(correlated(schedule), EDMPrecond()), schedule, EDMPrecond())
    Distillation(Recorder(schedule), times, substeps=1).loss(student, Batch(x, u, noise, label))
    sigma = [float(schedule(t)[1]) for t in times]
    expected = [(0, [1.0, 3.0], [5, 9]), (1, [0.0, 2.0], [3, 7])]
    assert len(seen) == 2
    for (time, values, labels), (step, numbers, given) in zip(sorted(seen, reverse=True), expected, strict=True):
        assert time == float(times[step]) and labels == given
        assert values == pytest.approx([sigma[step] * number for number in numbers])


@pytest.mark.parametrize(
    ("times", "substeps", "message"),
    [
        ([1.0, 0.5, 0.0], 0, "substeps: must be at least 1, got 0"),
        ([0.5, 1.0, 0.0], 2, "times: must decrease strictly"),
    ],
)
def test_what_cannot_be_walked_is_refused(times: list[float], substeps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Distillation(correlated(Cosine()), torch.tensor(times, dtype=torch.float64), substeps)
