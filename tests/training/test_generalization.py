"""What a model remembers is seen when it does, at the noise levels where it does, and hardly ever when it does not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion import checkpoint, distributed, figures
from diffusion.config import Config, from_dict
from diffusion.data import Dataset, DataSpec
from diffusion.denoiser import Denoiser, V
from diffusion.interrupt import Stopped
from diffusion.likelihood.units import bits
from diffusion.model import Model
from diffusion.reporting.run_folder import RunFolder
from diffusion.reporting.summary import curves, summary
from diffusion.schedules import EDM
from diffusion.training import train
from diffusion.training.generalization import Gap, Generalization, difference, most
from diffusion.training.monitor import LossByLogSNR
from diffusion.training.report import Reporter, Validation
from diffusion.training.trainer import Trainer
from tests.conftest import tiny
from tests.oracles import GaussianOracle, MixtureOracle, OracleNetwork
from tests.training.test_trainer import assert_equal, rows, weights

Patch = pytest.MonkeyPatch
COUNT = 60


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def validations(count: int, seed: int, memory: Callable[[int], float] = lambda k: 0.0) -> Iterator[Gap]:
    """Bounds of examples that differ, that improve unequally, and whose improvements wander, by validation.

    Those of training examples improve further by `memory` of the number of the validation.
    """
    generator = torch.Generator().manual_seed(seed)
    difficulty, ease, walk = normal(generator, 2, COUNT), normal(generator, 2, COUNT), torch.zeros(2, COUNT).double()
    for k in range(1, count + 1):
        walk += 0.02 * normal(generator, 2, COUNT)
        both = 4 + difficulty + (3 + ease) / k + walk + 0.01 * normal(generator, 2, COUNT)
        yield Gap("bits/dim", tuple((both[0] - memory(k)).tolist()), tuple(both[1].tolist()))


def judged(count: int, seed: int, memory: Callable[[int], float] = lambda k: 0.0) -> Generalization:
    found = Generalization()
    for k, gap in enumerate(validations(count, seed, memory), 1):
        found.judge(100 * k, gap)
    return found


def test_a_run_that_remembers_nothing_is_said_to_in_at_most_one_of_twenty() -> None:
    """Over 20 validations of a run. A level of 5 % at each of them would be wrong far more often."""
    runs, false, uncorrected = 200, 0, 0
    for seed in range(runs):
        found, above = Generalization(), False
        for k, gap in enumerate(validations(20, seed), 1):
            found.judge(k, gap)
            assert found.growth is not None and found.growth.size.half_width is not None
            above |= found.growth.size.mean > found.growth.size.half_width
        false, uncorrected = false + (found.opened > 0), uncorrected + above
    # The levels add up to 5 %, and two of the runs more are chance.
    assert false <= 0.05 * runs + 2 * math.sqrt(0.05 * runs), f"{false} of {runs}"
    assert uncorrected > 0.06 * runs, f"{uncorrected} of {runs}"


def test_the_interval_of_a_difference_covers_it_as_often_as_it_says() -> None:
    generator, covered, runs = torch.Generator().manual_seed(0), 0, 2000
    for _ in range(runs):
        found = difference(1 + normal(generator, 30), 2 * normal(generator, 20))
        assert found.half_width is not None
        covered += abs(found.mean - 1) < found.half_width
    assert abs(covered / runs - 0.95) < 3 * math.sqrt(0.95 * 0.05 / runs), f"{covered} of {runs}"
    one, two = torch.tensor([1.0, 3.0, 8.0]).double(), torch.tensor([2.0, 4.0]).double()
    found = difference(one, two)
    # Var = (9 + 1 + 16)/2 and 2, and t(3) = 3.1824.
    assert found.mean == 1.0 and found.standard_error == pytest.approx(math.sqrt(13 / 3 + 2 / 2))
    assert found.half_width == pytest.approx(3.18245 * math.sqrt(13 / 3 + 1), rel=1e-4)
    assert difference(one, two[:1]).half_width is None


def test_memory_is_said_once_when_it_begins_and_its_growth_is_measured() -> None:
    """Nothing is remembered until validation 10; after that 0.1 bits more at each one."""
    opened, seeds = [], 20
    for seed in range(seeds):
        found, said = Generalization(), []
        for k, gap in enumerate(validations(20, seed, lambda k: 0.1 * max(0, k - 10)), 1):
            if found.judge(100 * k, gap):
                said.append(found.said())
        opened.append(found.opened)
        assert len(said) == 1 and said[0].startswith(f"step {found.opened}: the model begins to remember: ")
        assert found.growth is not None and found.growth.since == 800
        assert abs(found.growth.size.mean - 1.0) < 2 * (found.growth.size.half_width or 0)
    assert sum(1100 <= step <= 1500 for step in opened) >= 0.95 * seeds, opened
    early = judged(1, 0, lambda k: 3.0)
    assert early.opened == 100 and "remember: the bound of training examples is 3." in early.said()
    assert "bits/dim below that of held-out ones" in early.said()


def test_a_validation_is_compared_with_the_largest_power_of_two_up_to_its_half() -> None:
    found, since = Generalization(), []
    for k, gap in enumerate(validations(17, 0), 1):
        found.judge(k, gap)
        assert found.growth is not None
        since.append(found.growth.since)
    assert since == [None, 1, 1, 2, 2, 2, 2, *[4] * 8, 8, 8]


def test_the_fewest_adjacent_bins_with_most_of_the_growth_are_named() -> None:
    log_snrs = [-3.0, -1.0, 1.0, 3.0, 5.0]
    assert most(log_snrs, torch.tensor([0.0, 1.0, 5.0, 3.0, 0.0]).double()) == (0.0, 4.0)
    assert most(log_snrs, torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0]).double()) == (2.0, 4.0)
    assert most(log_snrs, torch.ones(5).double()) in ((-4.0, 4.0), (-2.0, 6.0))
    assert most(log_snrs, -torch.ones(5).double()) is None and most([], torch.zeros(0)) is None


def test_the_state_goes_through_a_checkpoint_and_other_examples_begin_anew() -> None:
    whole, parts = Generalization(), Generalization()
    assert parts.state_dict() == {}
    for k, gap in enumerate(validations(12, 1, lambda k: 0.2 * max(0, k - 4)), 1):
        gap = replace(gap, by_log_snr=((-1.0, 0.1 * k, 0.1), (1.0, 0.3 * k, 0.1)), examples="the same")
        again = Generalization()
        again.load_state_dict(parts.state_dict())
        parts = again
        assert whole.judge(k, gap) == parts.judge(k, gap) and not parts.judge(k, gap)
        assert whole.growth == parts.growth and whole.numbers == parts.numbers
    assert whole.opened == parts.opened > 4
    assert_equal(whole.state_dict(), parts.state_dict())
    assert not parts.judge(13, replace(gap, examples="others")) and (parts.count, parts.opened) == (1, whole.opened)
    assert parts.growth is not None and parts.growth.since is None
    parts.load_state_dict({})
    assert (parts.judged, parts.count, parts.opened, parts.moments) == (-1, 0, -1, ())


def test_all_processes_decide_alike(monkeypatch: Patch) -> None:
    monkeypatch.setattr(distributed, "largest", lambda value: 1)
    assert judged(1, 0).opened == 100, "another process saw it"


# Points in the plane: the model knows their distribution, or has a Gaussian of a width at each training example.
SCHEDULE, LEARNED = EDM(0.01, 100.0), 100
TRUTH = GaussianOracle(SCHEDULE, torch.zeros(2).double(), torch.eye(2).double())


def points(count: int, seed: int) -> Dataset:
    values = TRUTH.sample(count, torch.Generator().manual_seed(seed)).float().numpy()
    return Dataset(values, DataSpec((2,), None), None, [str(i) for i in range(count)])


def of_oracle(oracle: GaussianOracle | MixtureOracle, step: int) -> Model:
    denoiser = Denoiser(OracleNetwork(oracle, V()), SCHEDULE, V())
    return Model(denoiser, DataSpec((2,), None), from_dict({"report": {"images": LEARNED, "draws": 16}}), step)


def remembering(examples: Dataset, width: float) -> MixtureOracle:
    atoms = torch.from_numpy(np.asarray(examples.values)).double()
    return MixtureOracle(SCHEDULE, atoms, width**2, torch.full((len(atoms),), 1 / len(atoms)).double())


def test_the_gap_of_a_model_that_remembers_is_that_of_its_density(tmp_path: Path) -> None:
    """The bound on -log p of a mixture of Gaussians at the training examples, against its closed form."""
    learned, others = points(LEARNED, 0), points(LEARNED, 1)
    oracle, found = remembering(learned, 0.2), Generalization()
    said: list[str] = []
    reporter = Reporter(of_oracle(TRUTH, 0).config, tmp_path, learned, others, said.append)
    for step, each in ((10, TRUTH), (20, TRUTH), (30, oracle)):
        gap = reporter.validation(of_oracle(each, step), LossByLogSNR(-1, 1)).gap
        assert gap is not None and found.judge(step, gap) == (step == 30)
    x = [torch.from_numpy(np.asarray(each.values)).double() for each in (others, learned)]
    exact, before = (bits(float(density.nll(x[0]).mean() - density.nll(x[1]).mean())) for density in (oracle, TRUTH))
    assert found.growth is not None and found.growth.unit == "bits/vector"
    assert found.growth.size.half_width is not None and found.growth.size.half_width < exact - before
    assert abs(found.growth.size.mean - (exact - before)) < 0.1 * exact, f"{found.growth} and {exact - before:.4f}"
    # Noise as wide as the Gaussians has the log-SNR -2 log 0.2 = 3.2: more of it hides which example it is.
    assert found.growth.where is not None
    low, high = found.growth.where
    assert 1 < low < 3.2 < high < 7, found.growth
    assert "bits/vector more than that of held-out ones, most of it at log-SNRs from" in found.said()
    info = figures.read_info(tmp_path / "gap_by_log_snr.png")
    assert {*info["curves"]} == {"held-out", "training", "difference"} and info["unit"] == "bits/vector"
    inside = [gap * 18.42 / 24 for log_snr, gap, _ in info["curves"]["difference"]]
    assert gap is not None and sum(inside) == pytest.approx(gap.total.mean, abs=0.02)


# Runs whose gap comes out as it is told: nothing is remembered until step 6.
def told_gap(step: int) -> Gap:
    *_, gap = validations(step // 2, 3, lambda k: 0.0 if k < 4 else 2.0)
    return replace(gap, examples="told")


@pytest.fixture
def told(monkeypatch: Patch) -> None:
    def validation(self: Reporter, model: Model, losses: object) -> Validation:
        gap = told_gap(model.step) if self.config.report.training_images else None
        numbers = {"held_out/total_bits_per_dim": 3.0, **({} if gap is None else gap.numbers)}
        return Validation(numbers, (3.0, 3.5, 2.5), gap)

    monkeypatch.setattr(Reporter, "validation", validation)
    monkeypatch.setattr(Reporter, "samples", lambda self, model: None)
    monkeypatch.setattr(Reporter, "finish", lambda self, model: None)


def experiment(shapes: Path, patience: int = 0, steps: int = 14) -> Config:
    report: dict[str, object] = {"evaluate": 2, "samples": 100, "checkpoint": 2}
    return tiny(shapes, training={"steps": steps, "patience": patience}, report=report)


LINE = "step 8: the model begins to remember: since step 4 the bound of training examples has fallen by "


def test_a_run_that_goes_on_compares_with_the_same_validations_and_says_it_once(
    told: None, shapes: Path, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(experiment(shapes), whole) == 0
    text = capsys.readouterr().out
    assert text.count(LINE) == 1 and text.count("the model began to remember at step 8; at step 14 the bound ") == 1
    judge = Generalization.judge
    for stop, late in ((2, True), (6, False), (8, False), (8, True)):  # Before and after it is written and said.

        def judged(self: Generalization, step: int, gap: Gap, stop: int = stop, late: bool = late) -> bool:
            if step == stop and not late:
                raise Stopped(2)
            return judge(self, step, gap)

        def after(self: Trainer, found: Validation, stop: int = stop, late: bool = late) -> None:
            if self.step == stop and late:
                raise Stopped(2)

        with monkeypatch.context() as patch:
            patch.setattr(Generalization, "judge", judged)
            patch.setattr(Trainer, "_judge", after)
            assert train(experiment(shapes), parts) == 130
    assert train(experiment(shapes), parts) == 0
    assert capsys.readouterr().out.count(LINE) == 1
    assert_equal(weights(whole), weights(parts))
    assert [row for row in rows(whole) if "loss" not in row] == [row for row in rows(parts) if "loss" not in row]
    for run in (whole, parts):
        (line,) = RunFolder(run).incidents
        assert line.startswith(LINE) and summary(RunFolder(run))["remembers"] == 8
    measured = rows(whole)[-1]
    assert measured["gap/opened"] == 8 and "gap/growth_bits_per_dim_se" in measured
    before = (whole / "metrics.jsonl").read_text()
    assert train(experiment(shapes), whole) == 0 and (whole / "metrics.jsonl").read_text() == before


def test_patience_ends_a_run_where_it_did_and_names_what_is_remembered(
    told: None, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = []
    for number, images in enumerate((0, 4)):
        run = tmp_path / str(number)
        patient = experiment(shapes, 4)
        assert train(replace(patient, report=replace(patient.report, training_images=images)), run) == 0
        numbers = weights(run)["training/patience/numbers"].tolist()
        ends.append((checkpoint.step_of(checkpoint.folders(run)[0]), numbers))
        assert ("; the model remembers training examples since step 8" in capsys.readouterr().out) == (images > 0)
    assert ends == [(10, [10, 2, 4])] * 2


def test_a_run_of_an_earlier_version_goes_on_and_compares_from_there(told: None, shapes: Path, tmp_path: Path) -> None:
    """Neither its configuration nor its checkpoint knows of training examples."""
    early = experiment(shapes, steps=5)
    assert train(replace(early, report=replace(early.report, training_images=0)), tmp_path) == 0
    assert not [name for name in weights(tmp_path) if "generalization" in name]
    config = json.loads((tmp_path / "config.json").read_text())
    del config["report"]["training_images"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert train(experiment(shapes), tmp_path) == 0
    measured = [row for row in rows(tmp_path) if "gap/total_bits_per_dim" in row]
    assert [row["step"] for row in measured] == [6, 8, 10, 12, 14]
    assert ["gap/growth_bits_per_dim" in row for row in measured] == [False, True, True, True, True]
    assert [row.get("gap/opened") for row in measured] == [None, 8, 8, 8, 8]


def noise_images(folder: Path, count: int) -> Path:
    """Images of noise: nothing of one says anything of another, so that all that is learned of them is memory."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(folder / f"{i:02d}.png")
    return folder


def test_a_network_remembers_a_few_images_of_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its held-out bound rises from the beginning, and what it gains on the others is said and drawn."""
    run = tmp_path / "run"
    experiment = tiny(
        noise_images(tmp_path / "images", 24),
        data={"labels": False, "channels": 1, "held_out": 0.5},
        backbone={"channels": [32, 32], "attention": []},
        training={"steps": 60, "batch": 16, "lr": 0.02},
        report={"evaluate": 20, "images": 16, "draws": 8, "restored": 0, "pictures": 1},
    )
    assert train(experiment, run) == 0
    text = capsys.readouterr().out
    assert text.count("step 40: the model begins to remember: since step 20 the bound of training examples") == 1, text
    found, last = curves(RunFolder(run)), rows(run)[-1]
    gap = [high - low for high, low in zip(found["bits"]["y"], found["training_bits"]["y"], strict=True)]
    assert found["training_bits"]["x"] == [20, 40, 60] and found["training_bits"]["unit"] == "bits/dim"
    assert gap == sorted(gap) and gap[-1] == pytest.approx(last["gap/total_bits_per_dim"]) and gap[-1] > 0.2
    assert figures.read_info(run / "gap_by_log_snr.png")["unit"] == "bits/dim"
