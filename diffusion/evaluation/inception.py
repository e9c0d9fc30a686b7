"""The Inception network whose features FID compares (Heusel et al. 2017, arXiv 1706.08500), with weights that we read.

Its parts are those of torch-fidelity, the optional extra `quality`: the network of 2015 that TensorFlow published, with
its pooling, and with its resizing to 299x299, which interpolates linearly without a filter. What torch-fidelity does
not do here is to read or to fetch weights, which it would unpickle.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion.errors import InputError

NAME, LAYER = "inception-v3-compat", "2048"
# The name of each convolution that comes before the blocks, with its inputs, outputs, side, stride and padding.
STEM = (
    ("Conv2d_1a_3x3", 3, 32, 3, 2, 0),
    ("Conv2d_2a_3x3", 32, 32, 3, 1, 0),
    ("Conv2d_2b_3x3", 32, 64, 3, 1, 1),
    ("Conv2d_3b_1x1", 64, 80, 1, 1, 0),
    ("Conv2d_4a_3x3", 80, 192, 3, 1, 0),
)


class Inception(nn.Module):
    """The features (B, 2048) of images (B, 3, H, W) uint8: what the last pooling leaves of them.

    Raises InputError where torch-fidelity is not installed.
    """

    width = 2048

    def __init__(self) -> None:
        super().__init__()
        try:
            from torch_fidelity import feature_extractor_inceptionv3 as parts
        except ImportError as error:
            raise InputError(
                f"--features inception: needs torch-fidelity ({error}); python -m pip install torch-fidelity"
            ) from None
        # Its constructor would load weights, so that the network is put together here.
        network = parts.FeatureExtractorInceptionV3.__new__(parts.FeatureExtractorInceptionV3)
        parts.FeatureExtractorBase.__init__(network, NAME, [LAYER])
        network.feature_extractor_internal_dtype = torch.float32
        for name, inputs, outputs, side, stride, padding in STEM:
            convolution = parts.BasicConv2d(inputs, outputs, kernel_size=side, stride=stride, padding=padding)
            network.add_module(name, convolution)
        for name, block in {
            "MaxPool_1": nn.MaxPool2d(kernel_size=3, stride=2),
            "MaxPool_2": nn.MaxPool2d(kernel_size=3, stride=2),
            "Mixed_5b": parts.InceptionA(192, pool_features=32),
            "Mixed_5c": parts.InceptionA(256, pool_features=64),
            "Mixed_5d": parts.InceptionA(288, pool_features=64),
            "Mixed_6a": parts.InceptionB(288),
            "Mixed_6b": parts.InceptionC(768, channels_7x7=128),
            "Mixed_6c": parts.InceptionC(768, channels_7x7=160),
            "Mixed_6d": parts.InceptionC(768, channels_7x7=160),
            "Mixed_6e": parts.InceptionC(768, channels_7x7=192),
            "Mixed_7a": parts.InceptionD(768),
            "Mixed_7b": parts.InceptionE_1(1280),
            "Mixed_7c": parts.InceptionE_2(2048),
            "AvgPool": nn.AdaptiveAvgPool2d(1),
            "fc": nn.Linear(2048, 1008),
        }.items():
            network.add_module(name, block)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Resizes images as TensorFlow does, and returns their features."""
        features: Tensor = self.network(images)[0]
        return features
