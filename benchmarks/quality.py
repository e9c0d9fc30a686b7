"""Sample quality after the same time of training on the same cores: ours and public packages, on Fashion-MNIST.

    python -m benchmarks.quality --data DIR [--minutes 10] [--samples 2000] [--only NAME ...] [--out FILE] [--check]

DIR holds the four original .gz files. Contestants train one after the other, each from scratch until its time is up,
reading of data excluded. Ours are configs/fashion_mnist.toml unchanged, which uses the classes, and the same config
without classes, as the peers learn, sampled as the package does by default. The Fréchet distance
(benchmarks/judge.py) is between samples of the averaged weights and the 60,000 training images. Ours are drawn by the
config's sampler, theirs in 50 steps of DDIM (denoising-diffusion-pytorch) or of DPM-Solver++ (diffusers).

Peers that train after ours profit from its allocator settings, which hold for the whole process (`diffusion.memory`);
use --only to train them without these. Pictures of samples, the samples, the networks and the judge are left in a
folder beside the JSON. benchmarks/sampling.py starts from that folder. Another run of this benchmark uses the same
judge.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from benchmarks import common, judge, peers, timed
from benchmarks.common import Goal, Rows
from benchmarks.judge import Images
from benchmarks.peers import Peer
from diffusion import config, figures
from diffusion.data import Dataset, DataSpec
from diffusion.data.dataset import standardized
from diffusion.model import Model

CONFIG = Path("configs/fashion_mnist.toml")
GOAL = 10.0
PEER_STEPS = 50
WIDTH = 32
BATCH = 64
JUDGE, SAMPLES = "judge.safetensors", "-samples.safetensors"
UNCONDITIONAL = ("data.labels=false", "sampling.guidance=1", "sampling.steps=15", "sampler.name=dpmpp_2m_sde")
OURS: dict[str, tuple[str, ...]] = {"diffusion, labels": (), "diffusion": UNCONDITIONAL}


@dataclass(frozen=True)
class Trained:
    """A trained contestant: its steps, seconds and batch; `sample(n)` draws (n, 1, 28, 28) in [0, 1]."""

    steps: int
    seconds: float
    batch: int
    sample: Callable[[int], Tensor]


def dataset(images: Images, *, labels: bool) -> Dataset:
    """Returns images in memory as the dataset that `open_source` makes of a folder."""
    values = images.values.numpy()
    classes = tuple(map(str, range(10))) if labels else ()
    names = tuple(map(str, range(len(values))))
    label = images.label.numpy().astype(np.int64) if labels else None
    return standardized(Dataset(values, DataSpec(tuple(values.shape[1:]), 256, classes=classes), label, names))


def train_ours(name: str, images: Images, seconds: float, folder: Path) -> Trained:
    """Trains with our Trainer for `seconds`."""
    overrides = OURS[name]
    data = dataset(images, labels=not overrides)
    model, elapsed = timed.train(config.load(CONFIG, overrides), data, folder / name, seconds)
    return Trained(model.step, elapsed, model.config.training.batch, lambda n: draw(model, n))


def draw(model: Model, n: int, **options: int) -> Tensor:
    """Draws n samples; the classes take turns."""
    return model.sample(n, label=model.in_turn(n), **options)


def train_peer(name: str, images: Images, seconds: float, folder: Path) -> Trained:
    """Trains a peer for `seconds`, on batches in random order."""
    torch.manual_seed(0)
    peer = build_peer(name)
    start, steps = time.perf_counter(), 0
    with tqdm(desc=name, unit="step") as bar:
        while time.perf_counter() - start < seconds:
            chosen = torch.randint(len(images.values), (BATCH,))
            peer.step(images.values[chosen].float() / 255)
            steps += 1
            bar.update()
    elapsed = time.perf_counter() - start
    torch.save(peer.state(), folder / f"{name}.pt")
    return Trained(steps, elapsed, BATCH, lambda n: draw_peer(peer, n))


def build_peer(name: str) -> Peer:
    """Returns a peer with random weights, of the widths compared here."""
    return peers.PEERS[name](28, 1, WIDTH, device="cpu")


def load_peer(name: str, folder: Path) -> Peer:
    """Loads a peer that an earlier run trained."""
    peer = build_peer(name)
    peer.restore(torch.load(folder / f"{name}.pt", weights_only=True))
    return peer


def samples_left(name: str, folder: Path) -> Tensor | None:
    """Loads the samples (n, 1, 28, 28) uint8 of a contestant of an earlier run; None if it left none."""
    path = folder / f"{name}{SAMPLES}"
    return load_file(path)["samples"] if path.exists() else None


def draw_peer(peer: Peer, n: int, steps: int = PEER_STEPS) -> Tensor:
    """Draws n samples of a peer in batches."""
    torch.manual_seed(1)
    parts = [peer.sample(min(BATCH, n - i), steps) for i in tqdm(range(0, n, BATCH), desc=peer.package)]
    return torch.cat(parts).cpu()


def eight_bit(x: Tensor) -> Tensor:
    """Rounds samples in [0, 1] to uint8, as in a file."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


