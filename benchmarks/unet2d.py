"""The network of diffusers in this package beside diffusers' own, with the same weights, on the CPU of this machine.

    python -m benchmarks.unet2d [--models cifar10 adm] [--batch 8] [--rounds 9] [--out FILE] [--check]

A training step here is a forward pass and a backward pass, without an optimizer, of which each package may have any; an
evaluation is a forward pass without gradients. Both networks compute in float32, and in bf16 under autocast where the
machine multiplies in it, and each in two layouts of memory: channels last, in which this package trains, and as made.
They take turns in one process, which keeps the memory that it frees (`memory.tune_malloc`), as training here does. The
goal is for ours in channels last against the faster of diffusers' two layouts, by the pairs of calls of a round. Before
that both evaluate the same images in float64.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import common
from benchmarks.common import Contestant, Goal, Rows, Timing, alternate
from benchmarks.training import DTYPES, precisions
from diffusion.backbones.unet2d_files import CLASS, from_diffusers
from diffusion.backbones.unet2d_network import UNet2D
from diffusion.memory import tune_malloc
from diffusion.precision import Precision

LAYOUTS = {"channels last": torch.channels_last, "as made": torch.contiguous_format}
OURS, THEIRS = "diffusion", "diffusers"
GOAL = 1.0
# The most that the outputs may differ, as a share of the largest.
AGREEMENT = 1e-12


@dataclass(frozen=True)
class Setting:
    """A network by its options in config.json, and the side of its images."""

    name: str
    size: int
    options: tuple[tuple[str, Any], ...]


SETTINGS = {
    "cifar10": Setting(
        "cifar10",  # google/ddpm-cifar10-32
        32,
        (
            ("block_out_channels", (128, 256, 256, 256)),
            ("down_block_types", ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D")),
            ("up_block_types", ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D")),
            ("attention_head_dim", None),
            ("downsample_padding", 0),
            ("norm_eps", 1e-6),
            ("freq_shift", 1),
            ("flip_sin_to_cos", False),
        ),
    ),
    "adm": Setting(
        "adm",  # The blocks of guided-diffusion at a width that a CPU trains.
        64,
        (
            ("block_out_channels", (64, 128, 192, 256)),
            ("down_block_types", ("ResnetDownsampleBlock2D",) * 2 + ("AttnDownBlock2D",) * 2),
            ("up_block_types", ("AttnUpBlock2D",) * 2 + ("ResnetUpsampleBlock2D",) * 2),
            ("downsample_type", "resnet"),
            ("upsample_type", "resnet"),
            ("attention_head_dim", 64),
            ("attn_norm_num_groups", 32),
            ("resnet_time_scale_shift", "scale_shift"),
            ("out_channels", 6),
        ),
    ),
    "tiny": Setting(
        "tiny",  # To see that the benchmark works.
        8,
        (
            ("block_out_channels", (8, 16)),
            ("down_block_types", ("DownBlock2D", "AttnDownBlock2D")),
            ("up_block_types", ("AttnUpBlock2D", "UpBlock2D")),
            ("norm_num_groups", 4),
        ),
    ),
}


def both(setting: Setting) -> tuple[UNet2D, Any]:
    """Returns our network and diffusers' with the same random weights."""
    from diffusers.models.unets import unet_2d

    torch.manual_seed(0)
    theirs: Any = getattr(unet_2d, CLASS)(sample_size=setting.size, **dict(setting.options))
    found = from_diffusers(theirs.config)
    ours = found.config.build(found.in_channels, found.out_channels)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def inputs(setting: Setting, batch: int) -> tuple[Tensor, Tensor]:
    """Returns images and the numbers of their timesteps."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 3, setting.size, setting.size, generator=generator)
    return x, torch.randint(0, 1000, (batch,), generator=generator)


def difference(setting: Setting) -> float:
    """Returns how far the outputs of both networks differ in float64, as a share of the largest value."""
    ours, theirs = both(setting)
    x, steps = inputs(setting, 2)
    with torch.no_grad():
        found = ours.double().eval()(x.double(), ours.clock.log_snrs[steps])
        expected = theirs.double().eval()(x.double(), steps).sample
    return float((found - expected).abs().max() / expected.abs().max())


def calls(setting: Setting, layout: str, batch: int) -> dict[str, Callable[[Precision, bool], None]]:
    """Returns by package what evaluates its network in a layout, in a precision, and differentiates it in training."""
    ours, theirs = both(setting)
    x, steps = inputs(setting, batch)
    x, log_snr = x.contiguous(memory_format=LAYOUTS[layout]), ours.clock.log_snrs[steps].float()

    def call(package: str, precision: Precision, training: bool) -> None:
        network: nn.Module = ours if package == OURS else theirs
        network.train(training).zero_grad(set_to_none=True)
        with torch.autocast("cpu", DTYPES[precision], enabled=precision != "fp32"), torch.set_grad_enabled(training):
            output = ours(x, log_snr) if package == OURS else theirs(x, steps).sample
        if training:
            output.float().square().mean().backward()

    for network in (ours, theirs):
        network.to(memory_format=LAYOUTS[layout])
    return {package: partial(call, package) for package in (OURS, THEIRS)}


def measure(setting: Setting, batch: int, rounds: int, kinds: Sequence[Precision]) -> tuple[Rows, list[Goal]]:
    """Returns the table and the goals of one network."""
    rows: Rows = []
    goals = [Goal(f"{setting.name}: difference of outputs in float64", difference(setting), AGREEMENT, "at most")]
    made = {layout: calls(setting, layout, batch) for layout in LAYOUTS}
    for precision, training in product(kinds, (True, False)):
        contestants = {
            f"{package}, {layout}": Contestant(partial(made[layout][package], precision, training), batch)
            for package, layout in product((OURS, THEIRS), LAYOUTS)
        }
        timings = alternate(contestants, rounds=rounds, warmup=2)
        done = "forward and backward" if training else "forward"
        rows += table(timings, precision, done)
        ratio = timings[f"{OURS}, channels last"].over(best(timings)).median
        goals.append(Goal(f"{setting.name}, {precision}, {done}: images/s against diffusers", ratio, GOAL))
    return rows, goals


def best(timings: Mapping[str, Timing]) -> Timing:
    """Returns the timing of diffusers in the layout in which it is faster."""
    return max((timings[f"{THEIRS}, {layout}"] for layout in LAYOUTS), key=lambda timing: timing.rate().median)


def table(timings: Mapping[str, Timing], precision: str, done: str) -> Rows:
    """Returns a row for each contestant; those of ours have their ratios against diffusers."""
    rows: Rows = []
    for package, layout in product((OURS, THEIRS), LAYOUTS):
        timing = timings[f"{package}, {layout}"]
        row: dict[str, object] = {"network": package, "layout": layout, "precision": precision, "pass": done}
        row["images/s"] = timing.rate()
        if package == OURS:
            row["times diffusers in this layout"] = timing.over(timings[f"{THEIRS}, {layout}"])
            row["times diffusers in its better one"] = timing.over(best(timings))
        rows.append(row)
    return rows


def main() -> None:
    options = common.parser(__doc__, "unet2d")
    options.add_argument("--models", nargs="+", choices=SETTINGS, default=["cifar10", "adm"])
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--rounds", type=int, default=9)
    chosen = options.parse_args()
    if importlib.util.find_spec("diffusers") is None:
        sys.exit("diffusers: not installed; pip install -e '.[bench]' brings the packages to compare with")
    tune_malloc()
    measured: dict[str, Rows] = {}
    reached: list[Goal] = []
    for name in chosen.models:
        print(f"measuring {name}", flush=True)
        rows, goals = measure(SETTINGS[name], chosen.batch, chosen.rounds, precisions())
        measured[f"{name}, {SETTINGS[name].size}x{SETTINGS[name].size}, batch {chosen.batch}"] = rows
        reached += goals
    common.finish(reached, measured, chosen.out, check=chosen.check)


if __name__ == "__main__":
    main()
