"""A model in a folder of diffusers: where its parts lie, and what they hold. No code of a folder is run.

flat (google/ddpm-*)    pipeline (`save_pretrained`)        a network alone
model_index.json        model_index.json                    config.json
config.json             unet/config.json                    diffusion_pytorch_model.safetensors
diffusion_pytorch_...   unet/diffusion_pytorch_...          ../scheduler/scheduler_config.json
scheduler_config.json   scheduler/scheduler_config.json
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from diffusion.backbones.unet2d import UNet2DConfig
from diffusion.backbones.unet2d_files import FromDiffusers, from_diffusers, renamed
from diffusion.checkpoint import file_hash
from diffusion.data.spec import MAX_CHANNELS
from diffusion.errors import InputError
from diffusion.exchange import schedulers, weights
from diffusion.exchange.imported import Imported
from diffusion.exchange.schedulers import Process
from diffusion.exchange.settings import Settings

INDEX, CONFIG, NETWORK, SCHEDULER = "model_index.json", "config.json", "unet", "scheduler"
CLASS, LARGEST = "UNet2DModel", 1 << 14
# Networks and pipelines of other kinds, and why their models cannot be imported.
OLD = "is of a version before 0.1, whose weights have other names; save it again with a newer version of diffusers"
REFUSED = {
    "UNetModel": OLD,
    "UNetUnconditionalModel": OLD,
    "UNet2DConditionModel": "is told a text or another image, and takes part in nothing without it",
    "UNet1DModel": "is a network of sequences",
    "UNet2DConsistencyModel": "is a consistency model, which has no E[x|x_t]",
    "NCSNpp": "has FIR filters",
}
# Parts of a pipeline that a model of pixels does not have.
FOREIGN = {
    **dict.fromkeys(("vae", "vqvae", "vqgan", "movq"), "makes it a model of latents, not of pixels"),
    **dict.fromkeys(("text_encoder", "tokenizer", "bert", "prior"), "makes it a model that needs a text"),
    "mel": "makes it a model of spectrograms",
}


@dataclass(frozen=True)
class Parts:
    """Where the parts of a model lie: the folder of its network, and the file of its scheduler."""

    network: Path
    scheduler: Path


def holds_model(names: Collection[str]) -> bool:
    """Whether files of these names, with / between folders, are a folder of diffusers."""
    return bool({INDEX, f"{NETWORK}/{CONFIG}"} & {*names}) or (CONFIG in names and bool(weights.variants(names)))


def find(source: Path) -> Parts:
    """Finds the parts of a model. `source` is its folder, or a file in it such as config.json.

    Raises InputError, which names what is missing or of another kind.
    """
    folder = source.parent if source.is_file() else source
    if (folder / INDEX).is_file():
        _check_pipeline(Settings.read(folder / INDEX))
    network = folder / NETWORK if (folder / NETWORK / CONFIG).is_file() else folder
    if not (network / CONFIG).is_file():
        raise InputError(
            f"{source}: holds no model of diffusers: neither {NETWORK}/{CONFIG} nor {CONFIG} is there; name the folder "
            f"that holds {INDEX}, or a .pt file of guided-diffusion"
        )
    _check_network(Settings.read(network / CONFIG))
    places = (
        folder / SCHEDULER / schedulers.NAME,
        folder / schedulers.NAME,
        network.resolve().parent / SCHEDULER / schedulers.NAME,
    )
    for place in places:
        if place.is_file():
            return Parts(network, place)
    raise InputError(
        f"{source}: {schedulers.NAME} is missing, which says what the network learned; it lies in {SCHEDULER}/ beside "
        f"{NETWORK}/, or beside {CONFIG}"
    )


def read(source: Path, *, variant: str = "", size: tuple[int, int] | None = None) -> Imported:
    """Reads a model. `variant` is that of the weights, such as fp16; `size` (H, W) is that of the images where the
    configuration of the network says none.

    Raises InputError, which names the file, the key and its value, for a model that cannot be imported.
    """
    parts = find(source)
    process = schedulers.process_of(Settings.read(parts.scheduler).values, str(parts.scheduler))
    config = Settings.read(parts.network / CONFIG)
    network = config.checked(lambda: from_diffusers(config.values, time=process.time, steps=process.steps))
    classes = _classes(config, network.config)
    files = weights.find(parts.network, variant)
    tensors = renamed(weights.read(files))
    return Imported(
        network.config,
        process,
        _shape(config, network, process, size),
        classes,
        tensors,
        {"files": {path.name: file_hash(path) for path in (parts.network / CONFIG, parts.scheduler, *files)}},
        tuple(_precision(tensors, files[0].name)),
    )


def _shape(
    config: Settings, network: FromDiffusers, process: Process, size: tuple[int, int] | None
) -> tuple[int, int, int]:
    """The shape (C, H, W) of the images. Raises InputError for channels and sizes that belong to no model of images."""
    inputs, outputs = network.in_channels, network.out_channels
    expected = inputs * (2 if process.learned_variance else 1)
    if outputs != expected:
        why = f"in_channels = {inputs}" + (" and variance_type = learned_range" if process.learned_variance else "")
        hint = (
            "" if outputs != 2 * inputs else f"; if half of them are a variance, set variance_type in {schedulers.NAME}"
        )
        raise config.refused("out_channels", outputs, f"must be {expected} with {why}{hint}")
    if inputs > MAX_CHANNELS:
        raise config.refused("in_channels", inputs, f"must be at most {MAX_CHANNELS}")
    if network.size is not None and size is not None and network.size != size:
        raise config.refused("sample_size", network.size, "is the size of the images; leave out --size")
    height, width = network.size or size or (0, 0)
    if max(height, width) > LARGEST:
        raise config.refused("sample_size", (height, width), f"must be at most {LARGEST:,}")
    if not height:
        raise config.refused("sample_size", None, "says no size of images; give it by --size, as in --size 256")
    return inputs, height, width


def _classes(config: Settings, network: UNet2DConfig) -> int:
    """The number of labels of a network. Raises InputError where it takes labels that have no number."""
    if network.class_embed_type is not None:
        kind = network.class_embed_type
        raise config.refused("class_embed_type", kind, "cannot be imported, as it says nothing of the number of labels")
    return network.num_class_embeds or 0


def _precision(tensors: Mapping[str, Tensor], name: str) -> Iterator[str]:
    """What is said of weights that are stored in less than float32."""
    for dtype in sorted({value.dtype for value in tensors.values() if value.dtype.itemsize < 4}, key=str):
        yield f"{name}: has weights in {str(dtype).removeprefix('torch.')}, rounded from those that were trained"


def _check_pipeline(index: Settings) -> None:
    """Raises InputError for a pipeline with parts that a model of pixels does not have."""
    for name, why in FOREIGN.items():
        value = index.values.get(name)
        if value not in (None, [None, None]):
            raise index.refused(name, value, f"{why}; only models of pixels can be imported")


def _check_network(config: Settings) -> None:
    """Raises InputError for a network of another class."""
    name = config.text("_class_name", CLASS)
    if name != CLASS:
        why = REFUSED.get(name, "is another kind of network")
        raise config.refused("_class_name", name, f"cannot be imported: it {why}; {CLASS} can")
