"""The public packages that this one is compared with, each trained and sampled as its own script does it.

The adapters compute a step of the package's trainer without its reading of files, which would slow it down.
`pip install -e '.[bench]'` installs the packages.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TIMESTEPS = 1000


class Peer(ABC):
    """A network of another package with its loss, optimizer, EMA of the weights and sampler.

    `width` scales all its layers. It computes in float32, or under autocast with `bf16`. Images are (B, C, H, W) in
    [0, 1].
    """

    package: str
    network: nn.Module
    ema: Any

    def __init__(self, size: int, channels: int, width: int, *, device: str | torch.device, bf16: bool = False) -> None:
        self.size, self.channels, self.width = size, channels, width
        self.device, self.bf16 = torch.device(device), bf16

    def autocast(self) -> torch.autocast:
        """Returns the context of the precision in which the network computes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    @abstractmethod
    def step(self, images: Tensor) -> None:
        """Does one full training step: loss, backward pass, clipped gradient, optimizer, EMA of the weights."""

    def state(self) -> dict[str, object]:
        """Returns the weights and their average, for `restore`."""
        return {"network": self.network.state_dict(), "ema": self.ema.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores the weights and their average from what `state` returned."""
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])

    @abstractmethod
    def sample(self, n: int, steps: int) -> Tensor:
        """Samples n images (n, C, H, W) in [0, 1] with the averaged weights."""


class DenoisingDiffusion(Peer):
    """denoising-diffusion-pytorch: its U-Net and GaussianDiffusion, with the defaults of its Trainer, DDIM sampling.

    Multipliers 1, 2, 4, 8 as in its README, as far as they divide the size. Fused attention, which its README turns
    on, is slower on a CPU and left out there.
    """

    package = "denoising-diffusion-pytorch"

    def __init__(self, size: int, channels: int, width: int, *, device: str | torch.device, bf16: bool = False) -> None:
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet
        from ema_pytorch import EMA

        super().__init__(size, channels, width, device=device, bf16=bf16)
        multipliers = (1, 2, 4, 8) if size % 8 == 0 else (1, 2, 4)
        fused = self.device.type == "cuda"
        unet = Unet(width, dim_mults=multipliers, channels=channels, flash_attn=fused)
        self.network = GaussianDiffusion(unet, image_size=size, timesteps=TIMESTEPS).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4, betas=(0.9, 0.99))
        self.ema = EMA(self.network, beta=0.995, update_every=10).to(device)

    def step(self, images: Tensor) -> None:
        """Does a step as in the loop of the package's Trainer."""
        self.network.train()
        with self.autocast():
            loss = self.network(images)
        loss.item()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()

    def sample(self, n: int, steps: int) -> Tensor:
        """Samples by DDIM, or by ancestral sampling if `steps` is the number of timesteps of training."""
        model = self.ema.ema_model
        model.eval()
        model.sampling_timesteps, model.is_ddim_sampling = steps, steps < TIMESTEPS
        # It draws a progress bar that no option turns off.
        with self.autocast(), contextlib.redirect_stderr(io.StringIO()):
            images: Tensor = model.sample(batch_size=n)
        return images.clamp(0, 1)


class Diffusers(Peer):
    """diffusers: UNet2DModel as in its examples/unconditional_image_generation, ε-loss, DPM-Solver++ or DDIM.

    At 64x64 the U-Net has six stages as in the script, whose own width is 128. For smaller images it has three. In both
    the last but one has attention, as in the script.
    """

    package = "diffusers"

    def __init__(self, size: int, channels: int, width: int, *, device: str | torch.device, bf16: bool = False) -> None:
        from diffusers import DDPMScheduler, UNet2DModel
        from diffusers.optimization import get_cosine_schedule_with_warmup
        from diffusers.training_utils import EMAModel

        super().__init__(size, channels, width, device=device, bf16=bf16)
        multipliers = (1, 1, 2, 2, 4, 4) if size % 32 == 0 and size >= 64 else (1, 2, 2)
        stages = len(multipliers)
        attends = [stage == stages - 2 for stage in range(stages)]
        self.network = UNet2DModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=2,
            block_out_channels=tuple(width * m for m in multipliers),
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        ).to(device)
        self.scheduler = DDPMScheduler(TIMESTEPS, beta_schedule="linear")
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
        )
        self.rate = get_cosine_schedule_with_warmup(self.optimizer, 500, 100_000)
        self.ema = EMAModel(
            self.network.parameters(),
            decay=0.9999,
            use_ema_warmup=True,
            inv_gamma=1.0,
            power=0.75,
            model_cls=UNet2DModel,
            model_config=self.network.config,
        )
        self.ema.to(self.device)

    def step(self, images: Tensor) -> None:
        """Does a step as in the loop of the package's script, which casts the images too under autocast."""
        self.network.train()
        clean = (images * 2 - 1).to(torch.bfloat16 if self.bf16 else torch.float32)
        noise = torch.randn(clean.shape, dtype=clean.dtype, device=clean.device)
        timesteps = torch.randint(0, TIMESTEPS, (len(clean),), device=clean.device)
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        with self.autocast():
            predicted = self.network(noisy, timesteps).sample
        loss = F.mse_loss(predicted.float(), noise.float())
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.rate.step()
        self.optimizer.zero_grad()
        self.ema.step(self.network.parameters())
        loss.item()

    def sample(self, n: int, steps: int, solver: str = "DPMSolverMultistepScheduler") -> Tensor:
        """Samples by a scheduler of the package with its defaults; `solver` is its name, such as "DDIMScheduler"."""
        import diffusers

        scheduler = getattr(diffusers, solver).from_config(self.scheduler.config)
        scheduler.set_timesteps(steps, device=self.device)
        self.network.eval()
        self.ema.store(self.network.parameters())
        self.ema.copy_to(self.network.parameters())
        try:
            with torch.inference_mode(), self.autocast():
                x = torch.randn(n, self.channels, self.size, self.size, device=self.device)
                x = x * scheduler.init_noise_sigma
                for t in scheduler.timesteps:
                    predicted = self.network(scheduler.scale_model_input(x, t), t).sample
                    x = scheduler.step(predicted, t, x).prev_sample
        finally:
            self.ema.restore(self.network.parameters())
        return (x.float() / 2 + 0.5).clamp(0, 1)


PEERS: dict[str, type[Peer]] = {peer.package: peer for peer in (DenoisingDiffusion, Diffusers)}


def missing() -> list[str]:
    """Returns the names of the packages that are not installed."""
    return [peer.package for peer in PEERS.values() if not importlib.util.find_spec(peer.package.replace("-", "_"))]


def require() -> None:
    """Exits with the command that installs the packages, unless they are installed."""
    if absent := missing():
        sys.exit(f"{', '.join(absent)}: not installed; pip install -e '.[bench]' brings the packages to compare with")
