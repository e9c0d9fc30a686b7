"""The flags of guided-diffusion, which its files of weights do not hold, and the published ones of its models.

A file of guided-diffusion (Dhariwal and Nichol 2021, arXiv 2105.05233) is a state dict alone. What network it is of,
and of what forward process, is on the command line of its scripts, such as

    --attention_resolutions 32,16,8 --image_size 256 --learn_sigma True --num_channels 256 --num_head_channels 64
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields

from diffusion.errors import InputError, nearest, require, require_one

TRUE, FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")
# Flags of the scripts that say how a model is trained or sampled, and nothing about what it is.
UNUSED = {
    *("anneal_lr", "batch_size", "base_samples", "clip_denoised", "data_dir", "ema_rate", "fp16_scale_growth"),
    *("log_interval", "lr", "lr_anneal_steps", "microbatch", "model_path", "num_samples", "rescale_learned_sigmas"),
    *("resume_checkpoint", "save_dir", "save_interval", "schedule_sampler", "timestep_respacing", "use_checkpoint"),
    *("use_ddim", "use_fp16", "use_kl", "weight_decay"),
}
# The multiples of the width that the scripts take for images of a size.
MULTIPLES: Mapping[int, tuple[float, ...]] = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
}
LARGEST = 1 << 16


@dataclass(frozen=True)
class Flags:
    """The flags that say what a model is, under their names, with the defaults of the scripts.

    `attention_resolutions` are sides of feature maps. An empty `channel_mult` stands for that of `image_size`. With
    `num_head_channels` = -1 the number of heads is `num_heads` at all widths, in the decoder `num_heads_upsample`,
    where -1 stands for the same.
    """

    image_size: int = 64
    num_channels: int = 128
    num_res_blocks: int = 2
    num_heads: int = 4
    num_heads_upsample: int = -1
    num_head_channels: int = -1
    attention_resolutions: tuple[int, ...] = (16, 8)
    channel_mult: tuple[float, ...] = ()
    dropout: float = 0.0
    class_cond: bool = False
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    learn_sigma: bool = False
    diffusion_steps: int = 1000
    noise_schedule: str = "linear"
    predict_xstart: bool = False
    rescale_timesteps: bool = False

    def __post_init__(self) -> None:
        for name, least in (("image_size", 1), ("num_channels", 2), ("num_res_blocks", 1), ("num_heads", 1)):
            value = getattr(self, name)
            require(least <= value <= LARGEST, f"--{name}", f"a number from {least} to {LARGEST:,}", value)
        for name in ("num_heads_upsample", "num_head_channels"):
            value = getattr(self, name)
            require(value == -1 or 1 <= value <= LARGEST, f"--{name}", "-1 or at least 1", value)
        sides = self.attention_resolutions
        require(all(side >= 1 for side in sides), "--attention_resolutions", "sides of at least 1", sides)
        require(2 <= self.diffusion_steps <= 1 << 20, "--diffusion_steps", "from 2 to 1,048,576", self.diffusion_steps)
        require(0 <= self.dropout < 1, "--dropout", "in [0, 1)", self.dropout)
        require_one(self.noise_schedule, "--noise_schedule", ("linear", "cosine"))
        known = ", ".join(map(str, MULTIPLES))
        require(self.multiples, "--channel_mult", f"given for an --image_size other than {known}", self.image_size)
        fits = all(0 < multiple <= LARGEST for multiple in self.multiples) and min(self.widths) >= 1
        require(fits, "--channel_mult", "multiples that give widths", self.multiples)
        whole = not self.rescale_timesteps or self.diffusion_steps == 1000
        rule = "1000 with --rescale_timesteps True, as times between whole ones are not read"
        require(whole, "--diffusion_steps", rule, self.diffusion_steps)

    @property
    def multiples(self) -> tuple[float, ...]:
        """The widths of the levels in units of `num_channels`, empty where none are known."""
        return self.channel_mult or MULTIPLES.get(self.image_size, ())

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of the levels."""
        return tuple(int(multiple * self.num_channels) for multiple in self.multiples)

    @property
    def attending(self) -> tuple[bool, ...]:
        """Whether each level has attention."""
        shares = {self.image_size // side for side in self.attention_resolutions}
        return tuple(2**level in shares for level in range(len(self.multiples)))


@dataclass(frozen=True)
class Card:
    """The published flags of a model, and where they are published."""

    flags: str
    source: str


def parse(text: str) -> Flags:
    """Reads flags as they are written for the scripts of guided-diffusion. Those of training, sampling and classifiers
    say nothing of what a model is, and are passed over.

    Raises InputError, which names the flag, for one that is not known, has no value, or one that it cannot have.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"--flags: {text!r} cannot be read ({error})") from None
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    kinds = {field.name: type(field.default) for field in fields(Flags)}
    given: dict[str, object] = {}
    for position, name in enumerate(words[::2]):
        key, values = name.removeprefix("--"), words[2 * position + 1 :]
        if not name.startswith("--") or not (key in kinds or key in UNUSED or key.startswith("classifier_")):
            raise InputError(f"--flags: {name!r} is no flag of guided-diffusion{nearest(key, kinds)}")
        fits = bool(values) and not values[0].startswith("--")
        require(fits, f"--flags: {name}", "followed by its value", repr(values[0]) if values else "none")
        if key in kinds:
            given[key] = _value(name, kinds[key], values[0])
    return Flags(**given)  # type: ignore[arg-type]


def _value(name: str, kind: type, value: str) -> object:
    """The value of a flag, as a number, True or False, a text, or numbers with commas between them."""
    rules = {int: "a whole number", float: "a number", bool: "True or False", tuple: "numbers with commas between them"}
    try:
        if kind is bool:
            return {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}[value.lower()]
        if kind is tuple:
            number = float if name == "--channel_mult" else int
            return tuple(number(part) for part in value.split(",") if value)
        return kind(value)
    except (ValueError, KeyError):
        raise InputError(f"--flags: {name}: must be {rules[kind]}, got {value!r}") from None


def chosen(flags: str, card: str, stem: str) -> tuple[Flags, str]:
    """Returns the flags that are meant, and where they come from: those in a text, or else of a card by its name, or
    else of the card with the name `stem` of the file.

    Raises InputError, which lists the cards, where there is none.
    """
    require(not (flags and card), "--card", "left out where --flags are given", card)
    if flags:
        return parse(flags), flags
    name = card or stem
    if name not in CARDS:
        if card:
            require_one(card, "--card", CARDS)
        raise InputError(
            "--flags: must be given for a file of guided-diffusion, which does not hold the flags that it was trained "
            f"with (--flags '--image_size 256 ...'), or a published model by --card: {', '.join(CARDS)}"
        )
    return parse(CARDS[name].flags), f"{CARDS[name].flags} ({CARDS[name].source})"


README = "README.md of openai/guided-diffusion, commit 27c20a8"
# What most models of 256 pixels share.
_LARGE = (
    "--attention_resolutions 32,16,8 --diffusion_steps 1000 --learn_sigma True --noise_schedule linear "
    "--num_channels 256 --num_res_blocks 2 --resblock_updown True --use_scale_shift_norm True"
)
REPAINT = "confs of andreas128/RePaint, commit 0fea066"
_LSUN = Card(f"{_LARGE} --class_cond False --dropout 0.1 --image_size 256 --num_head_channels 64", README)
CARDS: Mapping[str, Card] = {
    "256x256_diffusion_uncond": Card(f"{_LARGE} --class_cond False --image_size 256 --num_head_channels 64", README),
    "256x256_diffusion": Card(f"{_LARGE} --class_cond True --image_size 256 --num_head_channels 64", README),
    "64x64_diffusion": Card(
        "--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --dropout 0.1 --image_size 64 "
        "--learn_sigma True --noise_schedule cosine --num_channels 192 --num_head_channels 64 --num_res_blocks 3 "
        "--resblock_updown True --use_new_attention_order True --use_scale_shift_norm True",
        README,
    ),
    "128x128_diffusion": Card(f"{_LARGE} --class_cond True --image_size 128 --num_heads 4", README),
    "512x512_diffusion": Card(f"{_LARGE} --class_cond True --image_size 512 --num_head_channels 64", README),
    "lsun_bedroom": _LSUN,
    "lsun_cat": _LSUN,
    "lsun_horse": _LSUN,
    "lsun_horse_nodropout": Card(_LSUN.flags.replace("--dropout 0.1", "--dropout 0.0"), README),
    "celeba256_250000": Card(f"{_LARGE} --class_cond False --image_size 256 --num_head_channels 64", REPAINT),
    "places256_300000": Card(f"{_LARGE} --class_cond False --image_size 256 --num_head_channels 64", REPAINT),
    "ffhq_10m": Card(
        "--attention_resolutions 16 --class_cond False --dropout 0.0 --image_size 256 --learn_sigma True "
        "--num_channels 128 --num_heads 4 --num_head_channels 64 --num_res_blocks 1 --resblock_updown True "
        "--use_scale_shift_norm True --use_new_attention_order False --diffusion_steps 1000 --noise_schedule linear",
        "configs/model_config.yaml and diffusion_config.yaml of DPS2022/diffusion-posterior-sampling, commit 4962d6e",
    ),
}
