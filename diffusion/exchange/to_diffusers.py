"""A model as a folder of diffusers, which its pipelines load without code of this package: the inverse of `import`.

    model_index.json                            DDPMPipeline, of a UNet2DModel and a DDPMScheduler
    unet/config.json                            the options of the network
    unet/diffusion_pytorch_model.safetensors    the averaged weights, in float32
    scheduler/scheduler_config.json             the table of betas, and what the network predicts

Only what is exact is written. The network is `unet2d`, and its data are [-1, 1]. Other units could not be absorbed by
the first layer: with x = a x' + b the input of the network is r x'_t + α b, where r runs from a, for clean images, to
1, for noise. The forward process of training has no part in the folder. A network is told the log-SNR, and sees x_t
where α² + σ² = 1, as diffusers shows it, so that its own table of log-SNRs gives the betas.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from diffusion.backbones import UNet2DConfig
from diffusion.backbones.unet2d_files import BEYOND, CLASS, OWN
from diffusion.backbones.unet2d_network import UNet2D
from diffusion.data import DataSpec
from diffusion.errors import InputError, require
from diffusion.exchange import folder as layout
from diffusion.exchange import schedulers, weights
from diffusion.exchange.scheduler_of import Scheduler, scheduler_of
from diffusion.files import new_folder, write_text
from diffusion.model import Model

# The version of diffusers whose names and meanings the files have.
VERSION = "0.36.0"
PIPELINE = "DDPMPipeline"
TABLE = "clock.log_snrs"
OUTPUT = ("conv_out.weight", "conv_out.bias")


def write(model: Model, folder: Path, *, label: str | None = None) -> list[str]:
    """Writes a model into a new folder, which is whole or not there; returns lines about what was left out or changed.

    With a `label`, a class by name or number, or -1 for none, the model becomes that of this class alone. Raises
    InputError for what diffusers cannot express, and where something lies at `folder`.
    """
    network = _network(model)
    options, tensors = _options(model, network), _tensors(network)
    lines: list[str] = []
    if label is not None:
        _bake(model, network, label, options, tensors)
    elif network.class_embedding is not None:
        lines.append(_about_labels(model.spec, network))
    scheduler = scheduler_of(model, network.clock)
    lines += scheduler.lines
    if scheduler.negated:
        tensors |= {name: -tensors[name] for name in OUTPUT}
    if model.config.model.learned_variance and not model.denoiser.linear_variance:
        tensors |= {name: tensors[name][: network.in_channels].clone() for name in OUTPUT}
        options["out_channels"] = network.in_channels
        lines.append(
            "model.learned_variance: is left out, as that of diffusers is linear in the output of the network: its "
            "DDPM takes the smaller of the two fixed variances"
        )
    if model.config.sampling.guidance != 1:
        lines.append(f"sampling.guidance: {model.config.sampling.guidance:g} is left out, as no pipeline here guides")
    with new_folder(folder) as temporary:
        _write_files(temporary, options, tensors, scheduler)
    return lines


def _network(model: Model) -> UNet2D:
    """The network of a model that diffusers can express. Raises InputError for any other."""
    experiment, spec, network = model.config, model.spec, model.denoiser.backbone
    if not isinstance(network, UNet2D):
        raise InputError(
            f"backbone.name: must be unet2d for --to diffusers, whose network that is, got {type(network).__name__}; "
            "--to onnx takes any network, and so does diffusion publish"
        )
    if experiment.mapped:
        key, value = ("data.masks", experiment.data.masks) if experiment.data.masks else ("observed.share", "above 0")
        raise InputError(f"{key}: must be unset for --to diffusers, whose network takes one noise level, got {value}")
    require(
        not experiment.conditioned,
        "condition.operator, data.condition",
        "unset for --to diffusers, whose network is told nothing beside the image",
        experiment.condition.operator or experiment.data.condition,
    )
    rule = "unset for --to diffusers, as a student samples on its own grid alone; export its teacher"
    require(not model.teacher, "distillation.teacher", rule, model.teacher)
    middle = spec.top / 2
    rule = (
        f"{middle:g} and {middle:g} for --to diffusers, whose images are [-1, 1], as no other units can be absorbed; a "
        "new run has these with data.centered = true"
    )
    require(spec.mean == spec.std == middle, "mean, std of the data", rule, f"{spec.mean:g} and {spec.std:g}")
    fits = not any(side % network.multiple for side in spec.shape[1:])
    require(fits, "data.size", f"a multiple of {network.multiple} for --to diffusers", spec.shape[1:])
    return network


def _options(model: Model, network: UNet2D) -> dict[str, Any]:
    """The options of a network, as its config.json has them."""
    assert isinstance(model.config.backbone, UNet2DConfig)
    for name in BEYOND:
        value = getattr(model.config.backbone, name)
        require(value is None, f"backbone.{name}", "unset for --to diffusers, whose network has no such option", value)
    own = {name: value for name, value in asdict(model.config.backbone).items() if name not in OWN}
    height, width = model.spec.shape[1:]
    embedding = network.class_embedding
    return {
        "_class_name": CLASS,
        "_diffusers_version": VERSION,
        **own,
        "num_class_embeds": embedding.num_embeddings if isinstance(embedding, torch.nn.Embedding) else None,
        "sample_size": height if height == width else [height, width],
        "in_channels": network.in_channels,
        "out_channels": network.out_channels,
    }


def _tensors(network: UNet2D) -> dict[str, Tensor]:
    tensors = {name: value.detach().cpu().float() for name, value in network.state_dict().items() if name != TABLE}
    return {name: value.contiguous() for name, value in tensors.items()}


def _bake(model: Model, network: UNet2D, label: str, options: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Makes of the network that of one class: what embeds the class is added to what embeds the time."""
    if not isinstance(network.class_embedding, torch.nn.Embedding):
        raise InputError(f"label: must be left out for a network without classes, got {label!r}")
    if label == "-1":
        require(network.nameless, "label", "a class, as this network knows no examples without a label", label)
        number = len(model.spec.classes)
    else:
        numbers = model.labels(label, 1)
        assert numbers is not None
        number = int(numbers[0])
    vector = tensors.pop("class_embedding.weight")[number]
    name = "time_embedding.linear_2.bias"
    tensors[name] = tensors[name] + vector
    options["num_class_embeds"] = None


