"""The baseline for dead leaves: a mixture of conditional Gaussian scale mixtures, in bits per pixel.

    python -m benchmarks.mcgsm [--r-min R] [--search] [--components 12] [--pairs 1000000] [--steps 4000] [--out FILE]

The model predicts a pixel y from z, the 24 pixels above and to the left of it in a window of 7 x 7 (Theis, Hosseini and
Bethge 2012, Mixtures of Conditional Gaussian Scale Mixtures Applied to Multiscale Image Representations, eq. 5-8):

    p(y|z) = Σ p(c, s|z) N(y; a_c·z + u_c, e^-α_cs),   p(c, s|z) ∝ exp(η_cs + w_c·z - ½ e^α_cs Σ_f β_cf² (b_f·z)²)

with components c, scales s and features b_f shared by the components. It is fitted by gradient on windows of the dead
leaves, scaled to variance 1, and measured on others, where all 24 neighbors of a pixel lie in the window.

That paper's model scored 1.244 bits per pixel on files that were not published (Sohl-Dickstein et al. 2015, table 2).
--search seeks the smallest radius of the generator's disks at which this model scores the same. With the same baseline,
a model of these images can be compared with one of those. ± is one standard error over the windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks import common
from diffusion.data.synthetic.dead_leaves import R_MIN, Leaves, dead_leaves

PUBLISHED = 1.244
# Pixels to fit on, and the same number to measure on; steps of the optimizer.
PAIRS, STEPS = 1_000_000, 4000
REACH = 3
WINDOW = 64
PAIRS_PER_WINDOW = 125
BATCH = 8192
# The least eigenvalue that whitening divides by, as a share of the largest: neighbors without noise have smaller ones.
SMALLEST = 1e-9


@dataclass(frozen=True)
class Shape:
    """The numbers of components, scales and features."""

    components: int = 12
    scales: int = 6
    features: int = 40


@dataclass(frozen=True)
class Pairs:
    """Neighbors z (N, D) and the pixels y (N,) that they predict; `window` (N,) says which come from one image."""

    z: Tensor
    y: Tensor
    window: Tensor

    def __len__(self) -> int:
        return len(self.y)


def causal_pairs(images: Tensor, per_window: int, seed: int = 0) -> Pairs:
    """Draws `per_window` random pixels of each image (B, H, W) whose causal neighbors within REACH all lie in it."""
    n, height, width = images.shape
    generator = torch.Generator().manual_seed(seed)
    row = torch.randint(REACH, height, (n, per_window, 1), generator=generator)
    column = torch.randint(REACH, width - REACH, (n, per_window, 1), generator=generator)
    above = [(-i, j) for i in range(REACH, 0, -1) for j in range(-REACH, REACH + 1)]
    offsets = torch.tensor([*above, *((0, -j) for j in range(REACH, 0, -1)), (0, 0)])
    window = torch.arange(n)[:, None, None].expand(n, per_window, 1)
    values = images[window, row + offsets[:, 0], column + offsets[:, 1]].flatten(0, 1)
    return Pairs(values[:, :-1], values[:, -1], window.flatten())


class MCGSM(nn.Module):
    """The conditional density p(y|z), in whitened neighbors z and the residual of y from its best linear prediction."""

    def __init__(self, pairs: Pairs, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        k, s, f, dim = shape.components, shape.scales, shape.features, pairs.z.shape[1]

        def random(*size: int, scale: float) -> nn.Parameter:
            return nn.Parameter(scale * torch.randn(*size, generator=generator))

        self._whiten(pairs)
        self.predictors, self.means = random(k, dim, scale=0.1), random(k, scale=0.1)
        self.gates, self.priors = random(k, dim, scale=0.1), random(k, s, scale=0.1)
        self.features, self.weights = random(f, dim, scale=dim**-0.5), random(k, f, scale=0.1)
        # Scales start over the four powers of e that images usually span.
        self.log_precisions = nn.Parameter(torch.linspace(-2, 2, s).repeat(k, 1))

    def _whiten(self, pairs: Pairs) -> None:
        z, y = pairs.z.double(), pairs.y.double()
        centered, residual = z - z.mean(0), y - y.mean()
        values, vectors = torch.linalg.eigh(centered.mT @ centered / len(z))
        white = vectors / values.clamp_min(SMALLEST * values[-1]).sqrt()
        linear = (centered @ white).mT @ residual / len(z)
        scale = (residual - centered @ white @ linear).std()
        parts = {"center": z.mean(0), "white": white, "linear": linear, "offset": y.mean(), "scale": scale}
        for name, value in parts.items():
            self.register_buffer(name, value.float())

    def log_density(self, z: Tensor, y: Tensor) -> Tensor:
        """Returns log p(y|z) in nats, in the units of the pairs: (N, D), (N,) -> (N,)."""
        z = (z - self.center) @ self.white
        y = (y - self.offset - z @ self.linear) / self.scale
        precisions = self.log_precisions.exp()
        energy = (z @ self.features.mT).square() @ self.weights.square().mT
        gate = self.priors + (z @ self.gates.mT)[..., None] - energy[..., None] * precisions / 2
        error = (y[:, None] - z @ self.predictors.mT - self.means).square()
        normal = (self.log_precisions - math.log(2 * math.pi) - error[..., None] * precisions) / 2
        return (gate + normal).flatten(1).logsumexp(1) - gate.flatten(1).logsumexp(1) - self.scale.log()


def fit(pairs: Pairs, shape: Shape = Shape(), *, steps: int, lr: float = 0.03, seed: int = 0) -> MCGSM:
    """Fits the model by `steps` steps of Adam on random batches, at a rate that falls to zero by a half cosine."""
    model = MCGSM(pairs, shape, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed + 1)
    for _ in range(steps):
        chosen = torch.randint(len(pairs), (min(BATCH, len(pairs)),), generator=generator)
        loss = -model.log_density(pairs.z[chosen], pairs.y[chosen]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


@torch.no_grad()
def score(model: MCGSM, pairs: Pairs) -> tuple[float, float]:
    """Returns the mean log-likelihood in bits per pixel, and its standard error over the windows."""
    nats = torch.cat([model.log_density(z, y) for z, y in zip(pairs.z.split(BATCH), pairs.y.split(BATCH), strict=True)])
    count = int(pairs.window.max()) + 1
    windows = torch.zeros(count, dtype=torch.float64).index_add(0, pairs.window, nats.double())
    bits = windows / pairs.window.bincount() / math.log(2)
    return float(bits.mean()), float(bits.std()) / count**0.5


def leaf_pairs(r_min: float, pairs: int, seed: int) -> Pairs:
    """Returns about `pairs` pairs from windows of dead leaves, scaled to variance 1."""
    data = dead_leaves(max(1, pairs // PAIRS_PER_WINDOW), seed, (WINDOW, WINDOW), Leaves(r_min))
    images = torch.cat([data.spec.encode(data.batch(part)[0][:, 0]) for part in torch.arange(len(data)).split(256)])
    return causal_pairs(images, PAIRS_PER_WINDOW, seed)


def measure(r_min: float, pairs: int, steps: int, shape: Shape = Shape()) -> tuple[float, float]:
    """Returns the bits per pixel of the baseline on new images, and their standard error."""
    bits = score(fit(leaf_pairs(r_min, pairs, seed=0), shape, steps=steps), leaf_pairs(r_min, pairs, seed=1))
    print(f"r_min {r_min:.4g}: {bits[0]:.4f} ± {bits[1]:.4f} bits/pixel", flush=True)
    return bits


def search(
    bits: Callable[[float], float], target: float, low: float, high: float, *, near: float, trials: int = 8
) -> float:
    """Returns a positive number at which the increasing function `bits` is within `near` of `target`.

    Interpolates linearly over the logarithm of the number.

    Raises ValueError if the target is not reached between `low` and `high`, or not found in `trials` trials.
    """
    below, above = bits(low), bits(high)
    if not below <= target <= above:
        raise ValueError(f"r_min: no value from {low:g} to {high:g} gives {target:g} bits per pixel")
    for _ in range(trials):
        middle = low * (high / low) ** ((target - below) / (above - below))
        found = bits(middle)
        if abs(found - target) <= near:
            return middle
        if found < target:
            low, below = middle, found
        else:
            high, above = middle, found
    raise ValueError(f"r_min: {target:g} ± {near:g} bits per pixel was not reached in {trials} trials")


def main() -> None:
    parser = common.parser(__doc__, "mcgsm")
    parser.add_argument("--r-min", type=float, default=R_MIN, help="smallest radius, in pixels")
    parser.add_argument(
        "--search", action="store_true", help="seek the smallest radius whose images score as published"
    )
    parser.add_argument(
        "--components", type=int, default=Shape().components, help="components of the mixture; published are 12"
    )
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pixels to fit on, and the same number to measure on")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of the optimizer")
    options = parser.parse_args()
    r_min, shape = options.r_min, Shape(components=options.components)
    if options.search:
        found = search(lambda r: measure(r, options.pairs, options.steps, shape)[0], PUBLISHED, 2.0, 4.0, near=0.003)
        r_min = float(f"{found:.3g}")
    bits, error = measure(r_min, options.pairs, options.steps, shape)
    row = {
        "r_min": r_min,
        "components": shape.components,
        "bits/pixel": f"{bits:.4f} ± {error:.4f}",
        "ceiling": f"{Leaves().ceiling:.4f}",
    }
    distance = common.Goal("distance from the published score", abs(bits - PUBLISHED), 0.01, "at most")
    title = "Dead leaves, mixture of conditional Gaussian scale mixtures"
    goals = [distance] if shape == Shape() else []
    common.finish(goals, {title: [row]}, options.out, check=options.check, values="± is one standard error")


if __name__ == "__main__":
    main()
