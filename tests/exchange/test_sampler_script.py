"""The sampler in NumPy against ours, on a network that is exact for Gaussian data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion import samplers
from diffusion.denoiser import Denoiser, V
from diffusion.exchange.sampler_script import Array, label_of, sample
from diffusion.grids import Karras
from diffusion.guidance import ClassifierFree
from diffusion.schedules import EDM

MEANS = (0.5, -1.0, 2.0)
STD = 0.3
STEPS = 7


def exact_network(x: Any, log_snr: Any, mean: Any) -> Any:  # noqa: ANN401, arrays and tensors
    """v for data N(m, s²): x̂ = m + (α s²/(α² s² + σ²)) (x - α m) and v = (α x - x̂)/σ, where α² + σ² = 1."""
    alpha, sigma = (1 + math.e ** (-log_snr)) ** -0.5, (1 + math.e**log_snr) ** -0.5
    estimate = mean + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * mean)
    return (alpha * x - estimate) / sigma


class Session:
    """What onnxruntime makes of a file: a function of named arrays."""

    def __init__(self) -> None:
        self.feeds: list[dict[str, Array]] = []

    def run(self, names: list[str], feed: dict[str, Array]) -> list[Array]:
        self.feeds.append(feed)
        assert names == ["output"]
        means = np.array(MEANS)[feed["label"]][:, None]
        output = exact_network(feed["x"], feed["log_snr"][:, None].astype(float), means)
        return [np.concatenate([output, 7 + output], axis=1).astype(np.float32)]


def network(x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
    given = torch.full((len(x),), -1) if label is None else label
    return exact_network(x, log_snr[:, None].double(), torch.tensor(MEANS)[given][:, None])


DENOISER = Denoiser(network, EDM(0.01, 50.0), V())


def described(order: int, scale: float = 1.0, interval: tuple[float, float] = (-9.0, 9.0)) -> dict[str, Any]:
    times = Karras()(DENOISER.schedule, STEPS)[:-1]
    alpha, sigma = DENOISER.schedule(times)
    columns = {
        "log_snr": DENOISER.schedule.log_snr(times),
        "alpha": alpha,
        "sigma": sigma,
        **V()(alpha, sigma)._asdict(),
    }
    return {
        "inputs": ["x", "log_snr", "label"],
        "map_channels": 1,
        "condition_channels": 0,
        "shape": [2],
        "mean": 3.0,
        "std": 2.0,
        "top": 1,
        "levels": None,
        "guidance": {"scale": scale, "interval": list(interval)},
        "order": order,
        "steps": [
            dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)
        ],
    }


def ours(sampler: samplers.Sampler, noise: Tensor, label: int, scale: float, interval: tuple[float, float]) -> Tensor:
    times = Karras()(DENOISER.schedule, STEPS)
    denoiser = ClassifierFree(DENOISER, scale, interval)
    labels = torch.full((len(noise),), label)
    path = [
        *samplers.trajectory(denoiser, sampler, samplers.prior(denoiser, noise, times[0]), times[:-1], label=labels)
    ]
    return denoiser(path[-1], times[-2], labels).mean * 2 + 3


@pytest.mark.parametrize(("order", "sampler"), [(1, samplers.DDIM()), (2, samplers.DPMSolver())], ids=["ddim", "2m"])
@pytest.mark.parametrize(("label", "scale"), [(-1, 3.0), (1, 1.0), (0, 3.0)])
def test_samples_are_those_of_our_sampler(order: int, sampler: samplers.Sampler, label: int, scale: float) -> None:
    noise, interval = torch.randn(4, 2, generator=torch.Generator().manual_seed(1)), (-2.0, 3.0)
    found = sample(Session(), described(order, scale, interval), noise.numpy(), label)
    expected = ours(sampler, noise, label, scale, interval)
    error = float((torch.from_numpy(found) - expected).abs().max())
    assert found.dtype == np.float32 and error < 1e-5, error


def test_the_solver_of_second_order_is_nearer_to_the_exact_flow() -> None:
    """With α = 1 the flow takes x_T to m + √((s² + σ²)/(s² + σ_T²)) (x_T - m), whose x̂ is the sample."""
    noise, mean = np.linspace(-2, 2, 10, dtype=np.float32).reshape(5, 2), MEANS[0]
    first, last = (described(2)["steps"][i]["sigma"] for i in (0, -1))
    exact = mean + STD**2 / (math.hypot(STD, first) * math.hypot(STD, last)) * (first * noise - mean)
    errors = [float(abs(sample(Session(), described(order), noise, 0) - (2 * exact + 3)).max()) for order in (1, 2)]
    assert errors[1] < 0.2 * errors[0] < 0.1, errors


def test_guidance_takes_a_second_evaluation_only_where_it_acts() -> None:
    session, interval = Session(), (-2.0, 3.0)
    model = described(1, 2.0, interval)
    sample(session, model, np.zeros((3, 2), np.float32), 2)
    inside = sum(interval[0] <= step["log_snr"] <= interval[1] for step in model["steps"])
    assert 0 < inside < STEPS and len(session.feeds) == STEPS + inside
    assert {feed["label"].tolist()[0] for feed in session.feeds} == {-1, 2}


def test_everything_that_a_network_takes_is_given_in_float32_and_levels_are_clamped() -> None:
    model = {**described(1), "inputs": ["x", "log_snr", "label", "log_snr_map", "condition"], "condition_channels": 3}
    model |= {"levels": 4, "top": 3}
    session, told = Session(), np.arange(3.0)[None]
    x = sample(session, model, np.full((2, 2), 9.0), 1, told)
    assert x.min() >= 0 and x.max() == 1
    feed = session.feeds[0]
    kinds = {name: (value.dtype.name, value.shape) for name, value in feed.items()}
    assert kinds == {
        "x": ("float32", (2, 2)),
        "log_snr": ("float32", (2,)),
        "label": ("int64", (2,)),
        "log_snr_map": ("float32", (2, 1)),
        "condition": ("float32", (2, 3)),
    }
    assert (feed["condition"] == told).all() and (feed["log_snr_map"] == feed["log_snr"][:, None]).all()


def test_labels_are_numbers_or_names() -> None:
    model = {"classes": ["dog", "cat"], "unlabeled": True}
    assert [label_of(model, text) for text in (None, "cat", "0")] == [-1, 1, 0]
    assert label_of({"classes": [], "unlabeled": True}, None) == -1
    for wrong, text in ((model, "cow"), (model, "2"), ({**model, "unlabeled": False}, None)):
        with pytest.raises(SystemExit, match=f"^--label: must be one of dog, cat, got {text}$"):
            label_of(wrong, text)
