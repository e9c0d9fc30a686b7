"""The weights of a trained model as the beginning of a new run (`training.start`).

The new run has the network, the outputs and the parameterization of the old one, whose weights mean nothing else. It
may have images of another size, since convolutions have none, and another schedule, since networks are conditioned on
log-SNR. Labels are known by the names of their classes. Layers that see or make the channels of an image are new where
their number is another. A network that takes a noise level for every pixel may begin from one that does not: the
weights of the new inputs are zero, so that it makes of one level everywhere what the old one made.

The new run keeps the units of the old one: with x = (v - mean)/std of the old data, the network makes of the same image
under the same noise what it made before. In units of the new data it would see other noise levels and contrasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor

from diffusion.backbones import Backbone
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.errors import InputError
from diffusion.model.loading import load
from diffusion.model.model import Model

# The weights of the embedding of labels, a column for each class and the last one for no label.
LABELS = "embed.label.weight"
# The weights of the first layer, whose inputs are those of the example, what is beside it, and a constant.
STEM = "stem.weight"
# What must be that of the model whose weights are taken, and the keys of it that may differ.
SECTIONS, FREE = ("backbone", "model", "parameterization"), ("dropout",)


def check_start(experiment: Config) -> None:
    """Raises InputError where `training.start` names no model, or one whose weights suit another network."""
    if not experiment.training.start:
        return
    if experiment.distillation.teacher:
        raise InputError("training.start: must be empty for a student, which begins from its teacher's weights")
    open_start(experiment)


def open_start(experiment: Config) -> Model:
    """Loads the model from whose weights an experiment begins. Raises InputError as `check_start` does."""
    path = experiment.training.start
    try:
        source = load(path, device="cpu")
    except InputError as error:
        raise InputError(f"training.start: {error}") from None
    if source.teacher:
        raise InputError(
            f"training.start: {path} was distilled for one grid of few steps; begin from its teacher, {source.teacher}"
        )
    lines = [
        f"{section}.{key}: {old!r}, here {new!r}"
        for section in SECTIONS
        for key, (old, new) in _pairs(getattr(source.config, section), getattr(experiment, section)).items()
        if old != new and key not in FREE
    ]
    if lines:
        listing = "".join(f"\n  {line}" for line in lines)
        raise InputError(f"training.start: {path} has another network, whose weights fit no other:{listing}")
    return source


def _pairs(old: object, new: object) -> dict[str, tuple[object, object]]:
    """The values of two components by their keys, under "name" their kinds."""
    values = [{"name": type(each).__name__, **asdict(each)} for each in (old, new)]  # type: ignore[call-overload]
    return {key: (values[0].get(key, "unset"), values[1].get(key, "unset")) for key in values[0] | values[1]}


def in_units_of(source: DataSpec, spec: DataSpec) -> DataSpec:
    """Returns a spec with the mean and the std that those of `source` are in its own stored values.

    Stored values of both are levels between the ends of a range of file values. Where one of them has no range of its
    own, black and white are taken for the same.
    """
    # A stored value v of the new data is the stored value scale v + shift of the old ones.
    scale, shift = source.top / spec.top, 0.0
    if source.value_range and spec.value_range:
        (low, high), (new_low, new_high) = source.value_range, spec.value_range
        scale *= (new_high - new_low) / (high - low)
        shift = source.top * (new_low - low) / (high - low)
    return replace(spec, mean=(source.mean - shift) / scale, std=source.std / scale)


def transfer(source: Model, network: Backbone, spec: DataSpec) -> list[str]:
    """Gives a new network of `spec` the weights of a model; returns lines that say what is taken and what is new."""
    assert isinstance(source.denoiser.backbone, Backbone)
    old, new = source.denoiser.backbone.state_dict(), network.state_dict()
    taken = {name: old[name] for name, value in new.items() if name in old and old[name].shape == value.shape}
    if STEM in new and source.spec.shape[0] == spec.shape[0] and STEM not in taken:
        taken[STEM] = _with_inputs(source.denoiser.backbone, network)
    classes, names = source.spec.classes, spec.classes
    if LABELS in old and LABELS in new:
        taken[LABELS] = _columns(old[LABELS], new[LABELS], classes, names)
    network.load_state_dict(new | taken)
    fresh = [name for name in new if name not in taken]
    count, total = (sum(new[name].numel() for name in part) for part in (taken, new))
    lines = [f"{len(taken)} of {len(new)} tensors taken, {count / 1e6:.3g} of {total / 1e6:.3g} M weights"]
    if fresh:
        lines.append(f"begins anew: {', '.join(fresh)}{_why(source.spec, spec)}")
    if classes or names:
        parts = {
            "taken": [name for name in names if name in classes],
            "new": [name for name in names if name not in classes],
            "dropped": [name for name in classes if name not in names],
        }
        said = (f"{kind}: {', '.join(part)}" for kind, part in parts.items() if part)
        lines.append(f"classes {'; '.join(said)}")
    if source.spec.shape[1:] != spec.shape[1:]:
        lines.append(f"size {_size(source.spec)} -> {_size(spec)}, which weights of convolutions do not depend on")
    return lines


def _with_inputs(source: Backbone, network: Backbone) -> Tensor:
    """Returns the weights of the first layer of a network that has more inputs, for which they are zero.

    Raises InputError where the network has fewer.
    """
    old, stem = source.state_dict()[STEM], network.get_submodule(STEM.partition(".")[0])
    added = network.state_dict()[STEM].shape[1] - old.shape[1]
    if added < 0:
        raise InputError(
            "training.start: the network of that run takes more beside the images, such as a noise level for every "
            "pixel; set observed.share and condition as there"
        )
    # A layer whose weights are stored in units of its fan-in has other units with more inputs.
    scales = (getattr(layer, "scale", 1.0) for layer in (source.get_submodule(STEM.partition(".")[0]), stem))
    first, factor = old.shape[1] - network.inputs_after, next(scales) / next(scales)
    empty = old.new_zeros(len(old), added, *old.shape[2:])
    return torch.cat([old[:, :first], empty, old[:, first:]], dim=1) * factor


def _why(old: DataSpec, new: DataSpec) -> str:
    return f" ({old.shape[0]} -> {new.shape[0]} channels)" if old.shape[0] != new.shape[0] else ""


def _size(spec: DataSpec) -> str:
    return "x".join(map(str, spec.shape[1:]))


def _columns(old: Tensor, new: Tensor, classes: Sequence[str], names: Sequence[str]) -> Tensor:
    """Returns the weights (C, classes + 1) of an embedding in which columns of the same class, or of none, are the old
    ones.

    New columns are random. They are scaled such that a row that gains columns keeps its mean square, which the network
    would otherwise restore at its first step by scaling the old ones.
    """
    result = new.clone()
    known = [i for i, name in enumerate(names) if name in classes]
    result[:, -1] = old[:, -1]
    for i in known:
        result[:, i] = old[:, classes.index(names[i])]
    added = [i for i in range(len(names)) if i not in known]
    if added:
        kept = result[:, [*known, len(names)]].square().sum(1)
        left = (old.square().mean(1) * result.shape[1] - kept).clamp(min=0)
        drawn = result[:, added].square().sum(1)
        scale = torch.where(left > 0, (left / drawn).sqrt(), torch.ones_like(drawn))
        result[:, added] *= scale[:, None]
    return result
