"""The weights of one model as the beginning of another: what is taken, what is new, and units that they know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion import config
from diffusion.backbones import Backbone
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.errors import InputError
from diffusion.model import Model, assemble, build
from diffusion.model.transfer import in_units_of, transfer
from tests.conftest import tiny

LABELS = Backbone.label_weight
SPEC = DataSpec((3, 8, 8), 256, ("disk", "square"), 100.0, 50.0)


def stirred(experiment: Config, spec: DataSpec) -> Model:
    """A model with random weights in all layers, those that begin at zero too."""
    torch.manual_seed(3)
    network = build(experiment, spec)
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return Model(assemble(experiment, network.eval().requires_grad_(False)), spec, experiment, 7)


def begun(source: Model, experiment: Config, spec: DataSpec) -> tuple[Model, list[str]]:
    torch.manual_seed(5)
    network = build(experiment, spec)
    lines = transfer(source, network, spec)
    return Model(assemble(experiment, network.eval()), spec, experiment), lines


def estimate(model: Model, units: Tensor, label: int | None) -> Tensor:
    """x̂ in units of images in [0, 1] with some noise, whose amount in these units is the same for every model."""
    std = model.spec.std / model.spec.top
    x = model.spec.standardize(units)
    log_snr = torch.tensor(2.0)
    alpha, sigma = model.denoiser.schedule(t := model.denoiser.schedule.time(log_snr))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(x.shape, generator=generator) * (50 / 255 / std)
    labels = None if label is None else torch.full((len(x),), label)
    with torch.no_grad():
        mean = model.denoiser(alpha.float() * x + sigma.float() * noise, t, labels).mean
    return mean * std + model.spec.mean / model.spec.top


IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("design", ["magnitude", "group_norm"])
def test_the_same_image_under_the_same_noise_gives_the_same_estimate(design: str) -> None:
    """Old and new data have another mean and std, other classes in another order, and other sizes."""
    experiment = tiny(Path("images"), backbone={"design": design})
    source = stirred(experiment, SPEC)
    raw = DataSpec((3, 12, 20), 256, ("square", "ring", "disk"), 120.0, 30.0)
    spec = in_units_of(SPEC, raw)
    model, lines = begun(source, experiment, spec)
    for old, new in ((0, 2), (1, 0), (None, None), (-1, -1)):
        expected = estimate(source, IMAGES, old)
        assert torch.allclose(estimate(model, IMAGES, new), expected, atol=1e-5)
        assert not torch.allclose(expected, IMAGES, atol=1e-2)
    text = "\n".join(lines)
    assert "classes taken: square, disk; new, at the mean of the old: ring" in text and "size 8x8 -> 12x20" in text
    assert "begins anew" not in text


def test_without_old_units_the_estimate_is_another_one() -> None:
    experiment = tiny(Path("images"))
    source = stirred(experiment, SPEC)
    model, _ = begun(source, experiment, replace(SPEC, mean=120.0, std=30.0))
    assert not torch.allclose(estimate(model, IMAGES, 0), estimate(source, IMAGES, 0), atol=1e-2)


@pytest.mark.parametrize(
    ("source", "spec", "mean", "std"),
    [
        # 16 bits of the same black and white: a level of 8 bits is 257 of them.
        (SPEC, DataSpec((3, 8, 8), 65536, (), 9.0, 3.0), 100 * 257, 50 * 257),
        (SPEC, DataSpec((3, 8, 8), None), 100 / 255, 50 / 255),
        # [0, 4095] of 4096 levels, and [95, 3095] of 1001: a level is 3 file values, black is 95 of them.
        (
            DataSpec((1, 8, 8), 4096, (), 2000.0, 600.0, (0, 4095)),
            DataSpec((1, 8, 8), 1001, (), 1.0, 1.0, (95, 3095)),
            (2000 - 95) / 3,
            200.0,
        ),
        (DataSpec((2,), None), DataSpec((2,), None), 0.0, 1.0),
    ],
)
def test_units_are_those_of_the_same_values_in_files(source: DataSpec, spec: DataSpec, mean: float, std: float) -> None:
    found = in_units_of(source, spec)
    assert (found.mean, found.std) == pytest.approx((mean, std))
    assert replace(found, mean=spec.mean, std=spec.std) == spec


def test_units_map_the_same_image_to_the_same_model_values() -> None:
    ranged = DataSpec((1, 8, 8), 4096, (), 2000.0, 600.0, (0, 4095))
    other = in_units_of(ranged, DataSpec((1, 8, 8), 1001, (), 5.0, 9.0, (95, 3095)))
    file_values = torch.tensor([95.0, 500.0, 3095.0])
    old = (file_values / 4095 * ranged.top - ranged.mean) / ranged.std
    new = ((file_values - 95) / 3000 * other.top - other.mean) / other.std
    assert torch.allclose(old, new)


def network_of(model: Model) -> Backbone:
    assert isinstance(model.denoiser.backbone, Backbone)
    return model.denoiser.backbone


@pytest.mark.parametrize("design", ["magnitude", "group_norm"])
def test_a_new_class_begins_at_the_mean_of_the_old_ones(design: str) -> None:
    """Its estimate is that of the old network with the mean of the columns of its classes as the column of a class."""
    experiment = tiny(Path("images"), backbone={"design": design})
    source = stirred(experiment, replace(SPEC, classes=("disk", "square", "star")))
    model, lines = begun(source, experiment, replace(SPEC, classes=("ring", "square", "line")))
    assert "classes taken: square; new, at the mean of the old: ring, line; dropped: disk, star" in lines
    known = [estimate(source, IMAGES, label) for label in (1, None)]
    old = network_of(source).state_dict()[LABELS]
    with torch.no_grad():
        old[:, 0] = old[:, :3].mean(1)
    mean = estimate(source, IMAGES, 0)
    for label, expected in ((0, mean), (2, mean), (1, known[0]), (None, known[1])):
        assert (estimate(model, IMAGES, label) - expected).abs().max() < 1e-5
    assert min(float((mean - other).abs().max()) for other in known) > 1e-3, "a hundred times what is allowed above"


@pytest.mark.parametrize("classes", [("disk", "ring", "star"), ("a", "b", "c", "d"), ("square",)])
def test_no_step_scales_the_columns_that_were_taken(classes: tuple[str, ...]) -> None:
    """Rows with columns at the mean, or fewer columns, have another mean square than 1, and keep it."""
    experiment = tiny(Path("images"))
    torch.manual_seed(0)
    source = Model(assemble(experiment, build(experiment, SPEC)), SPEC, experiment)
    model, _ = begun(source, experiment, replace(SPEC, classes=classes))
    network, before = network_of(model), network_of(model).state_dict()[LABELS].clone()
    assert (before.square().mean(1) - 1).abs().max() > 0.1
    network.project_()
    assert torch.allclose(network.state_dict()[LABELS], before, rtol=1e-5)
    assert torch.allclose(before[:, -1], network_of(source).state_dict()[LABELS][:, -1], rtol=1e-6)


def test_the_same_classes_keep_the_table_to_the_last_bit() -> None:
    experiment = tiny(Path("images"))
    source = stirred(experiment, SPEC)
    model, _ = begun(source, experiment, SPEC)
    old, new = (network_of(each).state_dict() for each in (source, model))
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)


def test_a_model_without_classes_gains_them_and_one_with_them_loses_them() -> None:
    experiment = tiny(Path("images"))
    without = replace(SPEC, classes=())
    _, lines = begun(stirred(experiment, without), experiment, SPEC)
    assert "begins anew: embed.label.weight" in lines and "classes new: disk, square" in lines
    model, lines = begun(stirred(experiment, SPEC), experiment, without)
    assert "classes dropped: disk, square" in lines
    assert lines[0].startswith(f"{len(list(network_of(model).parameters()))} of ")


@pytest.mark.parametrize("design", ["magnitude", "group_norm"])
@pytest.mark.parametrize("patch", [1, 2])
def test_a_network_with_a_level_for_every_pixel_begins_as_one_without(design: str, patch: int) -> None:
    plain = tiny(Path("images"), backbone={"design": design, "patch": patch})
    source = stirred(plain, SPEC)
    model, _ = begun(source, config.override(plain, ["observed.share=0.5"]), SPEC)
    assert (estimate(model, IMAGES, 0) - estimate(source, IMAGES, 0)).abs().max() < 1e-5
    t = torch.full((2, 1, 8, 8), 0.4, dtype=torch.float64)
    with torch.no_grad():
        by_pixel, whole = (m.denoiser(IMAGES, time).mean for m, time in ((model, t), (source, t[:, 0, 0, 0])))
    assert (by_pixel - whole).abs().max() < 1e-5


def test_a_network_without_a_level_for_every_pixel_does_not_begin_as_one_with() -> None:
    source = stirred(tiny(Path("images"), observed={"share": 0.5}), SPEC)
    with pytest.raises(InputError, match=r"takes more beside the images, a noise level for every pixel; set observed"):
        begun(source, tiny(Path("images")), SPEC)


@pytest.mark.parametrize("patch", [1, 2])
def test_what_a_network_is_told_is_known_by_its_meaning_and_not_by_its_number_of_inputs(patch: int) -> None:
    """A map and a constant condition are an input each: the weights of one are not taken for those of the other."""
    plain = tiny(Path("images"), backbone={"patch": patch})
    told = config.override(plain, ["condition.operator=gray"])
    both = config.override(told, ["observed.share=0.5"])
    source, t = stirred(told, SPEC), torch.tensor([0.4, 0.4])
    model, _ = begun(source, both, SPEC)
    given = torch.randn(2, told.condition_channels(3), 8, 8, generator=torch.Generator().manual_seed(2))
    network, old = network_of(model), network_of(source)
    assert network.inputs_beside == (patch**2, old.inputs_beside[1]) != (0, 0)
    with torch.no_grad():
        outputs = [each(IMAGES, t, None, condition=given) for each in (network, old)]
        without = old(IMAGES, t, None)
    assert (outputs[0] - outputs[1]).abs().max() < 1e-5 < (without - outputs[1]).abs().max()
    with pytest.raises(InputError, match="takes more beside the images, an observation of the image"):
        begun(source, config.override(plain, ["observed.share=0.5"]), SPEC)


NAMES = {
    "name": "unet2d",
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": 8,
    "norm_num_groups": 4,
}


def under_names_of_diffusers(**backbone: object) -> Config:
    tree = config.to_dict(tiny(Path("images")))
    return config.from_dict({**tree, "backbone": {**NAMES, **backbone}})


@pytest.mark.parametrize("vectors", [3, 4])
def test_a_network_under_the_names_of_diffusers_has_rows_of_classes_and_perhaps_none_for_no_label(vectors: int) -> None:
    experiment = under_names_of_diffusers(num_class_embeds=vectors)
    source = stirred(experiment, replace(SPEC, classes=("disk", "square", "star")))
    spec = replace(SPEC, shape=(3, 12, 20), classes=("ring", "square"))
    model, lines = begun(source, under_names_of_diffusers(), spec)
    assert "classes taken: square; new, at the mean of the old: ring; dropped: disk, star" in lines
    known, rows = estimate(source, IMAGES, 1), network_of(source).state_dict()["class_embedding.weight"]
    none = estimate(source, IMAGES, None) if vectors == 4 else None
    with torch.no_grad():
        rows[0] = rows[:3].mean(0)
    mean = estimate(source, IMAGES, 0)
    for label, expected in ((0, mean), (1, known), (None, mean if none is None else none)):
        assert (estimate(model, IMAGES, label) - expected).abs().max() < 1e-5
    assert (mean - known).abs().max() > 1e-3


def test_labels_that_are_added_begin_as_no_label_and_a_map_as_one_level_everywhere() -> None:
    source, experiment = stirred(under_names_of_diffusers(), replace(SPEC, classes=())), under_names_of_diffusers()
    model, lines = begun(source, config.override(experiment, ["observed.share=0.5"]), SPEC)
    assert "classes new: disk, square" in lines and not [line for line in lines if "begins anew" in line]
    expected = estimate(source, IMAGES, None)
    for label in (0, 1, None):
        assert (estimate(model, IMAGES, label) - expected).abs().max() < 1e-5


def test_classes_that_are_told_by_their_numbers_stay_in_their_places() -> None:
    experiment = under_names_of_diffusers(class_embed_type="timestep", num_class_embeds=3)
    source = stirred(experiment, SPEC)
    begun(source, experiment, SPEC)
    with pytest.raises(InputError, match=r"data\.labels: must be that of training.init, disk, square, .* got sq"):
        begun(source, experiment, replace(SPEC, classes=("square", "disk")))
