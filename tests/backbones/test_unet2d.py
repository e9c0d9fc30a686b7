"""The network is that of diffusers: with the same options and weights it computes the same, to the last digits."""

from __future__ import annotations

import functools
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion.backbones import UNet2DConfig
from diffusion.backbones.unet2d_files import from_diffusers, renamed
from diffusion.backbones.unet2d_network import UNet2D
from diffusion.schedules import DiscreteBetas
from tests.backbones.conftest import images

# What is drawn for each pair of networks, a column for each of them: every value is there at least once.
PAIRS = 20
RENAMED = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
TIMES: dict[str, Callable[[Tensor], Tensor]] = {
    "edm": lambda log_snr: -log_snr / 8,
    "sigma": lambda log_snr: (-log_snr / 2).exp(),
    "flow": lambda log_snr: 1000 / (1 + (log_snr / 2).exp()),
}


@dataclass(frozen=True)
class Pair:
    """Two networks of the same weights, and the time of ours; `old` says how the weights were stored."""

    ours: UNet2D
    theirs: nn.Module
    options: dict[str, Any]
    time: str
    old: str

    def compare(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Returns the outputs for an image of this size, ours first, each where its own time comes from a log-SNR."""
        x = images(2, self.options["in_channels"], *size).double()
        timesteps = torch.tensor([3.25, 640.5], dtype=torch.float64)
        log_snr = torch.tensor([2.0, -5.5], dtype=torch.float64)
        if self.time == "index":
            if self.options["time_embedding_type"] == "learned":
                timesteps = torch.tensor([0.0, 11.0], dtype=torch.float64)
            low, high = (DiscreteBetas().table[index] for index in (timesteps.floor().long(), timesteps.ceil().long()))
            log_snr = low + (timesteps - timesteps.floor()) * (high - low)
        else:
            timesteps = TIMES[self.time](log_snr)
        if self.options["time_embedding_type"] == "learned":
            timesteps = timesteps.long()
        labels = self.labels()
        return self.ours(x, log_snr, labels), self.theirs(x, timesteps, labels).sample

    def labels(self) -> Tensor | None:
        kind, width = self.options["class_embed_type"], self.ours.time_embedding.linear_2.out_features
        if kind == "identity":
            return images(2, width, seed=3).double()
        return torch.tensor([0, 4]) if kind or self.options["num_class_embeds"] else None


def options_of(seed: int) -> tuple[dict[str, Any], str, str]:
    """Options of a small network of diffusers, the time that it is told, and the age of its file."""
    draw = random.Random(seed)

    def turn(*values: Any) -> Any:  # noqa: ANN401, each of the values in its turn
        return values[seed % len(values)]

    levels = turn(2, 3, 1, 2)
    head = turn(None, 8, 64, 6, 8)
    down, up = [], []
    for _ in range(levels):
        down.append(draw.choice(["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"]))
        up.append(draw.choice(["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"]))
    widths = [64 if head == 64 else draw.choice([8, 12, 16]) for _ in range(levels)]
    embedding = turn("positional", "positional", "fourier", "positional", "positional", "learned", "positional")
    time = {"fourier": turn("flow", "sigma"), "learned": "index"}.get(embedding, turn("index", "edm", "index", "flow"))
    kind = None if embedding == "fourier" else turn(None, None, "timestep", None, "identity", None)
    channels = draw.choice([1, 3])
    options = {
        "in_channels": channels,
        "out_channels": turn(1, 2) * channels,
        "block_out_channels": tuple(widths),
        "down_block_types": tuple(down),
        "up_block_types": tuple(up),
        "layers_per_block": draw.choice([1, 2]),
        "mid_block_type": None if seed % 7 == 5 else "UNetMidBlock2D",
        "mid_block_scale_factor": turn(1, math.sqrt(2), 1),
        "add_attention": seed % 5 != 3,
        "attention_head_dim": head,
        "norm_num_groups": turn(4, 2),
        "attn_norm_num_groups": turn(None, 1, None),
        "norm_eps": turn(1e-5, 1e-6),
        "act_fn": turn("silu", "silu", "mish", "silu", "gelu", "relu", "swish"),
        "resnet_time_scale_shift": turn("default", "default", "scale_shift", "default", "scale_shift"),
        "downsample_padding": turn(1, 0, 0),
        "downsample_type": turn("conv", "resnet"),
        "upsample_type": turn("conv", "conv", "resnet"),
        "center_input_sample": seed % 4 == 1,
        "time_embedding_type": embedding,
        "time_embedding_dim": turn(None, None, 20),
        "freq_shift": turn(0, 1, 1, 0, 1),
        "flip_sin_to_cos": turn(True, False, False),
        "num_train_timesteps": 12 if embedding == "learned" else None,
        "class_embed_type": kind,
        "num_class_embeds": 5 if kind is None and seed % 3 == 1 else None,
    }
    return options, time, turn("new", "old", "new", "1x1")


@functools.cache
def pair(seed: int) -> Pair:
    from diffusers.models.unets.unet_2d import UNet2DModel

    options, time, age = options_of(seed)
    torch.manual_seed(seed)
    theirs = UNet2DModel(**options).double().eval()
    for name, parameter in theirs.named_parameters():
        if name != "time_proj.weight":
            nn.init.normal_(parameter, mean=float("norm" in name), std=0.2)
    # Diffusers computes the features of labels in float32 whatever its weights are, and then takes no product of both.
    theirs.time_proj.register_forward_hook(lambda module, inputs, output: output.double())
    file = {"_class_name": "UNet2DModel", "_diffusers_version": "0.36.0", "sample_size": 8, **options}
    found = from_diffusers(file, time=time)
    assert found.size == (8, 8)
    classes = 5 if options["num_class_embeds"] or options["class_embed_type"] == "timestep" else 0
    ours = found.config.build(found.in_channels, found.out_channels, classes).double().eval()
    tensors = {
        functools.reduce(lambda old, new: old.replace(*new), RENAMED.items() if age != "new" else (), name): (
            value[..., None, None] if age == "1x1" and re.search(r"attentions\..*to_.*weight", name) else value
        )
        for name, value in theirs.state_dict().items()
    }
    ours.load_state_dict(renamed(tensors))
    return Pair(ours, theirs, options, time, age)


def test_the_pairs_have_all_that_is_claimed() -> None:
    drawn = [options_of(seed) for seed in range(PAIRS)]
    assert len({str(each) for each in drawn}) == PAIRS >= 16
    found: dict[str, set[Any]] = {"time": {time for _, time, _ in drawn}, "age": {age for _, _, age in drawn}}
    for options, _, _ in drawn:
        for name, value in options.items():
            found.setdefault(name, set()).update(value if isinstance(value, tuple) else [value])
        found.setdefault("learned range", set()).add(options["out_channels"] == 2 * options["in_channels"])
        found.setdefault("levels", set()).add(len(options["block_out_channels"]))
    for name, values in {
        "time": {"index", "edm", "flow", "sigma"},
        "age": {"new", "old", "1x1"},
        "attention_head_dim": {None, 8, 64, 6},
        "downsample_padding": {0, 1},
        "flip_sin_to_cos": {False, True},
        "freq_shift": {0, 1},
        "resnet_time_scale_shift": {"default", "scale_shift"},
        "down_block_types": {"DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"},
        "up_block_types": {"UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"},
        "downsample_type": {"conv", "resnet"},
        "upsample_type": {"conv", "resnet"},
        "time_embedding_type": {"positional", "fourier", "learned"},
        "class_embed_type": {None, "timestep", "identity"},
        "num_class_embeds": {None, 5},
        "add_attention": {False, True},
        "mid_block_type": {None, "UNetMidBlock2D"},
        "attn_norm_num_groups": {None, 1},
        "act_fn": {"silu", "swish", "mish", "gelu", "relu"},
        "center_input_sample": {False, True},
        "time_embedding_dim": {None, 20},
        "learned range": {False, True},
        "levels": {1, 2, 3},
    }.items():
        assert found[name] == values, name


@pytest.mark.parametrize("seed", range(PAIRS))
def test_outputs_are_those_of_diffusers(seed: int) -> None:
    """Also of an image whose sides are no powers of two, and of one large enough for all ways of computing."""
    networks = pair(seed)
    unit = networks.ours.multiple
    with torch.no_grad():
        for size in ((3 * unit, 5 * unit), (16, 24)) if unit > 1 else ((7, 5), (33, 32)):
            ours, theirs = networks.compare(size)
            error = (ours - theirs).abs().max() / theirs.abs().max()
            assert ours.shape == theirs.shape and theirs.std() > 1e-3 and error < 1e-12


@pytest.mark.parametrize("seed", [0, 1, 2, 6])
def test_gradients_are_those_of_diffusers(seed: int) -> None:
    networks = pair(seed)
    networks.ours.zero_grad()
    networks.theirs.zero_grad()
    ours, theirs = networks.compare((16, 24))
    weights = images(*ours.shape, seed=7).double()
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    expected = dict(networks.theirs.named_parameters())
    largest = max(float(p.grad.abs().max()) for p in expected.values() if p.grad is not None)
    for name, parameter in networks.ours.named_parameters():
        true = expected[name].grad
        assert parameter.grad is not None and true is not None
        assert (parameter.grad - true).abs().max() < 1e-11 * max(float(true.abs().max()), 1e-3 * largest), name


@pytest.mark.parametrize("seed", [1, 4])
def test_an_image_that_diffusers_refuses_is_as_if_its_border_were_repeated(seed: int) -> None:
    networks = pair(seed)
    unit = networks.ours.multiple
    assert unit in (2, 4)
    x, log_snr = images(2, networks.options["in_channels"], 7, 9).double(), torch.tensor([1.0, -3.0]).double()
    whole = torch.nn.functional.pad(x, (0, -9 % unit, 0, -7 % unit), mode="replicate")
    with torch.no_grad():
        found, expected = (networks.ours(each, log_snr, networks.labels()) for each in (x, whole))
        with pytest.raises(RuntimeError):
            networks.theirs(x, torch.tensor([1.0, 2.0]), networks.labels())
    assert found.shape[-2:] == (7, 9) and torch.equal(found, expected[..., :7, :9])


def test_the_names_of_tensors_are_those_of_diffusers() -> None:
    for seed in range(PAIRS):
        networks = pair(seed)
        ours, theirs = (network.state_dict() for network in (networks.ours, networks.theirs))
        table = ours.pop("clock.log_snrs", None)
        assert (table is not None) == (networks.time == "index")
        assert {name: value.shape for name, value in ours.items()} == {n: v.shape for n, v in theirs.items()}


def test_a_state_dict_of_diffusers_leaves_the_table_and_ours_brings_its_own() -> None:
    networks = pair(0)
    assert networks.time == "index"
    own, other = networks.ours.state_dict(), networks.theirs.state_dict()
    channels = (networks.options[name] for name in ("in_channels", "out_channels"))
    network = from_diffusers(networks.options).config.build(*channels)
    network.load_state_dict(own | {"clock.log_snrs": torch.linspace(5, -5, 1000)})
    network.load_state_dict(other)
    assert network.clock.log_snrs[0] == 5
    with pytest.raises(RuntimeError, match="Missing key"):
        network.load_state_dict({name: value for name, value in other.items() if name != "conv_in.weight"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_out_channels": ()}, "block_out_channels: must be 1 to 12 widths of 2 to 16384, got ()"),
        ({"block_out_channels": (64, 128)}, "down_block_types: must be 2 kinds, as block_out_channels has, got"),
        (
            {"down_block_types": ("DownBlock2D", "DownBlock2D", "AttnSkipDownBlock2D")},
            "got 'AttnSkipDownBlock2D', which needs FIR filters, as NCSN++ has them",
        ),
        (
            {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D")},
            "up_block_types: must be one of UpBlock2D, AttnUpBlock2D, ResnetUpsampleBlock2D, got 'CrossAttnUpBlock2D', "
            "which needs something to attend to",
        ),
        ({"down_block_types": ("UpBlock2D",) * 3}, "down_block_types: must be one of DownBlock2D"),
        ({"mid_block_type": "UNetMidBlock2DCrossAttn"}, "mid_block_type: must be one of UNetMidBlock2D, got"),
        ({"layers_per_block": 0}, "layers_per_block: must be 1 to 64, got 0"),
        ({"norm_num_groups": 48}, "norm_num_groups: must be a number that divides all of (64, 128, 256), got 48"),
        ({"attn_norm_num_groups": 7}, "attn_norm_num_groups: must be a number that divides 256, got 7"),
        ({"attention_head_dim": 257}, "attention_head_dim: must be at most the least width that attends, 256, got 257"),
        ({"attention_head_dim": 0}, "attention_head_dim: must be at least 1, got 0"),
        ({"attention_heads": 2}, "attention_head_dim: must be none with attention_heads, got 64"),
        ({"attention_heads": 0, "attention_head_dim": None}, "attention_heads: must be at least 1, got 0"),
        (
            {"attention_heads": 3, "attention_head_dim": None},
            "attention_heads: must be a number that divides all widths",
        ),
        ({"time_features": 1}, "time_features: must be 2 to 16384, got 1"),
        ({"norm_eps": 0.0}, "norm_eps: must be a positive number, got 0.0"),
        ({"act_fn": "elu"}, "act_fn: must be one of silu, swish, mish, gelu, relu, got 'elu'"),
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift: must be one of default, scale_shift, got"),
        ({"downsample_padding": 2}, "downsample_padding: must be 0 or 1, got 2"),
        ({"downsample_type": "fir"}, "downsample_type: must be one of conv, resnet, got 'fir'"),
        ({"upsample_type": "fir"}, "upsample_type: must be one of conv, resnet, got 'fir'"),
        ({"mid_block_scale_factor": 0.0}, "mid_block_scale_factor: must be positive, got 0.0"),
        ({"dropout": 1.0}, "dropout: must be in [0, 1), got 1.0"),
        ({"time_embedding_dim": 0}, "time_embedding_dim: must be 1 to 16384, got 0"),
        ({"num_class_embeds": 0}, "num_class_embeds: must be 1 to 1,048,576, got 0"),
        ({"class_embed_type": "projection"}, "class_embed_type: must be one of timestep, identity, got 'projection'"),
        (
            {"class_embed_type": "timestep", "time_embedding_type": "fourier", "time": "flow"},
            "class_embed_type: must be unset or identity with time_embedding_type = fourier",
        ),
        ({"time": "step"}, "time: must be one of index, edm, flow, sigma, got 'step'"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        UNet2DConfig(**options)


@pytest.mark.parametrize(
    ("options", "classes", "message"),
    [
        ({"num_class_embeds": 4}, 5, "backbone.num_class_embeds: must be 5 or 6, the classes of the data without or"),
        ({"num_class_embeds": 7}, 5, "backbone.num_class_embeds: must be 5 or 6"),
        ({"class_embed_type": "identity"}, 5, "backbone.class_embed_type: must be unset for data with labels"),
    ],
)
def test_numbers_of_classes_that_do_not_fit_are_named(options: dict[str, Any], classes: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        UNet2DConfig(**options).build(3, 3, classes)
