"""What the doctor says of networks: all shipped ones are within the trainable range, and what is not is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from diffusion import cli, config, figures, shipped
from diffusion.backbones import mlp
from diffusion.commands import propagating
from diffusion.propagation import Layer, Propagation


@pytest.mark.parametrize("name", shipped.configurations())
def test_networks_of_shipped_configurations_are_within_the_trainable_range(name: str) -> None:
    network = propagating.examined(config.load(shipped.configurations()[name]))
    assert propagating.verdict(network)[1] == ""
    if network.propagation is None:
        assert name == "swiss_roll_2015"
        return
    # Measured: signals 0.86 to 1.1, gradients 0.56 to 1.6, distances 0.44 to 1.3.
    for change in (network.propagation.signal, network.propagation.gradient, network.propagation.separation):
        assert 0.3 < change.factor < 3


@pytest.mark.parametrize(
    ("overrides", "blocks"),
    [
        (["backbone.design=group_norm"], 5),
        (["backbone.name=unet2d", "backbone.block_out_channels=[32, 64, 64]"], 23),
    ],
)
def test_other_networks_are_measured_too(overrides: list[str], blocks: int) -> None:
    network = propagating.examined(config.load(shipped.configurations()["digits"], overrides))
    assert network.propagation is not None and len(network.propagation.layers) == blocks
    assert network.propagation.trainable
    assert ("mid_block" in propagating.verdict(network)[0]) == (blocks == 23), "its middle has 3e-4 of the gradient"


def test_the_report_is_the_same_every_time_and_leaves_random_numbers_alone(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    assert cli.main(["doctor", "swiss_roll"]) == 0
    assert torch.equal(torch.rand(1), expected)
    text = capsys.readouterr().out
    assert cli.main(["doctor", "swiss_roll"]) == 0 and capsys.readouterr().out == text
    lines = text.splitlines()
    assert re.match(r"network +MLP, 54,338 parameters, new weights; 4 white inputs of 2$", lines[0])
    assert lines[1].split() == ["block", "signal", "gradient", "distance", "correlation"]
    assert [line.split()[0] for line in lines[2:-1]] == [f"blocks.{i}" for i in range(4)]
    assert float(lines[-2].split()[2]) == 1, "the gradient is that relative to the last block"
    assert "within the trainable range" in lines[-1]


def test_a_network_without_blocks_has_no_depth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "swiss_roll_2015"]) == 0
    assert "one hidden layer" in capsys.readouterr().out
    assert cli.main(["doctor", "swiss_roll_2015", "--out", str(tmp_path / "x.png")]) == 2
    assert "--out: must be left out for a network without residual blocks" in capsys.readouterr().err


def test_the_picture_has_the_numbers_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "depth.png"
    assert cli.main(["doctor", "swiss_roll", "--out", str(path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:6]]
    curves = figures.read_info(path)["curves"]
    assert curves["signal"][0] == 1 == curves["gradient"][-1]
    for column, name in ((2, "gradient"), (3, "distance"), (4, "correlation")):
        assert [float(row[column]) for row in rows] == pytest.approx(curves[name], rel=5e-3, abs=5e-4)
    assert cli.main(["doctor", "--out", str(path)]) == 2
    assert "--out: must be given with a CONFIG" in capsys.readouterr().err


def test_a_deep_network_without_shortcuts_is_outside(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mlp, "SHORTCUT_SCALE", 0.0)
    assert cli.main(["doctor", "swiss_roll", "backbone.blocks=100"]) == 1
    *rows, verdict, cure = capsys.readouterr().out.splitlines()
    assert "outside of the trainable range: " in verdict and "blocks, χ = " in verdict
    assert cure.strip().startswith("-> what reaches over more than about ")
    names = [row.split()[0] for row in rows[2:]]
    assert len(names) <= propagating.ROWS and names[-1] == "blocks.99"


@pytest.mark.parametrize(
    ("signals", "gradients", "separation", "words"),
    [
        ((1, 1e-3), (1, 1), 1.0, "signals vanish (x0.001 over 1 blocks"),
        ((1, 1e3), (1, 1), 1.0, "signals explode (x1e+03 over 1 blocks"),
        ((1, 1), (1e-2, 1), 1.0, "gradients vanish (x0.01 over 1 blocks"),
        ((1, 1), (1e2, 1), 1.0, "gradients explode (x1e+02 over 1 blocks"),
        ((1, 1), (1, 1), 0.01, "nearby inputs converge (x0.01 over 2 blocks, χ = 0.01)"),
        ((1, 1), (1e2, 1), 100.0, "nearby inputs diverge (x1e+02 over 2 blocks, χ = 100)"),
    ],
)
def test_what_goes_wrong_is_named(
    signals: tuple[float, float], gradients: tuple[float, float], separation: float, words: str
) -> None:
    layers = tuple(Layer(str(i), signals[i], gradients[i], separation, 0.0) for i in range(2))
    network = propagating.examined(config.load(shipped.configurations()["swiss_roll_2015"]))
    text, cure = propagating.verdict(propagating.Network(network.backbone, (2,), Propagation(layers)))
    assert words in text and cure
