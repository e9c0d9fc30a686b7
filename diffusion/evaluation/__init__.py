"""Measurements of a trained model."""

from diffusion.evaluation.held_out import Evaluation as Evaluation
from diffusion.evaluation.held_out import evaluate as evaluate
