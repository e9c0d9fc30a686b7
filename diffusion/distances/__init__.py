"""Distances between two sets of images, or of features of images, each with an interval and a floor."""

from diffusion.distances.comparison import Comparison, Interval, compare
from diffusion.distances.distance import Distance
from diffusion.distances.registry import FEATURE_DISTANCES, IMAGE_DISTANCES

__all__ = ["FEATURE_DISTANCES", "IMAGE_DISTANCES", "Comparison", "Distance", "Interval", "compare"]
