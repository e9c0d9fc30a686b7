"""A run ends when its held-out bound does not improve by more than chance, and goes on exactly until then."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffusion import checkpoint, distributed
from diffusion.config import Config, ConfigError, from_dict, override, to_dict
from diffusion.data import open_source
from diffusion.errors import InputError
from diffusion.evaluation import BoundEstimator, evaluate
from diffusion.interrupt import Stopped
from diffusion.model import Model, load
from diffusion.training import train
from diffusion.training.metrics import METRICS
from diffusion.training.patience import Patience, check
from diffusion.training.report import Reporter, Validation
from diffusion.training.trainer import Trainer
from diffusion.training.verify import verify_resume
from tests.conftest import tiny
from tests.training.test_trainer import assert_equal, losses, rows, weights

Patch = pytest.MonkeyPatch
COUNT = 64
SPREAD = torch.randn(COUNT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def bounds(mean: float, seed: int, noise: float = 0.01) -> list[float]:
    """Bounds of the same examples, one bit apart, each with noise of its own."""
    drawn = torch.randn(COUNT, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (mean + SPREAD + noise * (drawn - drawn.mean()) / drawn.std()).tolist()


def judged(limit: int, *validations: list[float]) -> tuple[Patience, list[int]]:
    """Judges validations one after the other; returns how many did not improve in a row after each."""
    patience, waited = Patience(limit), []
    for step, values in enumerate(validations, 1):
        patience.judge(step, values, "the same")
        waited.append(patience.waited)
    return patience, waited


def test_differences_of_the_same_examples_show_what_their_bounds_alone_do_not() -> None:
    """A gain of 0.005 is 2.8 standard errors of the difference, √2 · 0.01/√64, and 0.04 of those of a bound, 1/√64."""
    _, waited = judged(3, bounds(3, 1), bounds(2.995, 2))
    assert waited == [0, 0]
    patience = Patience(3)
    patience.judge(1, bounds(3, 1), "")
    better = patience.judge(2, bounds(2.995, 2), "")
    assert better is not None and better.mean == pytest.approx(0.005)
    assert better.half_width == pytest.approx(2.0 * 2**0.5 * 0.01 / 8, rel=0.2)


def test_a_run_ends_after_as_many_validations_without_improvement_as_it_has_patience_for() -> None:
    """Means that fall, stay, fall again, and rise: what does not fall is counted, and a fall begins the count anew."""
    means = (3.0, 2.9, 2.9, 2.9, 2.8, 2.8, 2.85, 2.9)
    patience, waited = judged(3, *(bounds(mean, seed) for seed, mean in enumerate(means)))
    assert waited == [0, 0, 1, 2, 0, 1, 2, 3]
    assert patience.over and (patience.best, patience.judged) == (5, 8)
    assert not judged(4, *(bounds(mean, seed) for seed, mean in enumerate(means)))[0].over
    assert not judged(0, *(bounds(3, seed) for seed in range(20)))[0].over, "0 is no patience at all"


def test_small_improvements_add_up() -> None:
    """Steps of a third of what is seen are seen every third or fourth time."""
    patience, waited = judged(5, *(bounds(3 - 0.0013 * i, i) for i in range(40)))
    assert not patience.over and 1 <= max(waited) <= 4 and waited.count(0) > 6


def test_noise_alone_is_taken_for_an_improvement_as_rarely_as_an_interval_is_wrong() -> None:
    """In one of 40 pairs the 95 % interval of a difference that is zero lies above it."""
    generator, found = torch.Generator().manual_seed(5), 0
    for _ in range(2000):
        one, two = torch.randn(2, COUNT, generator=generator, dtype=torch.float64) + SPREAD
        found += judged(1, one.tolist(), two.tolist())[1] == [0, 0]
    expected, error = 2000 / 40, math.sqrt(2000 / 40)
    assert abs(found - expected) < 3 * error, f"{found} of 2000"


def test_what_differs_by_a_constant_is_certain_and_one_example_is_never() -> None:
    assert judged(2, [3.0, 5.0], [2.5, 4.5], [2.5, 4.5])[1] == [0, 0, 1]
    assert judged(2, [3.0], [1.0])[1] == [0, 1]


def test_the_state_goes_through_a_checkpoint_and_other_examples_begin_anew() -> None:
    patience, _ = judged(3, bounds(3, 1), bounds(2.9, 2), bounds(2.9, 3))
    other = Patience(3)
    assert other.state_dict() == {}
    other.load_state_dict(patience.state_dict())
    for each in (patience, other):
        each.judge(4, bounds(2.9, 4), "the same")
        assert (each.best, each.judged, each.waited) == (2, 4, 2)
    assert other.state_dict().keys() == patience.state_dict().keys()
    assert all(torch.equal(value, patience.state_dict()[name]) for name, value in other.state_dict().items())
    assert other.judge(5, bounds(4, 4), "others") is None and (other.best, other.waited) == (5, 0)
    assert patience.judge(5, bounds(4, 4)[1:], "the same") is None and (patience.best, patience.waited) == (5, 0)
    other.load_state_dict({})
    assert (other.judged, other.waited, len(other.values)) == (-1, 0, 0)


def test_all_processes_decide_alike(monkeypatch: Patch) -> None:
    monkeypatch.setattr(distributed, "largest", lambda value: 1)
    assert judged(3, bounds(3, 1), bounds(3.1, 2))[1] == [0, 0], "another process saw an improvement"


def test_good_values_are_kept_and_bad_ones_refused(shapes: Path) -> None:
    patient = tiny(shapes, training={"patience": 7, "init": "hf://owner/name@v1"})
    assert from_dict(to_dict(patient)) == patient and override(tiny(shapes), ["training.patience=7"]) == tiny(
        shapes, training={"patience": 7}
    )
    for sections, message in (
        ({"training": {"patience": -1}}, r"training\.patience: .*greater than or equal to 0, got -1"),
        ({"training": {"patience": 1}, "distillation": {"teacher": "a"}}, "must be 0 with distillation.teacher"),
        ({"training": {"patience": 2, "em": 1}, "observed": {"share": 0.5}}, "must be 0 with training.em, .* got 2"),
        ({"training": {"patience": 2}, "data": {"held_out": 0}}, r"data\.held_out: must be above 0 with training.pat"),
        ({"training": {"patience": 2}, "report": {"images": 1}}, r"report\.images: must be at least 2 with training.p"),
    ):
        with pytest.raises(ConfigError, match=message):
            tiny(shapes, **sections)
    few = tiny(shapes, training={"patience": 2}, data={"held_out": 1e-9})
    dataset = open_source(few.data, lambda line: None)
    with pytest.raises(InputError, match=r"data\.held_out: must be large enough to keep two examples"):
        check(few, dataset.split(1e-9, 0)[1])
    check(tiny(shapes, data={"held_out": 1e-9}), dataset.subset([]))


# Runs whose validations come out as they are told: the mean bound by step.
MEANS = {2: 3.0, 4: 2.9, 6: 2.9, 8: 2.8, 10: 2.85, 12: 2.81, 14: 2.9}


@pytest.fixture
def told(monkeypatch: Patch) -> None:
    def validation(self: Reporter, model: Model, losses: object) -> Validation:
        values = bounds(MEANS[model.step], model.step)
        return Validation({"held_out/total_bits_per_dim": sum(values) / COUNT}, tuple(values))

    monkeypatch.setattr(Reporter, "validation", validation)
    monkeypatch.setattr(Reporter, "samples", lambda self, model: None)
    monkeypatch.setattr(Reporter, "finish", lambda self, model: None)


def experiment(shapes: Path, patience: int = 2, **training: object) -> Config:
    report: dict[str, object] = {"evaluate": 2, "samples": 100, "checkpoint": 100}
    return tiny(shapes, training={"steps": 14, "patience": patience, **training}, report=report)


def test_a_run_that_ends_early_ends_as_any_run(
    told: None, shapes: Path, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, shown = tmp_path / "run", []
    monkeypatch.setattr(Reporter, "samples", lambda self, model: shown.append(("samples", model.step)))
    monkeypatch.setattr(Reporter, "finish", lambda self, model: shown.append(("finish", model.step)))
    assert train(experiment(shapes), run) == 0
    assert load(run).step == 12 and shown == [("samples", 12), ("finish", 12)]
    text = capsys.readouterr().out
    lowest = f"it was lowest at step 8: {rows(run)[-1]['held_out/total_bits_per_dim'] - 0.01:.4f}"
    assert (
        "training.patience: ended at step 12, as 2 validations in a row did not improve the held-out bound of step 8; "
        f"{lowest}"
    ) in text.splitlines()
    assert "training.patience: step 10 is worse by 0.0500 ± 0.00" in text and "step 8: no improvement, 1 of 2" in text
    assert f"commands take {run / 'checkpoints' / 'step-00000008'} for a run" in text
    before = (run / METRICS).read_text()
    assert train(experiment(shapes), run) == 0
    assert f"{run}: ended at step 12; to go on, raise training.patience, or set it to 0" in capsys.readouterr().out
    assert load(run).step == 12 and (run / METRICS).read_text() == before


def interrupted_at(step: int) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(Trainer, "_signal", lambda self, interrupt: 2 if self.step == step else 0)


def interrupted_in_validation(step: int) -> Callable[[Patch], None]:
    def prepare(patch: Patch) -> None:
        validation = Reporter.validation

        def stopped(self: Reporter, model: Model, losses: object) -> Validation:
            if model.step == step:
                raise Stopped(2)
            return validation(self, model, losses)  # type: ignore[arg-type]

        patch.setattr(Reporter, "validation", stopped)

    return prepare


def interrupted_after_validation(step: int) -> Callable[[Patch], None]:
    """When the numbers of a step are written, and its checkpoint does not know them."""

    def prepare(patch: Patch) -> None:
        judge = Trainer._judge

        def stopped(self: Trainer, found: Validation) -> None:
            if self.step == step:
                raise Stopped(2)
            judge(self, found)

        patch.setattr(Trainer, "_judge", stopped)

    return prepare


def test_a_run_with_patience_goes_on_exactly_wherever_it_was_interrupted(
    told: None, shapes: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(experiment(shapes), whole) == 0
    for interrupt in (
        *(interrupted_at(3), interrupted_at(4), interrupted_after_validation(6), interrupted_in_validation(8)),
        *(interrupted_after_validation(8), interrupted_at(9), interrupted_after_validation(10)),
        *(interrupted_in_validation(12), interrupted_after_validation(12)),
    ):
        with monkeypatch.context() as patch:
            interrupt(patch)
            assert train(experiment(shapes), parts) == 130
    assert train(experiment(shapes), parts) == 0
    assert_equal(weights(whole), weights(parts))
    assert losses(whole) == losses(parts)
    held_out = [
        [(row["step"], row["held_out/total_bits_per_dim"]) for row in rows(run) if len(row) == 2]
        for run in (whole, parts)
    ]
    assert held_out[0] == held_out[1] and [step for step, _ in held_out[0]] == [2, 4, 6, 8, 10, 12]


def test_more_patience_goes_on_as_if_it_had_been_there_from_the_beginning(
    told: None, shapes: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(experiment(shapes, 3), whole) == 0
    for patience, step in ((1, 6), (2, 12), (3, 14)):
        assert train(experiment(shapes, patience), parts) == 0
        assert load(parts).step == step
    assert_equal(weights(whole), weights(parts))
    none = tmp_path / "none"
    assert train(experiment(shapes, 0), none) == 0
    assert not [name for name in weights(none) if "patience" in name]
    assert_equal({k: v for k, v in weights(whole).items() if "patience" not in k}, weights(none))


def test_a_run_that_begins_from_another_and_has_patience_resumes_to_the_last_bit(trained: Path, shapes: Path) -> None:
    """Nothing is told here: what is measured decides, before the first step too."""
    begun = tiny(shapes, training={"init": str(trained), "patience": 2}, report={"evaluate": 2, "images": 4})
    assert verify_resume(begun, 6) == []


def test_a_run_is_measured_before_its_first_step_if_it_begins_from_another(
    trained: Path, shapes: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    """The bound of step 0 is that of the source, and whether later ones improve is judged by it."""
    for name in ("samples", "finish"):
        monkeypatch.setattr(Reporter, name, lambda self, model: None)
    run, report = tmp_path / "run", {"evaluate": 1, "images": 8}
    # At this rate no step improves anything.
    training = {"init": str(trained), "patience": 2, "lr": 1e-12, "steps": 5}
    assert train(tiny(shapes, training=training, report=report), run) == 0
    source, data = load(trained), tiny(shapes).data
    held_out = open_source(data, lambda line: None).split(data.held_out, data.seed)[1]
    expected = evaluate(source, held_out, method=BoundEstimator(draws=2), limit=8)
    first = next(row for row in rows(run) if "held_out/total_bits_per_dim" in row)
    assert (first["step"], first["held_out/total_bits_per_dim"]) == (0, expected.mean["total"])
    assert load(run).step == 2 and json.loads((run / "config.json").read_text())["training"]["patience"] == 2
    numbers = checkpoint.read(checkpoint.find(run)[0], "training").tensors["patience/numbers"]
    assert numbers.tolist() == [2, 0, 2]
