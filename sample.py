"""Sample from a trained model, or restore an image: `python sample.py RUN [--image IMAGE --mask MASK]`."""

import sys

from diffusion.cli import main_as

if __name__ == "__main__":
    sys.exit(main_as("sample"))
