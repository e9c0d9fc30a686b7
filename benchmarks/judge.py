"""A judge of sample quality on Fashion-MNIST, or any set of that form: Fréchet distance in the features of a small
classifier that the benchmark trains itself, in a minute and from a fixed seed.

Between sets of features with means m, n and covariances C, D the distance is |m - n|² + tr(C + D - 2 (CD)^½) (Heusel et
al. 2017, arXiv 1706.08500, eq. 6). It falls as the number of samples grows, so compare equal numbers only. The floor is
the distance of the same number of real images that the classifier has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.unpack import read_idx

EPOCHS, BATCH, PEAK_RATE = 3, 200, 3e-3
FEATURES = 64


@dataclass(frozen=True)
class Images:
    """Images (N, 1, H, W) uint8 and their classes (N,)."""

    values: Tensor
    label: Tensor

    @classmethod
    def read(cls, data: Path, part: str) -> Images:
        """Reads the part "train" or "t10k" of the original files in a folder."""
        values, label = (read_idx(data / f"{part}-{what}-ubyte.gz").copy() for what in ("images-idx3", "labels-idx1"))
        return cls(torch.from_numpy(values)[:, None], torch.from_numpy(label).long())


class Judge(nn.Module):
    """A convolutional classifier of ten classes; its last hidden layer gives the features."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 32, 64, 128)
        stages = [
            nn.Sequential(
                nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, 3, stride=2, padding=1)
            )
            for a, b in pairwise(widths)
        ]
        self.body = nn.Sequential(
            *stages, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * widths[-1], FEATURES)
        )
        self.head = nn.Linear(FEATURES, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the class scores (B, 10) of images (B, 1, H, W) in [0, 1]."""
        scores: Tensor = self.head(F.relu(self.body(x)))
        return scores

    @torch.no_grad()
    def features(self, values: Tensor) -> Tensor:
        """Returns the features (N, 64) float64 of images (N, 1, H, W) uint8."""
        return torch.cat([F.relu(self.body(part.float() / 255)) for part in values.split(500)]).double()


def train(images: Images, *, epochs: int = EPOCHS) -> Judge:
    """Trains a judge on labeled images, always from the same weights and in the same order."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judge = Judge()
        steps = epochs * (len(images.values) // BATCH)
        optimizer = torch.optim.AdamW(judge.parameters(), lr=PEAK_RATE, weight_decay=0.01)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
        for _ in tqdm(range(steps), desc="training the judge"):
            chosen = torch.randint(len(images.values), (BATCH,))
            loss = F.cross_entropy(judge(images.values[chosen].float() / 255), images.label[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    return judge.eval()


@dataclass(frozen=True)
class Referee:
    """A judge with the features of the training images, and the `floor`: the distance of images of the test set."""

    judge: Judge
    features: Tensor
    floor: float

    @classmethod
    def of(cls, data: Path, count: int) -> Referee:
        """Trains a judge on the original files in a folder; the floor is that of so many test images."""
        real, test = (Images.read(data, part) for part in ("train", "t10k"))
        judge = train(real)
        features = judge.features(real.values)
        return cls(judge, features, frechet(judge.features(test.values[:count]), features))

    def distance(self, values: Tensor) -> float:
        """Returns the Fréchet distance of images (N, 1, H, W) uint8 from the training images."""
        return frechet(self.judge.features(values), self.features)


def accuracy(judge: Judge, images: Images) -> float:
    """Returns the share of images whose class the judge predicts."""
    with torch.no_grad():
        right = [
            (judge(values.float() / 255).argmax(1) == label).sum()
            for values, label in zip(images.values.split(500), images.label.split(500), strict=True)
        ]
    return float(sum(right)) / len(images.values)


def frechet(a: Tensor, b: Tensor) -> float:
    """Returns the Fréchet distance between two sets of features (N, D) and (M, D)."""
    (m, c), (n, d) = ((z.mean(0), torch.cov(z.T)) for z in (a, b))
    # The eigenvalues of CD are those of the symmetric C^½ D C^½, and so nonnegative up to rounding.
    root = torch.linalg.eigvals(c @ d).real.clamp_min(0).sqrt().sum()
    return float((m - n).square().sum() + c.trace() + d.trace() - 2 * root)
