"""Samples of p(x|y), y = A(x) + noise, for any denoiser."""

from diffusion.restoration.methods import METHODS as METHODS
from diffusion.restoration.methods import Method as Method
from diffusion.restoration.methods import default as default
from diffusion.restoration.methods import restore as restore
from diffusion.restoration.observation import Observation as Observation
from diffusion.restoration.particles import Particles as Particles
