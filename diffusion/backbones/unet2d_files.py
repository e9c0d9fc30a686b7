"""Reads what diffusers writes of a `UNet2DModel`: the options of its config.json, and tensors under their old names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from torch import Tensor

from diffusion.backbones.unet2d import WIDEST, UNet2DConfig
from diffusion.errors import InputError, require

CLASS = "UNet2DModel"
# What diffusers takes for the options that a file does not name, where it is not what `UNet2DConfig` takes. Old files
# do not name those that came later.
DEFAULTS: dict[str, object] = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "attention_head_dim": 8,
}
# Options of networks that diffusers does not have, and all options of this package alone: the scheduler of a model
# tells the others.
BEYOND = ("attention_heads", "time_features")
OWN = ("time", "steps", *BEYOND)
# Attention was another module before 2023.
RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# The types of values, for messages.
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", NoneType: "null"}


@dataclass(frozen=True)
class FromDiffusers:
    """A network of diffusers: its options, its channels, and the height and width of its images if the file tells."""

    config: UNet2DConfig
    in_channels: int
    out_channels: int
    size: tuple[int, int] | None


def from_diffusers(file: Mapping[str, object], *, time: str = "index", steps: int = 1000) -> FromDiffusers:
    """Returns the network that the values of a config.json describe.

    Its scheduler is in another file, which tells the `time` that the network was trained on, and the number of `steps`
    (`UNet2DConfig`). What a file does not name has diffusers' own default.

    Raises InputError, which names the key, for another kind of model, for values that are not taken, and for keys that
    are not known, unless their values say that they are not used.
    """
    kind = file.get("_class_name", CLASS)
    require(kind == CLASS, "_class_name", f"{CLASS}, the one network of diffusers that is taken", kind)
    hints = {name: hint for name, hint in get_type_hints(UNet2DConfig).items() if name not in OWN}
    sizes = {"in_channels": int, "out_channels": int, "sample_size": int | tuple[int, ...] | None}
    for key, value in file.items():
        if not key.startswith("_") and key not in hints | sizes and value not in (None, False, "", [], {}):
            raise InputError(f"{key}: is not known, and may change what the network computes, got {value!r}")
    # In old files these two may be null, which is conv.
    named = {key: value for key, value in file.items() if value is not None or not key.endswith("sample_type")}
    given = {name: typed(named[name], hint, name) for name, hint in (hints | sizes).items() if name in named}
    side = given.pop("sample_size", None)
    size = (side, side) if isinstance(side, int) else side
    require(size is None or (len(size) == 2 and min(size) >= 1), "sample_size", "one or two positive numbers", side)
    channels = [given.pop(name, 3) for name in ("in_channels", "out_channels")]
    require(all(1 <= n <= WIDEST for n in channels), "in_channels, out_channels", f"1 to {WIDEST}", channels)
    for name in ("down_block_types", "up_block_types"):
        given[name] = tuple(kind.removeprefix("UNetRes") for kind in given.get(name, DEFAULTS[name]))
    config = UNet2DConfig(**{**DEFAULTS, **given, "time": time, "steps": steps})
    return FromDiffusers(config, channels[0], channels[1], size)


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of a state dict of diffusers, of any age, under the names that `UNet2D` has for them.

    Linear layers of attention that were stored as 1x1 convolutions lose their two axes of one pixel.
    """
    found = {}
    for name, value in tensors.items():
        *place, layer, kind = ["", *name.split(".")]
        if "attentions" in place:
            name = ".".join([*place[1:], RENAMED.get(layer, layer), kind])
            value = value.flatten(1) if value.shape[2:] == (1, 1) else value
        found[name] = value
    return found


def typed(value: Any, hint: Any, name: str) -> Any:  # noqa: ANN401, a value of JSON and an annotation
    """Returns a value of JSON as the type of an annotation. Raises InputError, which names it, for another one."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    for kind in kinds:
        if get_origin(kind) is tuple and isinstance(value, list | tuple):
            return tuple(typed(part, get_args(kind)[0], name) for part in value)
        if kind is float:
            # This refuses what is infinite or no number, too.
            if type(value) in (int, float) and abs(value) <= sys.float_info.max:
                return float(value)
        elif type(value) is kind:
            return value
    words = " or ".join(f"a list, each {WORDS[get_args(kind)[0]]}" if get_args(kind) else WORDS[kind] for kind in kinds)
    raise InputError(f"{name}: must be {words}, got {value!r}")
