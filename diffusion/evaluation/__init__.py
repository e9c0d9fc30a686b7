"""Measurements of a trained model: numbers with intervals."""

from diffusion.evaluation.estimators import BoundEstimator as BoundEstimator
from diffusion.evaluation.estimators import FlowEstimator as FlowEstimator
from diffusion.evaluation.estimators import ImportanceEstimator as ImportanceEstimator
from diffusion.evaluation.estimators import evaluate as evaluate
from diffusion.evaluation.evaluator import Evaluation as Evaluation
from diffusion.evaluation.evaluator import Evaluator as Evaluator
from diffusion.evaluation.evaluator import Setting as Setting
from diffusion.evaluation.intervals import Estimate as Estimate
from diffusion.evaluation.likelihood import LikelihoodEvaluation as LikelihoodEvaluation
from diffusion.evaluation.registry import EVALUATORS as EVALUATORS
