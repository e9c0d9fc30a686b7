"""The benchmark of the network of diffusers compares what it says, in the precisions and layouts that it says."""

from __future__ import annotations

import pytest
import torch

from benchmarks import unet2d
from benchmarks.common import Timing
from benchmarks.unet2d import LAYOUTS, OURS, SETTINGS, THEIRS


@pytest.mark.parametrize("name", SETTINGS)
def test_the_networks_of_a_setting_have_the_same_tensors(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = unet2d.both(SETTINGS[name])
    shapes = [{n: tuple(v.shape) for n, v in network.state_dict().items()} for network in (ours, theirs)]
    assert shapes[0].pop("clock.log_snrs") == (1000,) and shapes[0] == shapes[1]


def test_a_run_measures_all_and_agrees() -> None:
    rows, goals = unet2d.measure(SETTINGS["tiny"], 2, 1, ("fp32", "bf16"))
    assert len(rows) == 16 and {row["network"] for row in rows} == {OURS, THEIRS}
    assert all(("times diffusers in this layout" in row) == (row["network"] == OURS) for row in rows)
    assert goals[0].name == "tiny: difference of outputs in float64" and goals[0].met
    assert [goal.name for goal in goals[1:]] == [
        f"tiny, {precision}, {done}: images/s against diffusers"
        for precision in ("fp32", "bf16")
        for done in ("forward and backward", "forward")
    ]


def test_the_ratio_is_against_the_better_layout() -> None:
    seconds = {
        f"{OURS}, channels last": 2.0,
        f"{OURS}, as made": 4.0,
        f"{THEIRS}, channels last": 8.0,
        f"{THEIRS}, as made": 6.0,
    }
    timings = {key: Timing((value,), 12.0) for key, value in seconds.items()}
    assert unet2d.best(timings).seconds == (6.0,)
    rows = unet2d.table(timings, "fp32", "forward")
    assert [row["layout"] for row in rows] == [*LAYOUTS, *LAYOUTS]
    found = [(row["times diffusers in this layout"], row["times diffusers in its better one"]) for row in rows[:2]]
    assert [(a.median, b.median) for a, b in found] == [(4.0, 3.0), (1.5, 1.5)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_call_computes_in_its_layout_and_gives_gradients_in_training_alone(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, seen = unet2d.both(SETTINGS["tiny"]), []
    monkeypatch.setattr(unet2d, "both", lambda setting: made)
    for network in made:
        network.conv_out.register_forward_hook(lambda module, given, output: seen.append((given[0], output.dtype)))
    calls = unet2d.calls(SETTINGS["tiny"], layout, 2)
    for package, network in zip((OURS, THEIRS), made, strict=True):
        for training in (True, False):
            calls[package]("bf16", training)
            assert network.training == training
            assert all((p.grad is not None) == training for p in network.parameters())
            x, dtype = seen.pop()
            assert network.conv_out.weight.is_contiguous(memory_format=LAYOUTS[layout]) and dtype == torch.bfloat16
            assert package == OURS or x.is_contiguous(memory_format=LAYOUTS[layout])
