"""Folders of diffusers: the layouts that there are, and what of other models is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from diffusion.errors import InputError
from diffusion.exchange import folder
from diffusion.exchange.imported import Imported
from tests.public_models import SIDE, change, flat, pipeline

SCHEDULER = "scheduler/scheduler_config.json"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipeline(tmp_path_factory.mktemp("saved") / "pipeline", DDIMScheduler(clip_sample=False))


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A copy of the saved pipeline, which a test may change."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def equal(a: Imported, b: Imported) -> bool:
    same = all(torch.equal(a.tensors[name], value) for name, value in b.tensors.items())
    return same and a.tensors.keys() == b.tensors.keys() and (a.backbone, a.process) == (b.backbone, b.process)


@pytest.mark.parametrize("name", ["", "model_index.json", "unet", "unet/config.json"])
def test_every_name_of_a_pipeline_means_it(saved: Path, name: str) -> None:
    found = folder.read(saved / name)
    assert equal(found, folder.read(saved)) and found.shape == (3, SIDE, SIDE) and not found.changes
    assert sorted(found.origin["files"]) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "scheduler_config.json",
    ]


def test_a_flat_folder_is_the_same_model(saved: Path, tmp_path: Path) -> None:
    assert equal(folder.read(flat(tmp_path / "flat", saved)), folder.read(saved))


def test_code_and_pickles_beside_safetensors_are_never_opened(model: Path) -> None:
    for name in ("unet/diffusion_pytorch_model.bin", "unet/model.py", "pipeline.py", "unet/config.pkl"):
        (model / name).write_text("raise SystemExit('this was run')")
    change(model / "model_index.json", _class_name=["pipeline", "MyPipeline"])
    assert folder.read(model).shape == (3, SIDE, SIDE)


def test_the_size_is_that_of_the_file_or_is_given(model: Path) -> None:
    config = model / "unet" / "config.json"
    change(config, sample_size=[8, 12])
    assert folder.read(model).shape == (3, 8, 12) == folder.read(model, size=(8, 12)).shape
    with pytest.raises(InputError, match=r"config\.json: sample_size: \(8, 12\) is the size of the images; leave out"):
        folder.read(model, size=(12, 8))
    change(config, sample_size=None)
    assert folder.read(model, size=(4, 6)).shape == (3, 4, 6)
    with pytest.raises(InputError, match=r"sample_size: None says no size of images; give it by --size"):
        folder.read(model)


def test_weights_of_half_precision_are_said(model: Path, saved: Path) -> None:
    from diffusers import UNet2DModel

    UNet2DModel.from_pretrained(saved / "unet").half().save_pretrained(model / "unet", variant="fp16")
    found = folder.read(model, variant="fp16")
    assert found.changes == (
        "diffusion_pytorch_model.fp16.safetensors: has weights in float16, rounded from those that were trained",
    )
    off = [(found.tensors[name].float() - value).abs().max() for name, value in folder.read(saved).tensors.items()]
    assert 0 < max(off) < 1e-3


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "model_index.json",
        {"vae": ["diffusers", "AutoencoderKL"]},
        r"vae: .* makes it a model of latents",
    ),
    ("model_index.json", {"text_encoder": ["transformers", "CLIPTextModel"]}, r"text_encoder: .* needs a text"),
    (
        "unet/config.json",
        {"_class_name": "UNetModel"},
        r"'UNetModel' cannot be imported: it is of a version before",
    ),
    ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, r"'UNet2DConditionModel' cannot .* is told a text"),
    ("unet/config.json", {"_class_name": "MyNet"}, r"'MyNet' cannot be imported: it is another kind of network"),
    ("unet/config.json", {"down_block_types": ["SkipDownBlock2D"] * 2}, r"down_block_types: .*FIR filters"),
    ("unet/config.json", {"new_option": 7}, r"new_option: is not known, and may change what the network computes"),
    ("unet/config.json", {"out_channels": 6}, r"out_channels: 6 must be 3 with in_channels = 3; if half of them are"),
    ("unet/config.json", {"in_channels": 6}, r"out_channels: 3 must be 6 with in_channels = 6"),
    ("unet/config.json", {"in_channels": 20, "out_channels": 20}, r"in_channels: 20 must be at most 16"),
    ("unet/config.json", {"sample_size": 1 << 40}, r"sample_size: \(\d+, \d+\) must be at most 16,384"),
    ("unet/config.json", {"class_embed_type": "timestep"}, r"class_embed_type: 'timestep' cannot be imported"),
    ("unet/config.json", {"norm_num_groups": 5}, r"norm_num_groups: must be a number that divides"),
    (SCHEDULER, {"_class_name": "LCMScheduler"}, r"'LCMScheduler' cannot be imported: it is that of a model distilled"),
    (SCHEDULER, {"variance_type": "learned_range", "_class_name": "DDPMScheduler"}, r"out_channels: 3 must be 6 with"),
]


@pytest.mark.parametrize(("name", "values", "message"), REFUSED)
def test_what_is_refused_is_named_with_its_file(model: Path, name: str, values: dict[str, Any], message: str) -> None:
    change(model / name, **values)
    with pytest.raises(InputError, match=message) as error:
        folder.read(model)
    assert str(model) in str(error.value) and ".json" in str(error.value)


def test_parts_of_a_pipeline_that_are_unset_do_not_matter(model: Path) -> None:
    change(model / "model_index.json", vae=[None, None], text_encoder=None)
    assert folder.read(model).shape == (3, SIDE, SIDE)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda model: shutil.rmtree(model / "scheduler"), r"scheduler_config\.json is missing, which says what the"),
        (lambda model: shutil.rmtree(model / "unet"), r"holds no model of diffusers: neither unet/config\.json nor"),
        (lambda model: (model / "unet" / "config.json").write_text("<html>"), r"config\.json: is not a JSON file"),
    ],
)
def test_what_is_missing_or_damaged_is_named(model: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(model)
    with pytest.raises(InputError, match=message):
        folder.read(model)


def test_which_lists_of_files_hold_a_model() -> None:
    stem = "diffusion_pytorch_model"
    assert folder.holds_model({"model_index.json"}) and folder.holds_model({"unet/config.json", "README.md"})
    assert folder.holds_model({"config.json", f"{stem}.fp16.safetensors"})
    assert not folder.holds_model({"config.json", "model.safetensors"})
    assert not folder.holds_model({"checkpoints/step-00000010/manifest.json"})
