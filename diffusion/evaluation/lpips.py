"""LPIPS, a distance between images as people judge it: that of the features of a network trained to recognize objects.

    d(x, x₀) = Σ_l mean over positions of Σ_c w_lc (f̂_lc(x) - f̂_lc(x₀))²

with the features f̂ of layer l of AlexNet, scaled to unit length over their channels, and weights w that were fitted to
judgments (Zhang et al. 2018, arXiv 1801.03924, equation 1, version 0.1 of its weights).

The weights are not part of this package. `python -m pip install lpips safetensors`, and then once

    import lpips
    from safetensors.torch import save_file

    weights = {key: value.clone() for key, value in lpips.LPIPS(net="alex").state_dict().items()}
    save_file(weights, "lpips.safetensors")

writes the file that `load` reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from diffusion.errors import InputError, require

# For each layer of features: the name of its convolution, inputs, outputs, kernel, stride, padding, and whether the
# features before it are pooled.
LAYERS = (
    ("net.slice1.0", 3, 64, 11, 4, 2, False),
    ("net.slice2.3", 64, 192, 5, 1, 2, True),
    ("net.slice3.6", 192, 384, 3, 1, 1, True),
    ("net.slice4.8", 384, 256, 3, 1, 1, False),
    ("net.slice5.10", 256, 256, 3, 1, 1, False),
)
# Mean and standard deviation of the colors, in [-1, 1], on which the network was trained.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# The smallest side that leaves features in every layer.
SMALLEST = 32
TINY = 1e-10


@dataclass(frozen=True)
class LPIPS:
    """The distance with the `weights` that `load` reads, by the names of the lpips package; it is computed on their
    device.
    """

    weights: Mapping[str, Tensor]

    def __call__(self, x: Tensor, truth: Tensor) -> Tensor:
        """Returns the distances of images (B, 1 or 3, H, W) in [0, 1], at least 32x32: (B,), 0 for equal ones.

        Raises InputError for smaller images, or another number of channels.
        """
        require(min(x.shape[-2:]) >= SMALLEST, "LPIPS", "of images of at least 32x32 pixels", tuple(x.shape[-2:]))
        require(x.shape[1] in (1, 3), "LPIPS", "of images of 1 or 3 channels", x.shape[1])
        device = next(iter(self.weights.values())).device
        x, truth = x.to(device), truth.to(device)
        total = x.new_zeros(len(x))
        for number, (a, b) in enumerate(zip(self._features(x), self._features(truth), strict=True)):
            weight = self.weights[f"lin{number}.model.1.weight"].to(a)
            total += F.conv2d((a - b).square(), weight).mean((1, 2, 3))
        return total

    def _features(self, x: Tensor) -> list[Tensor]:
        shift, scale = (x.new_tensor(values)[:, None, None] for values in (SHIFT, SCALE))
        features, found = (2 * x.expand(-1, 3, -1, -1) - 1 - shift) / scale, []
        for name, _, _, _, stride, padding, pooled in LAYERS:
            if pooled:
                features = F.max_pool2d(features, 3, 2)
            weight, bias = (self.weights[f"{name}.{part}"].to(x) for part in ("weight", "bias"))
            features = F.conv2d(features, weight, bias, stride=stride, padding=padding).relu()
            found.append(features / (features.square().sum(1, keepdim=True).sqrt() + TINY))
        return found


def load(path: Path, device: torch.device | None = None) -> LPIPS:
    """Reads the weights from a safetensors file, written as the docstring of this file says, onto a device, by default
    the CPU.

    Raises InputError for a file that cannot be read, or in which a tensor is missing or of another shape.
    """
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"--lpips: {path} is not a safetensors file ({error})") from error
    for number, (name, inputs, outputs, kernel, *_) in enumerate(LAYERS):
        expected = {
            f"{name}.weight": (outputs, inputs, kernel, kernel),
            f"{name}.bias": (outputs,),
            f"lin{number}.model.1.weight": (1, outputs, 1, 1),
        }
        for key, shape in expected.items():
            found = tuple(weights[key].shape) if key in weights else None
            require(found == shape, f"--lpips: {path}: {key}", f"of the shape {shape}", found)
    return LPIPS({key: value.to(device, torch.float32) for key, value in weights.items()})