@dataclass(frozen=True)
class Referee:
    """A judge, the features of the training images that samples are compared with, and real images that nobody saw."""

    judge: judge.Judge
    real: Tensor
    unseen: Images

    @classmethod
    def of(cls, data: Path, images: Images, folder: Path) -> Referee:
        """Makes a referee with the judge that an earlier run left in `folder`, or trains one on the images and saves it
        there.

        Distances by different judges do not compare: two trainings gave distances that were a third apart.
        """
        path = folder / JUDGE
        if path.exists():
            trained = judge.Judge()
            trained.load_state_dict(load_file(path))
            trained.eval()
        else:
            trained = judge.train(images)
            folder.mkdir(parents=True, exist_ok=True)
            save_file(trained.state_dict(), path)
        return cls(trained, trained.features(images.values), Images.read(data, "t10k"))

    def distance(self, x: Tensor) -> float:
        """Returns the Fréchet distance of samples (n, 1, 28, 28), uint8 or in [0, 1]."""
        values = x if x.dtype == torch.uint8 else eight_bit(x)
        return judge.frechet(self.judge.features(values), self.real)

    def floor(self, n: int) -> float:
        """Returns the Fréchet distance of n real images that nobody trained on."""
        return judge.frechet(self.judge.features(self.unseen.values[:n]), self.real)


def main() -> None:
    options = common.parser(__doc__, "quality")
    options.add_argument("--data", type=Path, required=True, help="folder of the four .gz files")
    options.add_argument("--minutes", type=float, default=10.0, help="training time of each contestant")
    options.add_argument("--samples", type=int, default=2000)
    options.add_argument("--only", nargs="+", choices=[*OURS, *peers.PEERS], default=[*OURS, *peers.PEERS])
    chosen = options.parse_args()
    if set(chosen.only) & set(peers.PEERS):
        peers.require()
    folder: Path = chosen.out.with_suffix("")
    images = Images.read(chosen.data, "train")
    referee = Referee.of(chosen.data, images, folder)
    if chosen.samples > len(referee.unseen.values):
        options.error(
            f"--samples: must be at most {len(referee.unseen.values)}, the unseen images, got {chosen.samples}"
        )
    rows: Rows = []
    for name in chosen.only:
        contest = train_ours if name in OURS else train_peer
        trained = contest(name, images, 60 * chosen.minutes, folder)
        x = trained.sample(chosen.samples)
        figures.save_png(figures.draw(x[:100]), folder / f"{name}.png", {})
        save_file({"samples": eight_bit(x)}, folder / f"{name}{SAMPLES}")
        row = {
            "contestant": name,
            "seconds": trained.seconds,
            "steps": trained.steps,
            "images/s": trained.steps * trained.batch / trained.seconds,
            "Fréchet distance": referee.distance(x),
        }
        rows.append(row)
        print(row, flush=True)
    ours = [float(str(row["Fréchet distance"])) for row in rows if row["contestant"] in OURS]
    goals = [Goal("Fréchet distance, the better of ours", min(ours), GOAL, "at most")] if ours else []
    title = (
        f"{chosen.minutes:g} minutes of training, {chosen.samples:,} samples; floor {referee.floor(chosen.samples):.2f}"
    )
    common.finish(goals, {title: rows}, chosen.out, check=chosen.check, values="one run of each")


if __name__ == "__main__":
    main()
