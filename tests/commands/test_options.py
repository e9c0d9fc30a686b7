"""The options of the commands are those of the parts that they set, with the same defaults."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import get_args, get_type_hints

import pytest
import tyro

from diffusion import cli
from diffusion.commands import options
from diffusion.commands.options import DrawArguments, Evaluate, Inpaint, Restore, Sample
from diffusion.draw import Draw
from diffusion.evaluation import EVALUATORS, BoundEstimator, FlowEstimator, ImportanceEstimator
from diffusion.likelihood.flow import Dequantization
from diffusion.model.likelihood import PATH_STEPS, STEPS
from diffusion.operators import OPERATORS
from diffusion.restoration import METHODS
from diffusion.samplers import SAMPLERS


def test_the_command_line_offers_exactly_what_there_is() -> None:
    assert get_args(options.SamplerName) == tuple(SAMPLERS) and get_args(options.MethodName) == ("auto", *METHODS)
    assert ", ".join(OPERATORS) == options.OPERATORS and ", ".join(EVALUATORS) == options.EVALUATORS


def test_a_draw_of_the_command_line_has_the_fields_of_a_draw() -> None:
    assert [field.name for field in fields(DrawArguments)] == [field.name for field in fields(Draw)]
    assert DrawArguments() == DrawArguments(**vars(Draw()))


@pytest.mark.parametrize(
    ("kind", "arguments", "n"),
    [
        (Sample, ["run"], 16),
        (Inpaint, ["run", "photo.png"], 4),
        (Restore, ["run", "photo.png", "--operator", "gray"], 4),
    ],
)
def test_how_images_are_drawn_is_said_in_the_same_words_by_all_commands(
    kind: type[Sample | Inpaint | Restore], arguments: list[str], n: int
) -> None:
    def draw(*more: str) -> Draw:
        parsed = tyro.cli(kind, args=[*arguments, *more])
        return parsed.draw if isinstance(parsed, Sample) else parsed.options.draw

    assert draw() == DrawArguments(n=n)
    words = {"n": "3", "steps": "5", "sampler": "ddim", "seed": "2", "label": "disk", "guidance": "1.5", "batch": "6"}
    assert draw(*(word for name, value in words.items() for word in (f"--{name}", value))) == DrawArguments(
        3, 5, "ddim", 2, "disk", 1.5, 6
    )


def test_the_defaults_that_the_help_states_are_those_of_the_estimators(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", "--help"])
    text = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    assert ended.value.code == 0
    bound, ode, importance = BoundEstimator(), FlowEstimator(), ImportanceEstimator()
    assert f"an even number, {bound.draws} by default" in text and bound.repeats == 2
    assert f"paths for each example, {importance.paths} by default" in text
    assert f"Hutchinson probes for each example and dequantization, {ode.probes} by default" in text
    assert "tolerance of the adaptive solver, 1e-4 by default" in text and ode.tolerance == 1e-4
    assert "by uniform noise (the default)" in text and ode.dequantization == "uniform"
    assert "0, the default, for an adaptive solver" in text and ode.solver_steps == 0
    assert f"else {STEPS:,} for bound" in text and f"and {PATH_STEPS} for importance" in text
    assert "Seed of all random numbers, 0 by default" in text and bound.seed == ode.seed == importance.seed == 0


def test_options_that_are_not_given_leave_those_of_the_method() -> None:
    parsed = tyro.cli(Evaluate, args=["run"])
    assert parsed.method == "bound"
    own = ("draws", "steps", "paths", "probes", "tolerance", "dequantization", "solver_steps", "seed")
    assert all(getattr(parsed, name) is None for name in own) and not parsed.continuous


def test_the_help_names_every_operator_and_evaluator_and_the_dequantizations_are_those_of_the_flow(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def text(command: str) -> str:
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        return re.sub(r"[\s│]+", " ", capsys.readouterr().out)

    assert f"The degradation: {', '.join(OPERATORS)}. " in text("restore")
    assert f"The evaluator: {', '.join(EVALUATORS)}. " in text("evaluate")
    offered, none = get_args(get_type_hints(Evaluate)["dequantization"])
    assert get_args(offered) == get_args(Dequantization) and none is type(None)
