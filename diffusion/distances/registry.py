"""The distances by name."""

from __future__ import annotations

from diffusion.distances.distance import Distance
from diffusion.distances.frechet import Frechet, FrechetExtrapolated
from diffusion.distances.kernel import KernelDistance, PatchMMD
from diffusion.distances.neighbors import Coverage, Density, Precision, Recall
from diffusion.distances.sliced import SlicedWasserstein

# Those of images (N, C, H, W) in [0, 1], which need no weights.
IMAGE_DISTANCES: dict[str, type[Distance]] = {
    "sliced_wasserstein": SlicedWasserstein,
    "patch_mmd": PatchMMD,
}
# Those of features (N, F).
FEATURE_DISTANCES: dict[str, type[Distance]] = {
    "frechet": Frechet,
    "frechet_extrapolated": FrechetExtrapolated,
    "kernel": KernelDistance,
    "precision": Precision,
    "recall": Recall,
    "density": Density,
    "coverage": Coverage,
}
