"""The options of evaluation have the defaults that their help states."""

from __future__ import annotations

import re
from typing import get_args, get_type_hints

import pytest
import tyro

from diffusion import cli
from diffusion.commands.options import Evaluate, measuring
from diffusion.evaluation import EVALUATORS, BoundEstimator, FlowEstimator, ImportanceEstimator, thermodynamics
from diffusion.evaluation.known import MASKS, SHOWN
from diffusion.likelihood.flow import Dequantization
from diffusion.model.likelihood import PATH_STEPS, STEPS


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    return re.sub(r"[\s│]+", " ", capsys.readouterr().out)


def test_the_help_names_every_evaluator(capsys: pytest.CaptureFixture[str]) -> None:
    assert ", ".join(EVALUATORS) == measuring.EVALUATORS
    assert f"The evaluator: {', '.join(EVALUATORS)}. " in help_of("evaluate", capsys)


def test_the_help_names_every_mask(capsys: pytest.CaptureFixture[str]) -> None:
    assert ", ".join(MASKS) == measuring.MASKS
    text = help_of("evaluate", capsys)
    hides = f"the middle, the right half, or {100 * (1 - SHOWN):.0f} percent of the pixels are hidden"
    assert f"or {', '.join(MASKS)}: {hides}" in text


def test_the_dequantizations_are_those_of_the_flow() -> None:
    offered, none = get_args(get_type_hints(Evaluate)["dequantization"])
    assert get_args(offered) == get_args(Dequantization) and none is type(None)


def test_the_defaults_that_the_help_states_are_those_of_the_estimators(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of("evaluate", capsys)
    bound, ode, importance = BoundEstimator(), FlowEstimator(), ImportanceEstimator()
    assert f"an even number, {bound.draws} by default" in text and bound.repeats == 2
    assert f"paths for each example, {importance.paths} by default" in text
    assert f"Hutchinson probes for each example and dequantization, {ode.probes} by default" in text
    assert "tolerance of the adaptive solver, 1e-4 by default" in text and ode.tolerance == 1e-4
    assert "by uniform noise (the default)" in text and ode.dequantization == "uniform"
    assert "0, the default, for an adaptive solver" in text and ode.solver_steps == 0
    assert f"else {STEPS:,} for bound" in text and f"and {PATH_STEPS} for importance" in text
    own = thermodynamics.Thermodynamics()
    assert f"two at each noise level, {own.draws} by default" in text and own.paths == importance.paths
    assert f"{thermodynamics.STEPS} for thermodynamics" in text and own.seed == bound.seed
    assert "Seed of all random numbers, 0 by default" in text and bound.seed == ode.seed == importance.seed == 0


def test_options_that_are_not_given_leave_those_of_the_method() -> None:
    parsed = tyro.cli(Evaluate, args=["run"])
    assert parsed.method == "bound"
    own = ("draws", "steps", "paths", "probes", "tolerance", "dequantization", "solver_steps", "seed")
    assert all(getattr(parsed, name) is None for name in own) and not parsed.continuous
