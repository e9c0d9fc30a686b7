"""The evaluators that the command line offers are those of the files of `diffusion.evaluation`."""

from __future__ import annotations

from diffusion.evaluation import EVALUATORS, BoundEstimator, Evaluator, FlowEstimator, ImportanceEstimator
from diffusion.registries import names


def test_every_evaluator_is_registered_by_its_name() -> None:
    estimators = {"bound": BoundEstimator, "importance": ImportanceEstimator, "ode": FlowEstimator}
    assert estimators.items() <= EVALUATORS.items(), "and those that somebody adds"
    assert all(issubclass(kind, Evaluator) and kind().name == name for name, kind in EVALUATORS.items())  # type: ignore[call-arg]


def test_the_names_read_from_the_source_are_those_of_the_registry() -> None:
    assert names("evaluation", "EVALUATORS") == tuple(EVALUATORS)
