"""A network on one device, and likelihoods on another that has float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion.data import open_source
from diffusion.errors import InputError
from diffusion.evaluation import BoundEstimator, FlowEstimator, ImportanceEstimator, evaluate
from diffusion.evaluation.likelihood import Estimator
from diffusion.model import load
from diffusion.model.elsewhere import Elsewhere
from tests.pretended import pretended


def test_a_network_receives_its_inputs_where_it_is(trained: Path) -> None:
    model = load(trained, device="cpu")
    seen: list[torch.device] = []

    def network(x: torch.Tensor, log_snr: torch.Tensor, label: torch.Tensor | None = None, /) -> torch.Tensor:
        seen.extend(each.device for each in (x, log_snr, label) if each is not None)
        return torch.zeros(x.shape)

    network_elsewhere = Elsewhere(network, torch.device("meta"))
    y = network_elsewhere(torch.zeros(2, 3, 8, 8), torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    assert seen == [torch.device("meta")] * 3 and y.device == torch.device("cpu") == model.device


@pytest.mark.parametrize(
    "method",
    [BoundEstimator(draws=2), FlowEstimator(solver_steps=2, probes=2), ImportanceEstimator(steps=2, paths=2)],
    ids=lambda method: method.name,
)
def test_the_likelihoods_of_a_model_on_apples_gpu_are_those_on_the_cpu(trained: Path, method: Estimator) -> None:
    """As training measures them too, whose device is the one of its run."""
    on_cpu = load(trained, device="cpu")
    examples = open_source(on_cpu.config.data, lambda text: None).evenly(2)
    expected = evaluate(on_cpu, examples, method=method).values
    with pretended("mps"):
        model = load(trained, device="mps")
        assert model.likelihood().device == torch.device("cpu") and model.device.type == "mps"
        found = evaluate(model, examples, method=method).values
    assert found == pytest.approx(expected, rel=1e-4)


def test_float64_is_refused_where_there_is_none(trained: Path) -> None:
    with pretended("mps"):
        model = load(trained, device="mps")
        with pytest.raises(InputError, match=r"^dtype: must be float32 on MPS, which has no float64; .*--device cpu\)"):
            model.likelihood(dtype=torch.float64)
