"""The weights of a trained model as the beginning of a new run (`training.init`).

The new run has the network, the outputs and the parameterization of the old one, whose weights mean nothing else, and
images of as many channels. It may have images of another size, since convolutions have none, and another schedule,
since networks are conditioned on log-SNR. Labels are known by the names of their classes; a new class begins at the
mean of the old ones. A network that takes a noise level for every pixel may begin from one that does not, and so may
one that is told an observation: the weights of the new inputs are zero, so that the network makes of the other inputs
what the old one made.

The new run keeps the units of the old one: with x = (v - mean)/std of the old data, the network makes of the same image
under the same noise what it made before. In units of the new data it would see other noise levels and contrasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from diffusion.backbones import Backbone
from diffusion.backbones.embedding import LabelTable
from diffusion.data import DataSpec
from diffusion.errors import InputError, require
from diffusion.model.model import Model

# What a network may be told beside an example, in the order of its inputs.
BESIDE = ("a noise level for every pixel", "an observation of the image")


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
    """Gives a new network of `spec` the weights of a model; returns lines that say what is taken and what is new.

    Raises InputError where the network is told less beside the examples than that of the model, and where classes
    differ that it does not know by a table.
    """
    before = source.denoiser.backbone
    assert isinstance(before, Backbone)
    old, new = before.state_dict(), network.state_dict()
    taken = {name: old[name] for name, value in new.items() if name in old and old[name].shape == value.shape}
    if network.first_weight in new:
        taken[network.first_weight] = _first(before, network)
    classes, names, labels = source.spec.classes, spec.classes, network.label_weight
    if labels in new and classes:
        taken[labels] = _labels(before, network, classes, names)
    elif labels in new and network.labels_add:
        taken[labels] = torch.zeros_like(new[labels])
    elif labels not in new and names:
        rule = f"that of training.init, {', '.join(classes)}, whose network is told classes by their numbers"
        require(names == classes, "data.labels", rule, ", ".join(names))
    network.load_state_dict(new | taken)
    if labels in old and labels in new:
        _keep_scale(before, network)
    sizes = {name: value.numel() for name, value in network.named_parameters()}
    fresh = [name for name in sizes if name not in taken]
    assert set(fresh) <= {labels}, fresh
    count, total = (sum(sizes[name] for name in part) / 1e6 for part in (sizes.keys() - fresh, sizes))
    lines = [f"{len(sizes) - len(fresh)} of {len(sizes)} tensors taken, {count:.3g} of {total:.3g} M weights"]
    if fresh:
        lines.append(f"begins anew: {', '.join(fresh)}")
    if classes or names:
        lines.append(f"classes {said_of_classes(classes, names)}")
    if source.spec.shape[1:] != spec.shape[1:]:
        lines.append(f"size {_size(source.spec)} -> {_size(spec)}, which weights of convolutions do not depend on")
    return lines


def said_of_classes(classes: Sequence[str], names: Sequence[str]) -> str:
    """Says which of the classes `names` are among those of a model, and what becomes of the others."""
    parts = {
        "taken": [name for name in names if name in classes],
        "new, at the mean of the old" if classes else "new": [name for name in names if name not in classes],
        "dropped": [name for name in classes if name not in names],
    }
    return "; ".join(f"{kind}: {', '.join(part)}" for kind, part in parts.items() if part)


def _size(spec: DataSpec) -> str:
    return "x".join(map(str, spec.shape[1:]))


def _first(source: Backbone, network: Backbone) -> Tensor:
    """Returns the weights of the first layer of a network, which are zero for what only this one is told.

    Raises InputError where the network is told less, or an observation of another number of channels.
    """
    name = network.first_weight
    weight, layers = (
        source.state_dict()[name],
        [each.get_submodule(name.rpartition(".")[0]) for each in (source, network)],
    )
    after = weight.shape[1] - source.inputs_after
    values = after - sum(source.inputs_beside)
    parts = [weight[:, :values]]
    for what, theirs, ours in zip(BESIDE, source.inputs_beside, network.inputs_beside, strict=True):
        if theirs not in (0, ours):
            raise InputError(
                f"training.init: the network of that run takes more beside the images, {what}; set observed.share and "
                "condition as there"
            )
        zeros = weight.new_zeros(len(weight), ours, *weight.shape[2:])
        parts.append(weight[:, values : values + theirs] if theirs else zeros)
        values += theirs
    # A layer whose weights are stored in units of its fan-in has other units with more inputs.
    scales = [getattr(layer, "scale", 1.0) for layer in layers]
    return torch.cat([*parts, weight[:, after:]], dim=1) * (scales[0] / scales[1])


def _labels(source: Backbone, network: Backbone, classes: Sequence[str], names: Sequence[str]) -> Tensor:
    """Returns the weights by which a network is told labels: for a class of the same name, and for no label, those of
    another network, and for a new class the mean of those of all its classes.
    """
    name, axis = network.label_weight, network.label_axis
    old, new = (each.state_dict()[name].movedim(axis, 0) for each in (source, network))
    mean = old[: len(classes)].mean(0)
    rows = [old[classes.index(each)] if each in classes else mean for each in names]
    if len(new) > len(names):
        rows.append(old[-1] if len(old) > len(classes) else mean)
    return torch.stack(rows).movedim(0, axis)


def _keep_scale(source: Backbone, network: Backbone) -> None:
    """Lets no step scale the labels that a network has taken, where the rows of their table keep a mean square."""
    name = network.label_weight.rpartition(".")[0]
    old, new = source.get_submodule(name), network.get_submodule(name)
    if isinstance(new, LabelTable):
        assert isinstance(old, LabelTable)
        new.keep_from_(old)
