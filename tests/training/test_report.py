"""The pictures and numbers of a run: they say one thing, in one unit, with one kind of interval."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from PIL import Image

from diffusion import figures
from diffusion.data import Dataset, open_source
from diffusion.evaluation import BoundEstimator, Evaluation, evaluate
from diffusion.model import Model, assemble, build, clocks, load
from diffusion.model.told import middle
from diffusion.reporting.names import GAP_PICTURE
from diffusion.training import train
from diffusion.training.monitor import LossByLogSNR
from diffusion.training.report import (
    FINAL_IMAGES,
    Reporter,
    Validation,
    display_examples,
    restorations,
    shown_examples,
)
from tests.conftest import tiny
from tests.pretended import pretended


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return load(trained, device="cpu")


@pytest.fixture(scope="module")
def splits(model: Model) -> tuple[Dataset, Dataset]:
    data = model.config.data
    return open_source(data, lambda text: None).split(data.held_out, data.seed)


def reporter(model: Model, splits: tuple[Dataset, Dataset], run: Path) -> tuple[Reporter, list[str]]:
    said: list[str] = []
    return Reporter(model.config, run, *splits, said.append), said


def interval(mean: str, half_width: str) -> tuple[float, float]:
    return float(mean), float(half_width)


def expected(result: Evaluation) -> tuple[float, float]:
    total = result.terms["total"]
    assert total.half_width is not None
    return round(total.mean, 4), round(total.half_width, 4)


@pytest.mark.parametrize("operator", ["gray", "downsample:factor=2..4", "jpeg:quality=20..90"])
def test_a_run_that_learned_an_operator_shows_samples_given_what_it_makes(operator: str, shapes: Path) -> None:
    experiment = tiny(shapes, condition={"operator": operator, "noise": [0.0, 0.1]})
    dataset = open_source(experiment.data, lambda text: None)
    network = build(experiment, dataset.spec).eval().requires_grad_(False)
    fresh = Model(assemble(experiment, network), dataset.spec, experiment)
    told: list[torch.Tensor] = []

    def noted(self: Model, y: torch.Tensor, operator: object, *, noise: float) -> Model:
        told.append(y)
        return given(self, y, operator, noise=noise)

    given = Model.given
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "given", noted)
        picture = restorations(fresh, dataset, 2)
    assert picture is not None and len(told) == 2 and picture.height > picture.width / 8
    images, _ = shown_examples(fresh, dataset, 2)
    made, noise = middle(experiment.condition)
    for y, image in zip(told, images, strict=True):
        off = y - made(image[None])[0]
        assert 0.02 < float(off.square().mean().sqrt()) < 0.1 and noise == 0.05


def test_one_sign_has_one_meaning(model: Model, splits: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    """After ± stands the half width of the 95 % interval, along the way and at the end, as `evaluate` has it."""
    report, said = reporter(model, splits, tmp_path)
    found = report.validation(model, LossByLogSNR(-1, 1))
    numbers = found.numbers
    report.finish(model)
    options = model.config.report
    short = evaluate(model, splits[1], method=BoundEstimator(draws=options.draws), limit=options.images)
    last = evaluate(model, splits[1], limit=FINAL_IMAGES)

    line = re.fullmatch(
        r"step 40: held-out (\S+) ± (\S+) bits/dim at 95 % \(prior .*, diffusion .*, decoder .*\), "
        r"(\S+) ± (\S+) above training examples",
        said[0],
    )
    assert line and interval(*line.groups()[:2]) == expected(short)
    (row,) = (row for row in said[1].splitlines() if row.startswith("total"))
    assert "± 95 %" in said[1].splitlines()[1]
    assert interval(*row.split()[1:3]) == expected(last)

    # The file of rows keeps the standard error, which is not what was printed.
    assert numbers["held_out/total_bits_per_dim"] == short.mean["total"]
    assert found.values == short.values

    # The training examples are as many, and their numbers are those of `evaluate` too.
    learned = evaluate(model, splits[0], method=BoundEstimator(draws=options.draws), limit=options.images)
    assert found.gap is not None and (found.gap.training, found.gap.held_out) == (learned.values, short.values)
    gap = short.mean["total"] - learned.mean["total"]
    error = math.hypot(*(np.std(each.values, ddof=1) / 2 for each in (short, learned)))
    assert numbers["training/total_bits_per_dim"] == pytest.approx(learned.mean["total"])
    assert numbers["training/total_bits_per_dim_se"] == pytest.approx(learned.standard_error["total"])
    assert numbers["gap/total_bits_per_dim"] == pytest.approx(gap)
    assert numbers["gap/total_bits_per_dim_se"] == pytest.approx(error)
    assert line and float(line[3]) == round(gap, 4) and float(line[4]) > error
    assert [row[1] for row in found.gap.by_log_snr] == pytest.approx(
        [high - low for (_, high, _), (_, low, _) in zip(short.by_log_snr, learned.by_log_snr, strict=True)]
    )
    assert numbers["held_out/total_bits_per_dim_se"] == short.standard_error["total"] < 0.8 * expected(short)[1]
    assert json.loads((tmp_path / "evaluation.json").read_text())["mean"] == last.mean


def test_the_bound_of_damaged_images_is_in_bits_per_seen_dimension(restorer: Path, tmp_path: Path) -> None:
    """Along the way and at the end, whatever the values are that nobody has seen."""
    restoring = load(restorer, device="cpu")
    data = restoring.config.data
    train, held_out = open_source(data, lambda text: None).split(data.held_out, data.seed)
    seen = (torch.rand(len(held_out), 1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.6).byte()
    values = torch.from_numpy(np.asarray(held_out.values))
    found = []
    for number, others in enumerate((values, 255 - values)):
        stored = torch.where(seen != 0, values, others).numpy()
        damaged = replace(held_out, values=stored, seen=seen.numpy(), contents=None)
        report, said = reporter(restoring, (train, damaged), tmp_path)
        numbers = report.validation(restoring, LossByLogSNR(-1, 1)).numbers
        method, count = BoundEstimator(draws=restoring.config.report.draws), restoring.config.report.images
        expected = evaluate(restoring, damaged, method=method, limit=count)
        assert numbers["held_out/total_bits_per_dim"] == expected.mean["total"] and "bits/dim" in said[0], number
        assert expected.counted is not None and 0.5 < expected.counted / 192 < 0.7
        found.append(numbers)
    assert found[0] == found[1]


def test_training_examples_are_measured_as_far_as_asked(
    model: Model, splits: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    for asked, remembers, measured in ((0, True, None), (2, True, 2), (64, True, 4), (64, False, None)):
        config = replace(model.config, report=replace(model.config.report, training_images=asked))
        report = Reporter(config, tmp_path, *splits, print, remembers=remembers)
        gap = report.validation(model, LossByLogSNR(-1, 1)).gap
        assert (None if gap is None else len(gap.training)) == measured
        assert (tmp_path / "gap_by_log_snr.png").exists() == (measured is not None or asked == 64)


def test_pictures_of_samples_are_from_the_same_noise(
    model: Model, splits: tuple[Dataset, Dataset], tmp_path: Path, trained: Path
) -> None:
    report, _ = reporter(model, splits, tmp_path)
    assert not report.has_samples and not report.has_shown(40)
    report.samples(model)
    assert report.has_samples and report.has_shown(40) and not report.has_shown(20)
    name = "samples/step-00000040.png"
    with Image.open(tmp_path / name) as mine, Image.open(trained / name) as first:
        assert np.array_equal(np.asarray(mine), np.asarray(first))
    info = figures.read_info(tmp_path / name)
    assert info["seed"] == 0 and info["step"] == 40 and info["sampling"]["steps"] == 4


def test_plots_over_log_snr_have_the_marks_of_the_run(trained: Path) -> None:
    assert set(clocks.marks(trained)) >= {"speciation", "collapse"}
    for name in ("loss_by_log_snr.png", GAP_PICTURE):
        assert figures.read_info(trained / name)["marks"] == clocks.marks(trained)


def test_a_run_is_finished_once_its_last_page_is_of_its_last_step(
    model: Model, splits: tuple[Dataset, Dataset], trained: Path, tmp_path: Path
) -> None:
    report, _ = reporter(model, splits, trained)
    assert report.finished(40) and not report.finished(39)
    assert not reporter(model, splits, tmp_path)[0].finished(40)


def test_without_held_out_examples_nothing_is_measured(
    model: Model, splits: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    report = Reporter(model.config, tmp_path, splits[0], splits[1].subset([]), print)
    by_log_snr = LossByLogSNR(-1, 1)
    by_log_snr.update(torch.tensor([-0.5, 0.5]), torch.tensor([1.0, 2.0]))
    assert not report.measures and report.validation(model, by_log_snr) == Validation()
    assert figures.read_info(tmp_path / "loss_by_log_snr.png")["step"] == 40


def test_display_examples_are_spaced_evenly(splits: tuple[Dataset, Dataset]) -> None:
    train, _ = splits
    found = display_examples(train, 4)
    assert found.shape == (4, 3, 8, 8)
    values, _ = train.batch([0, len(train) - 1])
    assert torch.equal(found[[0, -1]], values)


def test_a_run_on_apples_gpu_trains_shows_and_measures(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a tensor met one of another device, or one in float64 were made on MPS, it would be an error."""
    few = {"report": {"pictures": 1, "images": 1, "restored": 0}, "sampling": {"steps": 1}, "data": {"held_out": 0.05}}
    experiment = tiny(shapes, training={"steps": 2, "batch": 4}, **few)
    monkeypatch.setattr("diffusion.model.model.FILM_STEPS", 2)
    monkeypatch.setenv("DIFFUSION_DEVICE", "mps")
    for state in (PartialState, AcceleratorState):
        monkeypatch.setattr(state, "_shared_state", {})  # As in a new process.
    with pretended("mps"):
        assert train(experiment, tmp_path) == 0
    last = json.loads((tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert last["step"] == 2 and any("bound" in name or "bits" in name for name in last), last


def damaged(folder: Path, hidden: int) -> Path:
    """Twenty images of which a quarter is transparent, in one corner or another; its hidden colors are `hidden`."""
    rng = np.random.default_rng(3)
    folder.mkdir()
    for i in range(20):
        pixels = np.dstack([rng.integers(0, 256, (8, 8, 3), np.uint8), np.full((8, 8), 255, np.uint8)])
        top, left = 4 * (i % 2), 4 * (i // 2 % 2)
        pixels[top : top + 4, left : left + 4] = hidden, hidden, hidden, 0
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


def test_a_run_on_damaged_images_learns_nothing_of_what_lies_in_their_holes(tmp_path: Path) -> None:
    """Two folders that differ in hidden colors give the same weights and numbers; pictures show holes as holes."""
    runs, settings = [], {"steps": 3, "batch": 4}
    for hidden in (0, 255):
        folder = damaged(tmp_path / f"images{hidden}", hidden)
        data = {"labels": False, "masks": "alpha", "margin": 1, "flip": True}
        report = {"pictures": 4, "images": 2, "restored": 2, "samples": 3, "evaluate": 3}
        experiment = tiny(folder, training=settings, data=data, report=report, sampling={"steps": 2})
        assert train(experiment, tmp_path / f"run{hidden}") == 0
        runs.append(tmp_path / f"run{hidden}")
    one, other = (load(run, device="cpu") for run in runs)
    assert one.denoiser.backbone.mapped
    for a, b in zip(one.denoiser.backbone.parameters(), other.denoiser.backbone.parameters(), strict=True):
        assert torch.equal(a, b)
    for name in ("samples/real.png", "restoration.png", "samples.png"):
        with Image.open(runs[0] / name) as first, Image.open(runs[1] / name) as second:
            assert np.array_equal(np.asarray(first), np.asarray(second)), name
    assert (
        json.loads((runs[0] / "evaluation.json").read_text())["mean"]
        == (json.loads((runs[1] / "evaluation.json").read_text())["mean"])
    )

    train_set, _ = open_source(one.config.data, lambda text: None).split(0.2, 0)
    x, seen = shown_examples(one, train_set, 4)
    assert seen is not None and seen.float().mean() == 0.75
    grays = torch.tensor(figures.CHECKER)
    assert all(bool(torch.isin(x[:, c : c + 1][~seen], grays).all()) for c in range(3))
    with Image.open(runs[0] / "samples" / "real.png") as picture:
        values = np.asarray(picture)
    assert all((values == round(255 * gray)).all(2).mean() > 0.05 for gray in figures.CHECKER)


def test_a_report_that_cannot_be_written_is_said_once_and_ends_nothing(
    model: Model, splits: tuple[Dataset, Dataset], trained: Path, tmp_path: Path
) -> None:
    report, said = reporter(model, splits, tmp_path / "missing")
    report.page()
    report.page("finished")
    assert len(said) == 1 and "report.html: cannot be written (" in said[0] and "the run goes on without it" in said[0]
    assert "finished" in (trained / "report.html").read_text()
