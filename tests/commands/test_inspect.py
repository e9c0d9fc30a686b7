"""The report on a folder: what it finds, what it suggests, and what it says of the cost."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from PIL import Image
from torch import Tensor

from diffusion import cli, config
from diffusion.commands import inspect
from diffusion.commands.inspect import Cost, cost, costs, duration, shifted, suggest, toml
from diffusion.config import Config
from diffusion.data import scan
from diffusion.objectives import Objective, TrajectoryBound
from diffusion.training.adaptive import AdaptiveObjective
from tests.conftest import ROOT, draw_shapes

TINY = {"channels": [8, 16], "blocks": 1, "attention": [1]}


@pytest.fixture
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "NETWORKS", {64: TINY})


def folder(path: Path, sizes: list[tuple[int, int]], mode: str = "RGB") -> Path:
    path.mkdir(parents=True)
    for i, size in enumerate(sizes):
        Image.new(mode, size, i).save(path / f"{i}.png")
    return path


def suggestion(path: Path) -> Config:
    return config.from_dict(suggest(scan(path, labels=False, progress=False), str(path), labels=False))


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
    monkeypatch.setattr("diffusion.data.images.duplicates.decode", None)
    monkeypatch.setattr(inspect, "timed", None)
    assert cli.main(["inspect", str(images), "--no-decode", "--no-measure"]) == 0
    text = capsys.readouterr().out
    assert "size = 64" in text and "M parameters" in text
    assert "alike" not in text and "images/s" not in text


@pytest.mark.parametrize("size", [64, 128, 256])
def test_what_is_suggested_for_a_size_is_what_is_shipped_for_it(tmp_path: Path, size: int) -> None:
    suggested = suggestion(folder(tmp_path / "images", [(size, size + 10)]))
    shipped = config.load(ROOT / "configs" / f"folder{size}.toml", [f"data.path={tmp_path / 'images'}"])
    assert suggested == shipped


def test_a_tenth_of_the_images_may_be_enlarged(tmp_path: Path) -> None:
    sizes = [(300, 400)] * 18 + [(40, 400)] * 2
    assert suggestion(folder(tmp_path / "a", [*sizes, (300, 300)])).data.size == 256
    assert suggestion(folder(tmp_path / "b", [*sizes, (40, 40)])).data.size == 32
    assert suggestion(folder(tmp_path / "c", [(5, 5)])).data.size == 8


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("I;16", 1), ("RGB", 3), ("P", 3)])
def test_gray_images_get_one_channel(tmp_path: Path, mode: str, channels: int) -> None:
    assert suggestion(folder(tmp_path / "images", [(64, 64)] * 2, mode)).data.channels == channels


def test_more_noise_by_the_log_of_the_ratio_of_sides() -> None:
    for size in (128, 256):
        assert shifted(size) == pytest.approx(-0.5 + math.log(size / 64), abs=0.05)


def test_toml_survives_the_way_through_the_parser(tmp_path: Path) -> None:
    tree = {"data": {"path": 'a "quoted" \\ path é', "size": 32, "flip": True}, "noise_levels": {"mean": 0.2}}
    (tmp_path / "x.toml").write_text(toml(tree))
    experiment = config.load(tmp_path / "x.toml")
    assert experiment.data.path == tree["data"]["path"] and experiment.data.flip
    assert experiment.noise_levels.mean == 0.2  # type: ignore[attr-defined]


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
    assert "a step of 10: about 5 s; 1,000 steps: about 83.3 minutes" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(90, "90 seconds"), (7200, "2.0 hours"), (600, "10.0 minutes"), (864_000, "10.0 days")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


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

    def loss(self: object, denoiser: object, x: Tensor, *arguments: object) -> Tensor:
        if type(self) is kind:
            sizes.append(len(x))
        return real(self, denoiser, x, *arguments)

    monkeypatch.setattr(kind, "loss", loss)
    monkeypatch.setattr(inspect, "REPEATS", 2)
    found = cost(config.from_dict(tree), 0, measure=True)
    assert sizes == [4, 4] and found.images == 4 and found.seconds is not None and found.seconds > 0
