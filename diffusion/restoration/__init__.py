"""Samples of p(x|y), y = A(x) + noise, by any denoiser, in the units of the model."""

from diffusion.restoration.methods import METHODS as METHODS
from diffusion.restoration.methods import Method as Method
from diffusion.restoration.methods import default as default
from diffusion.restoration.methods import restore as restore
from diffusion.restoration.particles import Particles as Particles
from diffusion.restoration.problem import Problem as Problem
