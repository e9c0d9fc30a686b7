"""Features of images by networks that were trained on others, whose weights a person gets once.

    inception    Inception-v3 of 2015, by whose features FID is defined       (B, 2048)
    dinov2       DINOv2, of size S, B or L                                    (B, 384), (B, 768), (B, 1024)

Weights are read from safetensors, or from a file of `torch.save` without unpickling it (`exchange.pickled`), and known
by the SHA-256 of their file, because numbers by other weights do not compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from torch import Tensor, nn

from diffusion import checkpoint, memory
from diffusion.data import DataSpec
from diffusion.errors import InputError, require, require_one
from diffusion.evaluation.dinov2 import Dinov2
from diffusion.evaluation.inception import Inception
from diffusion.exchange import weights as files

Name = Literal["inception", "dinov2"]
NAMES = ("inception", "dinov2")
# How the SHA-256 of the weights of FID begins, of the year 2015, in the file of torch-fidelity and of pytorch-fid.
FID = "6726825d"
# Counts of batches of which the evaluation of a network makes no use; not all files have them.
COUNTS = "num_batches_tracked"
# The key of the metadata of a safetensors file with the SHA-256 of the file that it was made of.
SOURCE = "source_sha256"
# The names that an error lists.
LISTED = 3
# The digits of the hash of weights that name results.
DIGITS = 12
# Images that a network takes at once, and their channels.
BATCH, COLORS = 32, 3


@dataclass(frozen=True)
class FeatureNetwork:
    """A network of a name on a device. `sha256` is that of the `file` of its weights, and `source` that of the file
    which it was made of, empty where it does not say.
    """

    name: str
    module: Inception | Dinov2
    file: str
    sha256: str
    source: str
    device: torch.device

    @property
    def is_fid(self) -> bool:
        """Whether the Frechet distance by these features is what papers call FID."""
        return self.name == "inception" and (self.source or self.sha256).startswith(FID)

    def to_dict(self) -> dict[str, str]:
        """What the network and its weights are, for JSON."""
        return {"name": self.name, "file": self.file, "sha256": self.sha256, "source_sha256": self.source}

    @property
    def note(self) -> str:
        """Which weights these numbers are by."""
        made = f", made of a file with {self.source}" if self.source else ""
        other = "; they are not those of FID" if self.name == "inception" and not self.is_fid else ""
        return f"{self.name}: by the weights in {self.file}, sha256 {self.sha256}{made}{other}"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """The features of images (B, 1 or 3, H, W) uint8: (B, D) float64 on the CPU; a gray image has three equal
        channels.

        Raises InputError for another number of channels, and where memory runs out with one image.
        """
        check_channels(images.shape[1], self.name)
        parts = [self._part(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
        return torch.cat(parts) if parts else torch.zeros(0, self.module.width, dtype=torch.float64)

    def _part(self, images: Tensor) -> Tensor:
        """The features of a batch, computed in halves, and halves of these, while memory runs out."""
        x = images.to(self.device).expand(-1, COLORS, -1, -1)
        found = memory.none_if_oom(lambda: self.module(x).cpu().double())
        if found is None:
            require(len(x) > 1, "--features", f"a network that {self.device} has memory for", self.name)
            found = torch.cat([self._part(half) for half in images.tensor_split(2)])
        features: Tensor = found
        return features


def check_channels(channels: int, name: str) -> None:
    """Raises InputError for images of other channels than the networks take."""
    rule = f"left out for images that are neither gray nor RGB, which {name} does not take"
    require(channels in (1, COLORS), "--features", rule, f"{channels} channels")


def eight_bit(units: Tensor) -> Tensor:
    """Images in units (B, C, H, W) as the 8 bits that the networks take; values beyond [0, 1] are clipped."""
    return (units.clamp(0, 1) * 255).round().to(torch.uint8)


def check(name: str, path: Path | None, channels: int) -> None:
    """Raises InputError for another name, without a file, and for images of channels that the networks do not take."""
    require_one(name, "--features", NAMES)
    if path is None:
        raise InputError(f"--features {name}: needs its weights, --weights FILE; docs/quality.md says where they are")
    require(path.is_file(), "--weights", "a file that exists", path)
    check_channels(channels, name)


def load(name: str, path: Path | None, device: torch.device | None = None) -> FeatureNetwork:
    """Reads the weights of a network from a file, safetensors or of `torch.save`, onto a device, by default the CPU.

    Raises InputError for another name, without a file, for one that cannot be read or does not have the weights of the
    network, with what is missing, too much or of another shape, and where the network needs a package.
    """
    check(name, path, COLORS)
    assert path is not None
    tensors = files.read([path])
    module = Inception() if name == "inception" else Dinov2.of(tensors, f"--weights {path}")
    target = module.network if isinstance(module, Inception) else module
    _check(target, tensors, f"--weights {path}", name)
    blank = {key: value for key, value in target.state_dict().items() if key.endswith(COUNTS)}
    target.load_state_dict({**blank, **tensors})
    device = device or torch.device("cpu")
    module.float().eval().requires_grad_(False).to(device)
    return FeatureNetwork(name, module, path.name, sha256(path), _source(path), device)


@cache
def sha256(path: Path) -> str:
    """The SHA-256 of a file of weights, which are large, in hexadecimal digits."""
    return checkpoint.file_hash(path)


def check_alone(name: str | None, path: Path | None) -> None:
    """Raises InputError for weights of no network."""
    given = path is None or name is not None
    require(given, "--weights", "left out without --features, the name of their network", path)


def check_for(spec: DataSpec, name: str | None, path: Path | None) -> None:
    """Raises InputError for features, if these are asked for, of what no network takes, and without their weights."""
    if name is not None:
        require(spec.is_image, "--features", "left out for a model of points", name)
        check(name, path, spec.shape[0])


def known_by(path: Path | None) -> str | None:
    """The beginning of the hash of a file of weights, by which the names of results know it; None for no file."""
    return None if path is None else sha256(path)[:DIGITS]


def _source(path: Path) -> str:
    """The SHA-256 of the file that a safetensors file was made of, where it says so."""
    if path.suffix != ".safetensors":
        return ""
    with safe_open(path, framework="pt") as file:
        return str((file.metadata() or {}).get(SOURCE, ""))


def _check(module: nn.Module, tensors: Mapping[str, Tensor], where: str, name: str) -> None:
    """Raises InputError unless tensors are the weights of a network: its names, and their shapes."""
    wanted = {key: value.shape for key, value in module.state_dict().items() if not key.endswith(COUNTS)}
    found = {key: value.shape for key, value in tensors.items() if not key.endswith(COUNTS)}
    faults = {
        "missing": wanted.keys() - found.keys(),
        "unknown": found.keys() - wanted.keys(),
        "of another shape": {key for key in wanted.keys() & found.keys() if wanted[key] != found[key]},
    }
    said = [f"{len(keys)} {fault} ({_listed(keys)})" for fault, keys in faults.items() if keys]
    require(not said, where, f"the {len(wanted)} tensors of {name}", ", ".join(said))


def _listed(keys: Iterable[str]) -> str:
    first = sorted(keys)
    return ", ".join(first[:LISTED]) + (", ..." if len(first) > LISTED else "")
