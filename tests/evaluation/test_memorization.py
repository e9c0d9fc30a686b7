"""Copies among samples are found, and none among honest samples; the command, and several processes, say the same."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from diffusion import cli, figures
from diffusion.data import Dataset, DataSpec
from diffusion.errors import InputError
from diffusion.evaluation import EVALUATORS, Setting
from diffusion.evaluation.memorization import Memorization
from diffusion.evaluation.memorization_table import MemorizationEvaluation
from diffusion.model import Model
from tests.conftest import fails, finish, start, torchrun
from tests.evaluation.test_dinov2 import random_weights
from tests.own_models import UNET, made

SIDE = 8
SPEC = DataSpec((1, SIDE, SIDE), 256, (), 127.0, 60.0)


def draws(n: int, seed: int) -> Tensor:
    """Smooth random images (n, 1, 8, 8) in [0, 1]: the distribution of training, held-out and honest samples."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 1, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, SIDE, mode="bilinear", align_corners=True)


def dataset(x: Tensor) -> Dataset:
    values = (x * 255).round().to(torch.uint8).numpy()
    return Dataset(values, SPEC, None, [f"{i}.png" for i in range(len(values))])


@dataclass(frozen=True)
class Returning(Model):
    """A model whose samples are given."""

    images: Tensor = field(default_factory=lambda: torch.zeros(0))

    def samples(self, n: int, **options: Any) -> Iterator[tuple[range, Tensor]]:  # type: ignore[override] # noqa: ANN401
        yield range(n), self.images[:n]


TRAINING, HELD_OUT = dataset(draws(300, 0)), dataset(draws(199, 1))


def evaluated(
    x: Tensor,
    training: Dataset = TRAINING,
    held_out: Dataset = HELD_OUT,
    **options: Any,  # noqa: ANN401
) -> MemorizationEvaluation:
    plain = made(training.spec, UNET if training.spec.is_image else {"name": "mlp", "width": 8})
    model = Returning(plain.denoiser, plain.spec, plain.config, images=x)
    options = options if "images" in options else {"samples": len(x), **options}
    return Memorization(**options)(model, held_out, Setting(training=training))


def copied(kind: str) -> Tensor:
    """100 training images with a little noise, as they are, mirrored, or shifted by a pixel."""
    x = torch.from_numpy(TRAINING.values[:100]).float() / 255
    moved = {"as they are": x, "mirrored": x.flip(-1), "shifted": torch.cat([x[..., 1:], x[..., -1:]], -1)}[kind]
    return (moved + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)


@pytest.mark.parametrize("kind", ["as they are", "mirrored", "shifted"])
def test_copies_are_flagged(kind: str) -> None:
    result = evaluated(copied(kind))
    assert result.shares["flagged"].value >= 0.95
    assert result.shares["copies"].low > 0.9 and result.shares["copies"].high > 0.95
    found = result.found["pixels"]
    nearest = [near.names[0] for near in found.near]
    assert sum(name == f"{i}.png" for i, name in enumerate(nearest)) >= 95
    assert (result.shares["ratio below 1/3"].value > 0.5) == (kind == "as they are"), "the plain rule sees no others"


def test_honest_samples_and_held_out_ones_are_flagged_at_the_stated_rate() -> None:
    flagged = []
    for seed in range(2, 8):
        result = evaluated(draws(100, seed), held_out=dataset(draws(199, 100 + seed)), flagged=0.05)
        flagged.append(result.shares["flagged"].value)
        assert result.shares["copies"].low == 0 and result.shares["copies"].high < 0.15
        assert result.shares["flagged, unseen"].value == pytest.approx(10 / 200)
        assert result.shares["below 1/3, unseen"].value < 0.02
    error = (0.05 * 0.95 * (1 / 100 + 1 / 199) / 6) ** 0.5
    assert sum(flagged) / 6 == pytest.approx(0.05, abs=3 * error) and error < 0.011


def test_a_mixture_of_copies_and_honest_samples_has_their_share() -> None:
    result = evaluated(torch.cat([copied("as they are")[:40], draws(160, 9)]))
    share = result.shares["copies"]
    assert share.low < 0.2 < share.high and share.high - share.low < 0.14
    assert {int(result.names[i]) < 40 for i in result.order[:38]} == {True}, "copies first"


