"""Writes Fashion-MNIST or MNIST from its original idx files as an image folder with one subfolder per class.

python -m benchmarks.unpack --data DIR --out FOLDER [--part train|t10k]
"""

from __future__ import annotations

import argparse
import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Returns the array of an idx file, gzipped as published."""
    with gzip.open(path) as file:
        rank = struct.unpack(">I", file.read(4))[0] & 255
        shape = struct.unpack(">" + "I" * rank, file.read(4 * rank))
        return np.frombuffer(file.read(), np.uint8).reshape(shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the four .gz files")
    parser.add_argument("--out", type=Path, required=True, help="image folder to write")
    parser.add_argument("--part", choices=("train", "t10k"), default="train")
    options = parser.parse_args()
    images = read_idx(options.data / f"{options.part}-images-idx3-ubyte.gz")
    labels = read_idx(options.data / f"{options.part}-labels-idx1-ubyte.gz")
    for i, (image, label) in enumerate(zip(tqdm(images, desc="writing"), labels, strict=True)):
        path = options.out / str(label) / f"{i:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


if __name__ == "__main__":
    main()
