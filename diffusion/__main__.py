"""Runs the `diffusion` command for `python -m diffusion`."""

import sys

from diffusion.cli import main

if __name__ == "__main__":
    sys.exit(main())