def test_few_held_out_images_raise_the_share_and_say_so() -> None:
    few = HELD_OUT.evenly(9)
    result = evaluated(draws(50, 3), held_out=few)
    assert result.shares["flagged, unseen"].value == pytest.approx(0.1)
    assert any(
        note.startswith("few: 9 held-out examples cannot tell a share of 0.01; smaller ratios than all of theirs are")
        and note.endswith("a share of 0.1000 of unseen examples")
        for note in result.notes
    )
    assert not any(note.startswith("few") for note in evaluated(draws(50, 3), flagged=0.1, held_out=few).notes)


def test_blurred_samples_are_told_from_honest_ones() -> None:
    flat = torch.full((100, 1, SIDE, SIDE), 0.5) + 0.1 * draws(100, 4)
    result = evaluated(flat, flagged=0.1)
    assert result.shares["flagged"].value < 0.03 and any(note.startswith("fewer: ") for note in result.notes)


def test_points_are_compared_as_they_are_and_have_a_histogram(tmp_path: Path) -> None:
    spec, generator = DataSpec((3,), None), torch.Generator().manual_seed(0)
    x = torch.randn(700, 3, generator=generator)
    parts = [
        Dataset(x[rows].numpy(), spec, None, [str(i) for i in range(len(x[rows]))])
        for rows in (slice(400), slice(400, 600))
    ]
    honest, copies = (evaluated(each, *parts) for each in (x[600:], x[:100] + 1e-3))
    assert honest.shares["copies"].low == 0 and copies.shares["copies"].low > 0.8
    copies.draw(tmp_path / "ratios.png", "held-out")
    assert figures.read_info(tmp_path / "ratios.png")["count"] == 100
    with pytest.raises(InputError, match=r"memorization\.images: must be left out for a model of points"):
        evaluated(x[600:], *parts, images="folder")


def test_features_find_copies_too(tmp_path: Path) -> None:
    save_file(random_weights(0, width=64, depth=1), tmp_path / "dinov2.safetensors")
    weights = tmp_path / "dinov2.safetensors"
    x = torch.from_numpy(TRAINING.values[:20]).float() / 255
    result = evaluated(torch.cat([x, draws(20, 5)]), features="dinov2", weights=weights)
    assert set(result.found) == {"pixels", "dinov2"} and result.network["name"] == "dinov2"
    assert all(result.found["dinov2"].flagged[:20]) and sum(result.found["dinov2"].flagged[20:]) < 5
    assert result.shares["copies, dinov2"].low > 0.3
    assert result.listing[0][8:] == [f"dinov2: {column}" for column in result.listing[0][1:8]]
    assert any(note.startswith("dinov2: by the weights in dinov2.safetensors") for note in result.notes)
    settings = Memorization(features="dinov2", weights=weights).settings
    assert len(settings["weights"]) == 12 and str(tmp_path) not in json.dumps(settings)


