"""Train a diffusion model: `python train.py CONFIG [section.key=value ...]`, or `accelerate launch train.py CONFIG
...`.
"""

import sys

from diffusion.cli import main_as

if __name__ == "__main__":
    sys.exit(main_as("train"))
