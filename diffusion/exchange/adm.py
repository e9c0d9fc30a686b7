"""Models of guided-diffusion (Dhariwal and Nichol 2021, arXiv 2105.05233), also called ADM, from files of weights.

Such a file holds tensors alone. The flags that they were trained with come from a text or from a card (`adm_flags`),
and are compared with what the tensors show (`adm_layout`). The network is that of `UNet2DModel`, with other names and
the projections of attention in one layer. Its time is the index of a timestep, and it predicts the noise.

Where flags leave no trace in the tensors, a wrong one gives a model that draws noise: `num_head_channels`, `num_heads`,
`use_new_attention_order`, `noise_schedule`, `diffusion_steps` and `predict_xstart`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from diffusion.backbones import UNet2DConfig
from diffusion.checkpoint import file_hash
from diffusion.errors import InputError, require
from diffusion.exchange import pickled
from diffusion.exchange.adm_flags import Flags, chosen
from diffusion.exchange.adm_layout import Layout, layout_of, renamed
from diffusion.exchange.imported import Imported
from diffusion.exchange.schedulers import Process, process_of

GROUPS, EPS = 32, 1e-5
# The ends of beta for 1000 timesteps; others are scaled so that the process is as long.
STEPS, BETAS = 1000, (1e-4, 0.02)


def read(path: Path, *, flags: str = "", card: str = "", within: str | None = None) -> Imported:
    """Reads a model from a file of `torch.save`.

    `flags` are those of the scripts of guided-diffusion, `card` the name of a published model, which by default is that
    of the file (`adm_flags.chosen`). `within` names the dictionary of tensors in a file with several (`pickled.read`).

    Raises InputError for a file that cannot be read, and for flags that do not fit it.
    """
    meant, text = chosen(flags, card, path.stem)
    tensors = pickled.read(path, within)
    return convert(tensors, meant, str(path), {"files": {path.name: file_hash(path)}, "flags": text})


def convert(tensors: Mapping[str, Tensor], flags: Flags, where: str, origin: Mapping[str, object]) -> Imported:
    """Returns the model of tensors under the names of guided-diffusion. Raises InputError, which begins with `where`,
    as `read` does.
    """
    layout = layout_of(tensors, where)
    _compare(flags, layout, where)
    heads = _heads(flags, layout, where)
    return Imported(
        _network(flags, layout, heads),
        _process(flags, where),
        (layout.channels, flags.image_size, flags.image_size),
        layout.classes,
        renamed(tensors, layout, heads, new_order=flags.use_new_attention_order, where=where),
        origin,
    )


def _compare(flags: Flags, layout: Layout, where: str) -> None:
    """Raises InputError for the first flag that the tensors contradict, with a tensor that shows it."""
    inputs, outputs, width = layout.channels, layout.outputs, layout.features
    if inputs == 6 and outputs in (3, 6):
        raise InputError(f"{where}: is an upsampler of guided-diffusion, which is shown a smaller image beside its own")
    require(outputs in (inputs, 2 * inputs), f"{where}: out.2.weight", f"of {inputs} or {2 * inputs} rows", outputs)
    first = "input_blocks.1.0.emb_layers.1.weight"
    shown = {
        "num_channels": (width, "time_embed.0.weight"),
        "num_res_blocks": (layout.blocks, "output_blocks"),
        "class_cond": (layout.classes > 0, "label_emb.weight"),
        "learn_sigma": (outputs > inputs, "out.2.weight"),
        "use_scale_shift_norm": (layout.scale_shift, first),
        "resblock_updown": (layout.residual if len(layout.widths) > 1 else flags.resblock_updown, "input_blocks"),
    }
    for name, (right, tensor) in shown.items():
        given = getattr(flags, name)
        require(given == right, f"{where}: --{name}", f"{right}, as {tensor} shows", given)
    multiples = ",".join(f"{each / width:g}" for each in layout.widths)
    rule = f"{multiples}, as out_layers of input_blocks show"
    require(flags.widths == layout.widths, f"{where}: --channel_mult", rule, _listed(flags.multiples))
    sides = [flags.image_size >> level for level, attends in enumerate(layout.attending) if attends]
    rule = f"{_listed(sides)} with --image_size {flags.image_size}, as qkv of input_blocks show"
    fits, given = flags.attending == layout.attending, _listed(flags.attention_resolutions)
    require(fits, f"{where}: --attention_resolutions", rule, given)


def _listed(values: Iterable[float]) -> str:
    return ",".join(f"{value:g}" for value in values) or "none"


def _heads(flags: Flags, layout: Layout, where: str) -> dict[int, int]:
    """The number of heads for each width that attends; the middle block always does."""
    widths = {width for width, attends in zip(layout.widths, layout.attending, strict=True) if attends}
    head, count, up = flags.num_head_channels, flags.num_heads, flags.num_heads_upsample
    same = up in (-1, count) or head != -1
    require(same, f"{where}: --num_heads_upsample", "-1 or --num_heads, as no other network here has both", up)
    found = {}
    for width in sorted(widths | {layout.widths[-1]}):
        name, value = ("num_heads", count) if head == -1 else ("num_head_channels", head)
        require(width % value == 0, f"{where}: --{name}", f"a number that divides the width {width}", value)
        found[width] = count if head == -1 else width // head
    return found


def _network(flags: Flags, layout: Layout, heads: Mapping[int, int]) -> UNet2DConfig:
    """The network, with the options of `UNet2DModel` as far as it has them."""
    dims, numbers = {width // count for width, count in heads.items()}, {*heads.values()}
    # Where heads are as wide at all widths, or one at all of them, and the time has as many features as the first level
    # has channels, diffusers has the network too.
    single, even, usual = numbers == {1}, len(dims) == 1, layout.features == layout.widths[0]
    plain, resampling = ("Resnet{}sampleBlock2D", "resnet") if layout.residual else ("{}Block2D", "conv")
    kinds = ["Attn{}Block2D" if attends else plain for attends in layout.attending]
    return UNet2DConfig(
        block_out_channels=layout.widths,
        down_block_types=tuple(kind.format("Down") for kind in kinds),
        up_block_types=tuple(kind.format("Up") for kind in reversed(kinds)),
        layers_per_block=layout.blocks,
        attention_head_dim=dims.pop() if even and not single else None,
        attention_heads=None if even or single else numbers.pop(),
        norm_num_groups=GROUPS,
        norm_eps=EPS,
        attn_norm_num_groups=GROUPS,
        resnet_time_scale_shift="scale_shift" if layout.scale_shift else "default",
        dropout=flags.dropout,
        time_embedding_dim=None if usual else 4 * layout.features,
        time_features=None if usual else layout.features,
        downsample_type=resampling,
        upsample_type=resampling,
        num_class_embeds=layout.classes or None,
    )


def _process(flags: Flags, where: str) -> Process:
    """The forward process: the table of betas, and what the network predicts."""
    scale = STEPS / flags.diffusion_steps
    return process_of(
        {
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": flags.diffusion_steps,
            "beta_schedule": {"linear": "linear", "cosine": "squaredcos_cap_v2"}[flags.noise_schedule],
            "beta_start": scale * BETAS[0],
            "beta_end": scale * BETAS[1],
            "prediction_type": "sample" if flags.predict_xstart else "epsilon",
            "variance_type": "learned_range" if flags.learn_sigma else "fixed_small",
            "clip_sample": False,
        },
        f"{where}: --diffusion_steps {flags.diffusion_steps}",
    )
