"""Draws samples from the model beside this file, with NumPy and onnxruntime alone; Pillow writes them as images.

    python sample.py --n 16 --seed 0 --out samples
    python sample.py --noise noise.npy --out samples.npy

network.json says what the network takes and what the steps are. With x̂ = c_skip x + c_out F(c_in x, log-SNR), the
estimate of the clean example, and h, the increase of half the log-SNR, a step is

    x_next = (sigma_next / sigma) x + alpha_next (1 - exp(-h)) (x̂ + slope)

where the slope takes x̂ of the step before into account (DPM-Solver++ 2M, Lu et al. 2022, arXiv 2211.01095, algorithm
2), or is 0 (DDIM, Song et al. 2021, arXiv 2010.02502). The last x̂ is the sample. Nothing is random but the noise.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Session = Any  # An onnxruntime.InferenceSession, or whatever else has its method `run`.


def sample(
    session: Session, model: dict[str, Any], noise: Array, label: int = -1, condition: Array | None = None
) -> Array:
    """Returns the samples that begin with standard normal noise (N, *), in the units of the data: images in [0, 1]."""
    steps, before = model["steps"], None
    x: Array = (steps[0]["sigma"] * noise).astype(np.float32)
    for i, now in enumerate(steps):
        mean = estimate(session, model, now, x, label, condition)
        if i + 1 == len(steps):
            break
        after = steps[i + 1]
        h, average = (after["log_snr"] - now["log_snr"]) / 2, mean
        if before is not None and model["order"] == 2:
            average = mean + (mean - before) * (h / (now["log_snr"] - steps[i - 1]["log_snr"]))
        x = after["sigma"] / now["sigma"] * x - after["alpha"] * math.expm1(-h) * average
        before = mean
    units: Array = (mean * model["std"] + model["mean"]) / model["top"]
    return units if model["levels"] is None else units.clip(0, 1)


def estimate(
    session: Session, model: dict[str, Any], now: dict[str, float], x: Array, label: int, condition: Array | None
) -> Array:
    """Returns x̂ (N, *) of x at the noise level of a step, with classifier-free guidance if the model is to have it."""

    def evaluate(label: int) -> Array:
        n, level = len(x), np.float32(now["log_snr"])
        beside = np.zeros((n, model["condition_channels"], *x.shape[2:]), np.float32)
        given: dict[str, Array] = {
            "x": now["c_in"] * x,
            "log_snr": np.full(n, level),
            "label": np.full(n, label),
            "log_snr_map": np.full((n, model["map_channels"], *x.shape[2:]), level),
            "condition": beside if condition is None else beside + np.float32(condition),
        }
        (output,) = session.run(["output"], {name: given[name] for name in model["inputs"]})
        estimated: Array = now["c_skip"] * x + now["c_out"] * output[:, : x.shape[1]]
        return estimated

    scale, (low, high) = model["guidance"]["scale"], model["guidance"]["interval"]
    if label < 0 or scale == 1 or not low <= now["log_snr"] <= high:
        return evaluate(label)
    guided: Array = evaluate(-1) * (1 - scale) + evaluate(label) * scale
    return guided


def label_of(model: dict[str, Any], text: str | None) -> int:
    """Returns the number of a class, by number or name, -1 for none. Exits for one that the model does not have."""
    classes = model["classes"]
    if text is None and (model["unlabeled"] or not classes):
        return -1
    number = classes.index(text) if text in classes else int(text) if text and text.isdecimal() else len(classes)
    if number >= len(classes):
        raise SystemExit(f"--label: must be one of {', '.join(classes) or 'none'}, got {text}")
    return number


def main() -> None:
    """Draws samples as the command line says."""
    import onnxruntime

    parser = argparse.ArgumentParser(description="Draws samples from the model beside this file.")
    parser.add_argument("--n", type=int, default=16, help="how many to draw at once")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    parser.add_argument("--noise", type=Path, help="a .npy file of noise to begin with instead, (N, *)")
    parser.add_argument("--label", help="class, by name or number")
    parser.add_argument("--condition", type=Path, help="a .npy file of what the network is told of the samples")
    parser.add_argument("--out", type=Path, default=Path("samples"), help="a folder of PNGs, or a .npy file")
    options = parser.parse_args()
    here = Path(__file__).parent
    model = json.loads((here / "network.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(here / model["network"], providers=onnxruntime.get_available_providers())
    noise = np.random.default_rng(options.seed).standard_normal((options.n, *model["shape"]), np.float32)
    noise = noise if options.noise is None else np.load(options.noise, allow_pickle=False)
    condition = None if options.condition is None else np.load(options.condition, allow_pickle=False)
    x = sample(session, model, noise, label_of(model, options.label), condition)
    if options.out.suffix == ".npy" or x.ndim != 4 or x.shape[1] not in (1, 3, 4):
        np.save(options.out.with_suffix(".npy"), x)
        return
    from PIL import Image

    options.out.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate((x.transpose(0, 2, 3, 1).clip(0, 1) * 255).round().astype(np.uint8)):
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(options.out / f"{number:04d}.png")


if __name__ == "__main__":
    main()
