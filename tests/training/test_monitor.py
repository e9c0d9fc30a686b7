"""The numbers of a run against direct means."""

from __future__ import annotations

import itertools

import pytest
import torch

from diffusion.training import monitor
from diffusion.training.monitor import BINS, DECAY, LossByLogSNR, Monitor


def test_one_update_gives_the_mean_of_each_bin() -> None:
    generator = torch.Generator().manual_seed(0)
    log_snr = torch.rand(500, generator=generator, dtype=torch.float64) * 24 - 12
    losses = torch.randn(500, generator=generator) ** 2
    by_log_snr = LossByLogSNR(-12, 12)
    by_log_snr.update(log_snr, losses)
    rows = by_log_snr.rows()
    assert [middle for middle, _ in rows] == pytest.approx([-11.5 + i for i in range(BINS)])
    for middle, value in rows:
        inside = (log_snr > middle - 0.5) & (log_snr <= middle + 0.5)
        assert value == pytest.approx(float(losses[inside].double().mean()), rel=1e-12)


def test_older_updates_of_a_bin_fade() -> None:
    by_log_snr = LossByLogSNR(0, BINS)
    given = [(0.5, 1.0), (0.5, 5.0), (3.5, 7.0), (0.5, 2.0)]
    for log_snr, loss in given:
        by_log_snr.update(torch.tensor([log_snr]), torch.tensor([loss]))
    weights = [DECAY**2, DECAY, 1.0]
    expected = (weights[0] * 1 + weights[1] * 5 + weights[2] * 2) / sum(weights)
    assert by_log_snr.rows() == [(0.5, pytest.approx(expected)), (3.5, pytest.approx(7.0))]


def test_the_mean_goes_over_about_fifty_updates() -> None:
    by_log_snr = LossByLogSNR(0, BINS)
    for _ in range(1000):
        by_log_snr.update(torch.tensor([0.5]), torch.tensor([1.0]))
    assert float(by_log_snr.weight[0]) == pytest.approx(1 / (1 - DECAY), rel=1e-6) == pytest.approx(50, rel=1e-6)


def test_log_snrs_at_and_beyond_the_ends_fall_into_the_outer_bins() -> None:
    by_log_snr = LossByLogSNR(-1, 1)
    by_log_snr.update(torch.tensor([-1.0, -5.0, 1.0, 5.0]), torch.tensor([1.0, 3.0, 10.0, 20.0]))
    assert [value for _, value in by_log_snr.rows()] == [2.0, 15.0]
    assert len(by_log_snr.rows()) == 2


def test_collect_means_over_all_parts_and_starts_anew() -> None:
    watch = Monitor(LossByLogSNR(-1, 1))
    watch.add(torch.zeros(2), torch.tensor([1.0, 2.0], requires_grad=True))
    watch.add(torch.zeros(1), torch.tensor([6.0]))
    first = watch.collect(waited=0.0)
    assert first["loss"] == 3.0 and first["images_per_s"] > 0 and first["data_wait"] == 0.0
    watch.add(torch.zeros(1), torch.tensor([8.0]))
    assert watch.collect(waited=0.0)["loss"] == 8.0


def test_what_was_not_collected_yet_goes_on_from_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, clock = torch.Generator().manual_seed(0), itertools.count()
    monkeypatch.setattr(monitor.time, "perf_counter", lambda: float(next(clock)))
    whole, first, second = (Monitor(LossByLogSNR(-1, 1)) for _ in range(3))
    for step in range(7):
        by_log_snr, losses = torch.rand(4, generator=generator, dtype=torch.float64), torch.rand(4, generator=generator)
        whole.add(by_log_snr, losses)
        (first if step < 5 else second).add(by_log_snr, losses)
        if step == 2:
            assert whole.collect(0.0)["loss"] == first.collect(0.0)["loss"]
        if step == 4:
            second.add(by_log_snr, losses)
            second.load_state_dict(first.state_dict())
    assert whole.collect(0.0)["loss"] == second.collect(0.0)["loss"]
    assert whole.by_log_snr.rows() == second.by_log_snr.rows() != []
    second.load_state_dict({})
    assert second.by_log_snr.rows() == [] and len(second.state_dict()["loss"]) == 0


def test_images_per_second_counts_what_was_seen_since_the_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 102.0, 106.0])
    monkeypatch.setattr(monitor.time, "perf_counter", lambda: next(clock))
    watch = Monitor(LossByLogSNR(-1, 1))
    watch.add(torch.zeros(8), torch.ones(8))
    first = watch.collect(waited=0.5)
    assert first["images_per_s"] == 4.0 and first["data_wait"] == 0.25
    watch.add(torch.zeros(8), torch.ones(8))
    second = watch.collect(waited=1.5)
    assert second["images_per_s"] == 2.0 and second["data_wait"] == 0.25
