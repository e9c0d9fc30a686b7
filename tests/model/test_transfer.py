"""The weights of one model as the beginning of another: what is taken, what is new, and units that they know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion import checkpoint, config
from diffusion.checkpoint import Part, Retention
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.errors import InputError
from diffusion.model import Model, assemble, build, describe, load
from diffusion.model.transfer import LABELS, check_start, in_units_of, open_start, transfer
from tests.conftest import tiny

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
    assert "classes taken: square, disk; new: ring" in text and "size 8x8 -> 12x20" in text
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


def test_classes_are_taken_by_name_and_new_ones_are_drawn() -> None:
    experiment = tiny(Path("images"))
    source = stirred(experiment, SPEC)
    old = source.denoiser.backbone.state_dict()[LABELS]  # type: ignore[attr-defined]
    model, lines = begun(source, experiment, replace(SPEC, classes=("ring", "square", "star")))
    new = model.denoiser.backbone.state_dict()[LABELS]  # type: ignore[attr-defined]
    assert torch.equal(new[:, 1], old[:, 1]) and torch.equal(new[:, 3], old[:, 2])
    assert "classes taken: square; new: ring, star; dropped: disk" in lines
    drawn = new[:, [0, 2]]
    assert not any(torch.equal(drawn[:, i], old[:, j]) for i in range(2) for j in range(3))
    assert 0.1 < drawn.std() < 3


def test_a_row_that_gains_classes_keeps_its_mean_square_so_that_no_step_scales_the_old_ones() -> None:
    experiment = tiny(Path("images"))
    torch.manual_seed(0)
    source = Model(assemble(experiment, build(experiment, SPEC)), SPEC, experiment)
    spec = replace(SPEC, classes=("disk", "square", "ring", "star"))
    torch.manual_seed(1)
    network = build(experiment, spec)
    transfer(source, network, spec)
    before = network.state_dict()[LABELS].clone()
    network.project_()
    assert torch.allclose(network.state_dict()[LABELS], before, atol=1e-5)


def test_layers_of_another_number_of_channels_begin_anew_and_are_named() -> None:
    experiment = tiny(Path("images"))
    source = stirred(experiment, SPEC)
    torch.manual_seed(5)
    fresh = build(experiment, gray := replace(SPEC, shape=(1, 8, 8))).state_dict()
    model, lines = begun(source, experiment, gray)
    found = model.denoiser.backbone.state_dict()  # type: ignore[attr-defined]
    old = source.denoiser.backbone.state_dict()  # type: ignore[attr-defined]
    assert "begins anew: stem.weight, head.conv.weight (3 -> 1 channels)" in lines
    for name, value in found.items():
        assert torch.equal(value, fresh[name] if name in ("stem.weight", "head.conv.weight") else old[name]), name
    total = sum(value.numel() for value in found.values())
    count = total - found["stem.weight"].numel() - found["head.conv.weight"].numel()
    weights = f"{count / 1e6:.3g} of {total / 1e6:.3g} M weights"
    assert lines[0] == f"{len(found) - 2} of {len(found)} tensors taken, {weights}"


def test_a_model_without_classes_gains_them_and_one_with_them_loses_them() -> None:
    experiment = tiny(Path("images"))
    without = replace(SPEC, classes=())
    _, lines = begun(stirred(experiment, without), experiment, SPEC)
    assert "begins anew: embed.label.weight" in lines and "classes new: disk, square" in lines
    _, lines = begun(stirred(experiment, SPEC), experiment, without)
    assert "classes dropped: disk, square" in lines


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"backbone": {"channels": [8, 8]}}, r"backbone\.channels: \(8, 16\), here \(8, 8\)"),
        ({"backbone": {"name": "mlp", "channels": None}}, r"backbone\.name: 'UNetConfig', here 'MLPConfig'"),
        ({"parameterization": {"name": "eps"}}, r"parameterization\.name: 'EDMPrecond', here 'Eps'"),
        (
            {"model": {"learned_variance": True}, "training": {"hybrid": 0.1, "start": "x"}},
            r"model\.learned_variance: False, here True",
        ),
    ],
)
def test_weights_of_another_network_are_refused_with_what_differs(
    trained: Path, shapes: Path, changed: dict[str, dict[str, object]], line: str
) -> None:
    experiment = tiny(shapes)
    tree = config.to_dict(experiment)
    for section, values in changed.items():
        tree[section] = values if "name" in values else {**tree[section], **values}
        tree[section] = {key: value for key, value in tree[section].items() if value is not None}
    tree["training"]["start"] = str(trained)
    with pytest.raises(InputError, match=rf"training\.start: .*trained has another network(.|\n)*{line}"):
        check_start(config.from_dict(tree))


def test_dropout_schedule_rate_and_batch_are_free(trained: Path, shapes: Path) -> None:
    free = tiny(
        shapes,
        backbone={"dropout": 0.2},
        schedule={"name": "cosine"},
        training={"lr": 0.5, "batch": 4, "start": str(trained)},
    )
    assert open_start(free).step == 40


def test_what_is_no_model_is_refused_by_the_name_of_the_key(trained: Path, shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^training\.start: .*none: no such run folder"):
        check_start(tiny(shapes, training={"start": str(tmp_path / "none")}))
    with pytest.raises(InputError, match=r"^training\.start: must be empty for a student"):
        check_start(tiny(shapes, training={"start": str(trained)}, distillation={"teacher": str(trained)}))
    check_start(tiny(shapes))
    student = replace(load(trained, device="cpu").config, distillation=config.DistillationConfig("runs/teacher"))
    parts = {"model": Part(build(student, SPEC).state_dict(), describe(student, SPEC, 3))}
    checkpoint.write(tmp_path / "student", 3, parts, keep=Retention(1))
    with pytest.raises(InputError, match=r"was distilled .*; begin from its teacher, runs/teacher"):
        check_start(tiny(shapes, training={"start": str(tmp_path / "student")}))


def test_a_checkpoint_may_be_the_beginning(trained: Path, shapes: Path) -> None:
    path = trained / "checkpoints" / "step-00000020"
    assert open_start(tiny(shapes, training={"start": str(path)})).step == 20


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
    with pytest.raises(InputError, match=r"training.start: the network of that run takes more beside the images"):
        begun(source, tiny(Path("images")), SPEC)
