"""The report on a folder: what it finds, what it suggests, and what it says of the cost."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion import cli, config, distributed
from diffusion.commands import inspect
from diffusion.commands.inspect import Cost, cost, costs
from diffusion.objectives import Batch, Objective, TrajectoryBound
from diffusion.training.adaptive import AdaptiveObjective
from tests.conftest import draw_shapes

TINY = {"channels": [8, 16], "blocks": 1, "attention": [1]}


@pytest.fixture
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion.commands.suggestion.NETWORKS", {64: TINY})


def folder(path: Path, sizes: list[tuple[int, int]], mode: str = "RGB") -> Path:
    path.mkdir(parents=True)
    for i, size in enumerate(sizes):
        Image.new(mode, size, i).save(path / f"{i}.png")
    return path


def test_the_report_says_what_is_there_and_writes_a_configuration_that_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_network: None
) -> None:
    images = draw_shapes(tmp_path / "images", per_class=10)
    shutil.copy(images / "disk" / "00.png", images / "square" / "again.png")
    Image.effect_noise((64, 64), 50).save(images / "disk" / "broken.jpg")
    data = (images / "disk" / "broken.jpg").read_bytes()
    (images / "disk" / "broken.jpg").write_bytes(data[: len(data) // 2])
    written = tmp_path / "images.toml"
    assert cli.main(["inspect", str(images), "--labels", "--out", str(written)]) == 0
    text = capsys.readouterr().out
    assert "22" in text and "disk (11), square (11)" in text and "8x8" in text
    assert "square/again.png repeats disk/00.png" in text
    assert "disk/broken.jpg: " in text and "truncated" in text
    assert "images/s forward and backward, measured with" in text and "M parameters" in text
    assert "MB for each image of a training step" in text and "that are free on cpu hold" in text
    experiment = config.load(written)
    assert experiment.data.path == str(images) and experiment.data.labels and experiment.data.size == 8
    overrides = [
        "training.steps=1",
        "training.precision=fp32",
        "report.pictures=1",
        "report.images=1",
        "sampling.steps=1",
    ]
    assert cli.main(["train", str(written), *overrides, "--out", str(tmp_path / "run")]) == 0


def test_without_decoding_and_measuring_only_the_index_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = folder(tmp_path / "images", [(70, 80)] * 3)
    monkeypatch.setattr("diffusion.data.images.duplicates.made_of_frames", None)
    monkeypatch.setattr(inspect, "timed", None)
    assert cli.main(["inspect", str(images), "--no-decode", "--no-measure"]) == 0
    text = capsys.readouterr().out
    assert "size = 64" in text and "M parameters" in text
    assert "alike" not in text and "images/s" not in text


def test_the_cost_counts_what_there_is(tiny_network: None) -> None:
    experiment = config.from_dict(
        {"data": {"size": 16, "channels": 1, "margin": 2}, "backbone": TINY, "training": {"batch": 10, "steps": 1000}}
    )
    from diffusion import model
    from diffusion.data import DataSpec

    network = model.build(experiment, DataSpec((1, 16, 16), 256, ("a", "b")))
    assert cost(experiment, 2, measure=False).parameters == sum(p.numel() for p in network.parameters())
    text = "\n".join(costs(experiment, Cost(50_000_000, "cpu", "fp32", 4, 0.5), images=1_000_000))
    assert "50.0 M parameters; 1.00 GB" in text
    assert "0.40 GB for the packed images, 0.80 GB for each of 3 checkpoints" in text
    assert "2 images/s" in text and "4 at once on this cpu in fp32" in text
    assert "a step of 10: about 5 s; 1,000 steps: about 1.4 h" in text


@pytest.mark.parametrize(("device", "images"), [("cpu", 4), ("mps", 32), ("cuda:0", 100), ("xpu", 4)])
def test_larger_devices_are_timed_with_more_images(
    monkeypatch: pytest.MonkeyPatch, tiny_network: None, device: str, images: int
) -> None:
    monkeypatch.setattr(distributed, "device", lambda: torch.device(device))
    sections = {"data": {"size": 64}, "backbone": TINY, "training": {"batch": 100, "precision": "fp32"}}
    assert cost(config.from_dict(sections), 0, measure=False).images == images


@pytest.mark.parametrize(
    ("sections", "kind"),
    [
        ({}, Objective),
        ({"training": {"trajectory": 3}, "model": {"learned_variance": True}}, TrajectoryBound),
        ({"noise_levels": {"name": "measured"}, "weighting": {"name": "exact"}}, AdaptiveObjective),
    ],
)
def test_the_objective_of_training_is_what_is_timed(
    monkeypatch: pytest.MonkeyPatch, sections: dict[str, dict[str, object]], kind: type
) -> None:
    tree: dict[str, dict[str, object]] = {
        "data": {"size": 8, "channels": 1},
        "backbone": TINY,
        **sections,
        "training": {"batch": 4, "precision": "fp32", **sections.get("training", {})},
    }
    sizes, real = [], kind.loss  # type: ignore[attr-defined]

    def loss(self: object, denoiser: object, batch: Batch) -> Tensor:
        if type(self) is kind:
            sizes.append(len(batch.x))
        return real(self, denoiser, batch)

    monkeypatch.setattr(kind, "loss", loss)
    monkeypatch.setattr(inspect, "REPEATS", 2)
    found = cost(config.from_dict(tree), 0, measure=True)
    assert sizes == [4, 4] and found.images == 4 and found.seconds is not None and found.seconds > 0


def test_deep_files_are_said_and_a_range_is_suggested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "microscope"
    images.mkdir()
    for i in range(9):
        values = np.random.default_rng(i).integers(0, 1800, (8, 8)).astype(np.uint16)
        Image.fromarray(values).save(images / f"{i}.png")
    out = tmp_path / "suggested.toml"
    assert cli.main(["inspect", str(images), "--no-measure", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "depth     9 images of more than 8 bits: values " in text
    assert "of 256 levels remain; set data.range=[0, 4095]" in text
    data = config.load(out).data
    assert (data.channels, data.range) == (1, (0, 4095))


def test_a_table_of_labels_is_found_and_suggested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = folder(tmp_path / "images", [(8, 8)] * 6)
    rows = [f'{{"file_name": "{i}.png", "label": "{"cat" if i % 2 else "dog"}"}}' for i in range(6)]
    (images / "metadata.jsonl").write_text("\n".join(rows))
    out = tmp_path / "x.toml"
    assert cli.main(["inspect", str(images), "--no-measure", "--no-decode", "--out", str(out)]) == 0
    assert "classes   2: cat (3), dog (3)\n          from metadata.jsonl" in capsys.readouterr().out
    assert config.load(out).data.labels == "metadata.jsonl"
    (images / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a caption"}')
    assert cli.main(["inspect", str(images), "--no-measure", "--no-decode", "--out", str(out)]) == 0
    assert config.load(out).data.labels is False


def test_a_size_of_the_shape_of_the_images_is_suggested_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = folder(tmp_path / "images", [(160, 40)] * 16)
    out = tmp_path / "x.toml"
    assert cli.main(["inspect", str(images), "--no-measure", "--no-decode", "--out", str(out)]) == 0
    assert "size = [40, 160]" in capsys.readouterr().out
    assert config.load(out).data.shape == (40, 160)


def test_names_pages_and_single_files_are_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = Image.new("L", (8, 8))
    for name in ("cat_1", "cat_2", "dog_1"):
        page.save(tmp_path / f"{name}.tif", save_all=True, append_images=[page])
    quick = ["--no-measure", "--no-decode"]
    assert cli.main(["inspect", str(tmp_path), "--labels-from", "prefix", "--pages", "all", *quick]) == 0
    text = capsys.readouterr().out
    assert "classes   2: cat (4), dog (2)" in text and "pages     6 of 3 files" in text
    assert 'labels = "prefix"' in text and 'pages = "all"' in text
    assert cli.main(["inspect", str(tmp_path / "dog_1.tif"), *quick]) == 0
    assert f"file      {tmp_path / 'dog_1.tif'}\nimages    1" in capsys.readouterr().out


def test_what_is_missing_of_damaged_images_is_said_and_suggested(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_network: None
) -> None:
    images, masks, written = tmp_path / "images", tmp_path / "masks", tmp_path / "images.toml"
    folder(images, [(16, 16)] * 10)
    masks.mkdir()
    for i in range(9):
        mask = Image.new("L", (16, 16), 255)
        mask.paste(0, (0, 0, 8, 16) if i % 2 else (8, 0, 16, 16))
        mask.save(masks / f"{i}.png")
    Image.new("L", (16, 16), 255).save(masks / "9.png")
    assert cli.main(["inspect", str(images), "--masks", str(masks), "--no-measure", "--out", str(written)]) == 0
    text = capsys.readouterr().out
    assert f"masks     10 of 10 images have a mask in {masks}" in text
    assert "missing   45.0% of the pixels at 16x16; of an image 50.0% in the median, 50.0% at worst: 0.png" in text
    assert "           60  60  60  60  50  50  50  50" in text
    assert "pairs     0.0% of the pairs of 64 places were never seen together in any image\n" in text
    experiment = config.load(written)
    assert experiment.data.masks == str(masks) and experiment.mapped
