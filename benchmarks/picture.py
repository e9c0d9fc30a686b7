"""Joins the final pictures of a run into one: samples on the left, the trajectory above restorations on the right.

python -m benchmarks.picture RUN --out docs/images/digits.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from diffusion import figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of a finished training")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    options = parser.parse_args()
    samples, restoration, film = (
        Image.open(options.run / name).convert("RGB") for name in ("samples.png", "restoration.png", "film.png")
    )
    right = figures.stack([film, restoration])
    samples = samples.resize((right.height, right.height), Image.Resampling.NEAREST)
    picture = Image.new("RGB", (samples.width + figures.GAP + right.width, right.height), figures.PAPER)
    picture.paste(samples, (0, 0))
    picture.paste(right, (samples.width + figures.GAP, 0))
    info = figures.read_info(options.run / "samples.png")
    figures.save_png(picture.convert("P", palette=Image.Palette.ADAPTIVE), options.out, info)


if __name__ == "__main__":
    main()