def _about_labels(spec: DataSpec, network: UNet2D) -> str:
    """Says what the network takes labels for, and what follows for pipelines."""
    if network.label_type == "identity":
        named = "embeddings"
    else:
        names = ", ".join(f"{number} {name}" for number, name in enumerate(spec.classes[:3]))
        more = f", ... {len(spec.classes) - 1} {spec.classes[-1]}" if len(spec.classes) > 3 else ""
        none = f", {len(spec.classes)} for none" if network.nameless else ""
        named = f"{names}{more}{none}"
    return (
        f"labels: the network takes class_labels, {named}; {PIPELINE} gives none and cannot draw: --label NAME exports "
        "the model of one class"
    )


def _write_files(folder: Path, options: Mapping[str, Any], tensors: dict[str, Tensor], scheduler: Scheduler) -> None:
    network, place = folder / layout.NETWORK, folder / layout.SCHEDULER
    for inner in (network, place):
        inner.mkdir()
    if scheduler.pipeline:
        index = {
            "_class_name": PIPELINE,
            "_diffusers_version": VERSION,
            "scheduler": ["diffusers", scheduler.values["_class_name"]],
            "unet": ["diffusers", CLASS],
        }
        write_text(folder / layout.INDEX, json.dumps(index, indent=2))
    write_text(network / layout.CONFIG, json.dumps(options, indent=2))
    write_text(place / schedulers.NAME, json.dumps({**scheduler.values, "_diffusers_version": VERSION}, indent=2))
    save_file(tensors, network / f"{weights.STEM}.safetensors", metadata={"format": "pt"})
