"""Networks F(x, log-SNR, label). They know nothing about schedules, losses or data."""

from diffusion.backbones.backbone import Backbone as Backbone
from diffusion.backbones.backbone import BackboneConfig as BackboneConfig
from diffusion.backbones.mlp import MLPConfig as MLPConfig
from diffusion.backbones.rbf import RBFConfig as RBFConfig
from diffusion.backbones.unet import UNetConfig as UNetConfig
from diffusion.backbones.unet2d import UNet2DConfig as UNet2DConfig

BACKBONES: dict[str, type[BackboneConfig]] = {
    "unet": UNetConfig,
    "unet2d": UNet2DConfig,
    "mlp": MLPConfig,
    "rbf": RBFConfig,
}
