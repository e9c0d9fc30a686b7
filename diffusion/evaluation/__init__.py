"""Measurements of a trained model."""

from diffusion.evaluation.estimators import ESTIMATORS as ESTIMATORS
from diffusion.evaluation.estimators import BoundEstimator as BoundEstimator
from diffusion.evaluation.estimators import FlowEstimator as FlowEstimator
from diffusion.evaluation.estimators import ImportanceEstimator as ImportanceEstimator
from diffusion.evaluation.intervals import Estimate as Estimate
from diffusion.evaluation.likelihood import Evaluation as Evaluation
from diffusion.evaluation.likelihood import evaluate as evaluate
