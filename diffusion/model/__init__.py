"""A trained model in the units of its data: what ties the theory to `DataSpec`."""

from diffusion.model.loading import assemble as assemble
from diffusion.model.loading import build as build
from diffusion.model.loading import describe as describe
from diffusion.model.loading import load as load
from diffusion.model.model import Model as Model
