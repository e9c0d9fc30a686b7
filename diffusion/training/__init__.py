"""The training loop and everything that only it needs."""

from diffusion.training.run import train as train
