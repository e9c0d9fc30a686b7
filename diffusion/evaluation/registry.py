"""All evaluators by name, collected from the files of this folder."""

from __future__ import annotations

from diffusion.evaluation.evaluator import Evaluator
from diffusion.registries import collect

EVALUATORS: dict[str, type[Evaluator]] = collect("diffusion.evaluation", "EVALUATORS")