def test_the_margin_of_training_is_the_shift() -> None:
    plain = made(SPEC, UNET)
    for margin, shift in ((0, 1), (2, 2), (9, 4)):
        config = replace(plain.config, data=replace(plain.config.data, margin=margin))
        assert Memorization().shift_of(replace(plain, config=config)) == shift
        assert Memorization(shift=0).shift_of(replace(plain, config=config)) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples: must be at least 1, got 0"),
        ({"flagged": 0.0}, "flagged: must be between 0 and 1, got 0.0"),
        ({"flagged": 1.0}, "flagged: must be between 0 and 1, got 1.0"),
        ({"shift": -1}, "shift: must be 0 or more, got -1"),
        ({"weights": Path("w")}, "--weights: must be left out without --features, the name of their network, got w"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        Memorization(**options)


def test_examples_that_cannot_be_compared_with_are_refused() -> None:
    with pytest.raises(InputError, match="--memorization: needs the training examples of the run"):
        Memorization()(made(SPEC, UNET), HELD_OUT, Setting())
    holes = replace(TRAINING, seen=TRAINING.values)
    with pytest.raises(InputError, match="data: must be seen everywhere for memorization, got images with holes"):
        evaluated(draws(3, 1), training=holes)
    with pytest.raises(InputError, match=r"data\.held_out: must be positive"):
        evaluated(draws(3, 1), held_out=HELD_OUT.subset([]))
    with pytest.raises(InputError, match="--float64: has no effect with memorization"):
        Memorization()(made(SPEC, UNET), HELD_OUT, Setting(dtype=torch.float64))


def test_the_command_writes_numbers_a_table_of_samples_and_a_figure(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(run), "--memorization", "--samples", "14", "--flagged", "0.2"]) == 0
    text, stem = capsys.readouterr().out, "evaluation-memorization-samples14-flagged0.2"
    written = json.loads((run / f"{stem}.json").read_text())
    assert written["examples"] == 14 and written["training"] == 29 and "pictures" not in written
    assert "memorization: copies of training examples, 14 samples against 29 training examples" in text
    for name, share in written["shares"].items():
        assert f"{name:17s}{share['value']:12.4f}" in text and f"{share['low']:.4f} to {share['high']:.4f}" in text
    with (run / f"{stem}.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    columns = ["ratio", "p-value", "flagged", "nearest", "distance", "second nearest", "distance"]
    assert head == ["sample", *columns]
    assert len(rows) == 14 and [float(row[1]) for row in rows] == sorted(float(row[1]) for row in rows)
    for row in rows:
        assert float(row[1]) == pytest.approx(float(row[5]) / float(row[7]))
        assert Path(row[4]).parts[0] in ("disk", "square") and row[4] != row[6]
    assert f"most like copies: {rows[0][0]} {float(rows[0][1]):.4f}, " in text
    info = figures.read_info(run / f"{stem}.png")
    assert info["shares"] == written["shares"] and [each["sample"] for each in info["shown"]] == [
        r[0] for r in rows[:12]
    ]
    assert info["title"].startswith(f"{sum(written['found']['pixels']['flagged'])} of 14 samples are flagged")
    # The same command draws its figure again, although the result counts training images.
    (run / f"{stem}.png").unlink()
    assert cli.main(["evaluate", str(run), "--memorization", "--samples", "14", "--flagged", "0.2"]) == 0
    assert (run / f"{stem}.png").exists()
    # The samples of the same numbers, made earlier as files, have the same neighbors.
    assert cli.main(["sample", str(run), "--n", "14", "--out", str(tmp_path / "made")]) == 0
    method = f"memorization:images={tmp_path / 'made'}"
    assert cli.main(["evaluate", str(run), "--method", method, "--flagged", "0.2"]) == 0
    again = json.loads(next(run.glob("evaluation-memorization-flagged0.2-images-made-??????.json")).read_text())
    assert [name.removesuffix(".png") for name in again["names"]] == written["names"]
    assert again["values"] == pytest.approx(written["values"], rel=0.02)


@pytest.mark.parametrize(
    ("options", "field"),
    [(["--samples", "14"], "samples"), (["--seed", "3"], "seed"), (["--guidance", "1"], "--guidance")],
)
def test_samples_that_were_made_before_are_drawn_in_no_other_way(
    trained: Path, shapes: Path, capsys: pytest.CaptureFixture[str], options: list[str], field: str
) -> None:
    message = fails(capsys, "evaluate", trained, "--method", f"memorization:images={shapes}", *options)
    assert message.startswith(f"error: {field}: has no effect with") and "images" in message


def test_images_of_others_are_no_training_images(
    trained: Path, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(capsys, "evaluate", trained, "--memorization", "--data", shapes)
    assert message.startswith(
        "error: --memorization: needs the training examples of the run, and the images of --data "
    )


def test_two_processes_find_what_one_finds(run: Path, tmp_path: Path) -> None:
    command = ["evaluate", "--memorization", "--samples", "15", "--flagged", "0.2", "--seed", "3"]
    two = Path(shutil.copytree(run, tmp_path / "two"))
    assert cli.main([command[0], str(run), *command[1:]]) == 0
    code, _, err = finish(start(torchrun(2), "-m", "diffusion.cli", command[0], str(two), *command[1:]))
    assert code == 0, err
    name = "evaluation-memorization-samples15-flagged0.2-seed3.json"
    one_found, two_found = (json.loads((folder / name).read_text()) for folder in (run, two))
    assert two_found["values"] == pytest.approx(one_found["values"], rel=0.02)
    assert two_found["names"] == one_found["names"] and two_found["shares"] == one_found["shares"]
    figure = name.replace(".json", ".png")
    assert figures.read_info(two / figure)["title"] == figures.read_info(run / figure)["title"]


def test_it_is_one_of_the_evaluators() -> None:
    assert EVALUATORS["memorization"] is Memorization
