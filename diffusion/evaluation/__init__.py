"""Measurements of a trained model."""

from diffusion.evaluation.budget import Estimate as Estimate
from diffusion.evaluation.held_out import Evaluation as Evaluation
from diffusion.evaluation.held_out import evaluate as evaluate
from diffusion.evaluation.methods import METHODS as METHODS
from diffusion.evaluation.methods import ByBound as ByBound
from diffusion.evaluation.methods import ByFlow as ByFlow
from diffusion.evaluation.methods import ByWork as ByWork
