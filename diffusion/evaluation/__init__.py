"""Measurements of a trained model."""

from diffusion.evaluation.estimators import METHODS as METHODS
from diffusion.evaluation.estimators import ByBound as ByBound
from diffusion.evaluation.estimators import ByFlow as ByFlow
from diffusion.evaluation.estimators import ByWork as ByWork
from diffusion.evaluation.evaluate import Evaluation as Evaluation
from diffusion.evaluation.evaluate import evaluate as evaluate
from diffusion.evaluation.intervals import Estimate as Estimate
