"""Runs: exact resumption, signals, what is refused, what is left in the run folder."""

from __future__ import annotations

import io
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import accelerate.state
import numpy as np
import pytest
import torch
from accelerate.state import PartialState
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from diffusion import checkpoint, figures
from diffusion.checkpoint import CheckpointError
from diffusion.config import Config, ConfigError, to_dict
from diffusion.data import open_source
from diffusion.errors import InputError
from diffusion.model import Model, load
from diffusion.objectives import Batch, Objective
from diffusion.reporting import requests
from diffusion.reporting.run_folder import RunFolder
from diffusion.training import metrics, train
from diffusion.training import trainer as trainer_file
from diffusion.training.report import Reporter
from diffusion.training.trainer import Outcome, Trainer, join
from tests.conftest import HANGS_S, tiny
from tests.forkserver import launch
from tests.machines import machine

ROOT = Path(__file__).parents[2]


def start(experiment: Config, run: Path) -> Trainer:
    run.mkdir(exist_ok=True)
    dataset = open_source(experiment.data, lambda text: None)
    return Trainer(experiment, *dataset.split(experiment.data.held_out, experiment.data.seed), run)


def go(experiment: Config, run: Path, monkeypatch: pytest.MonkeyPatch, stop: int | None = None) -> Outcome:
    """Trains to the end, or as if SIGINT had come in step `stop`; without the pictures along the way."""
    run.mkdir(exist_ok=True)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_show", lambda self, samples, evaluation: None)
        if stop is not None:
            patch.setattr(Trainer, "_signal", lambda self, interrupt: signal.SIGINT if self.step == stop else 0)
        return start(experiment, run).train()


def weights(run: Path) -> dict[str, Tensor]:
    folder, problems = checkpoint.find(run)
    assert problems == []
    return {
        f"{part}/{k}": v for part in ("model", "training") for k, v in checkpoint.read(folder, part).tensors.items()
    }


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[tuple[float, float]]:
    return [(row["step"], row["loss"]) for row in rows(run) if "loss" in row]


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("design", ["magnitude", "group_norm"])
@pytest.mark.parametrize("stops", [(1,), (5,), (4, 11)])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...], design: str
) -> None:
    experiment = tiny(
        shapes,
        data={"flip": True, "margin": 1},
        backbone={"dropout": 0.2, "design": design},
        training={"accumulate": 2, "label_dropout": 0.3, "weight_decay": 0.01},
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert go(experiment, whole, monkeypatch).exit_code == 0
    for stop in stops:
        assert go(experiment, parts, monkeypatch, stop).exit_code == 130
    assert go(experiment, parts, monkeypatch).exit_code == 0
    assert_equal(weights(whole), weights(parts))
    assert losses(whole) == losses(parts) and [step for step, _ in losses(whole)] == list(range(1, 13))
    descriptions = [checkpoint.read(checkpoint.find(run)[0], "model").description for run in (whole, parts)]
    assert descriptions[0] == descriptions[1]


def test_numbers_over_several_steps_go_on_too(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = tiny(shapes, report={"log": 5})
    go(experiment, tmp_path / "whole", monkeypatch)
    for stop in (3, 8, None):
        go(experiment, tmp_path / "parts", monkeypatch, stop)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert [step for step, _ in losses(tmp_path / "parts")] == [5, 10, 12]


@pytest.mark.parametrize("stops", [(2,), (3,), (5, 11)])
def test_a_run_that_measures_its_noise_levels_goes_on_with_what_it_measured(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...]
) -> None:
    experiment = tiny(
        shapes,
        noise_levels={"name": "measured", "bins": 4, "every": 3},
        weighting={"name": "exact"},
        training={"accumulate": 2},
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    go(experiment, whole, monkeypatch)
    for stop in (*stops, None):
        go(experiment, parts, monkeypatch, stop)
    assert_equal(weights(whole), weights(parts))
    assert losses(whole) == losses(parts)
    shares = weights(whole)["training/adaptive/shares"]
    assert float(shares.max() / shares.min()) > 2, "far from where it began"


def test_resumption_repeats_the_steps_after_the_newest_checkpoint(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny(shapes, report={"checkpoint": 5})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    go(experiment, whole, monkeypatch)
    go(experiment, parts, monkeypatch, stop=8)
    (parts / "checkpoints" / "step-00000008" / "model.safetensors").unlink()
    with (parts / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    go(experiment, parts, monkeypatch)
    assert_equal(weights(whole), weights(parts))
    assert losses(whole) == losses(parts)
    assert [f.name for f in checkpoint.folders(parts)] == ["step-00000012", "step-00000010"]


def test_strict_refuses_to_go_on_from_an_older_checkpoint(
    shapes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = tiny(shapes, training={"steps": 40}, report={"checkpoint": 20, "samples": 20, "evaluate": 20})
    (run / "checkpoints" / "step-00000040" / "training.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"--strict refuses(.|\n)*step-00000040: damaged") as caught:
        train(experiment, run, strict=True)
    assert "step-00000020" not in str(caught.value)
    checkpoint.verify(run / "checkpoints" / "step-00000020")


def test_the_checkpoint_with_the_best_bound_is_kept(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    totals = {2: 5.0, 4: 3.0, 6: 4.0}

    def show(self: Trainer, *, samples: bool, evaluation: bool) -> None:
        if self.step in totals:
            self._record({"held_out/total_bits_per_dim": totals[self.step], "held_out/total_bits_per_dim_se": -9.0})

    monkeypatch.setattr(Trainer, "_show", show)
    start(tiny(shapes, report={"checkpoint": 2, "evaluate": 2, "keep": 1}), tmp_path).train()
    assert [checkpoint.step_of(folder) for folder in checkpoint.folders(tmp_path)] == [12, 4]


def test_waiting_for_examples_is_said_once(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    waits = {2: 0.3, 4: 0.31, 5: 0.9}
    trainer = start(tiny(shapes, training={"steps": 6}), tmp_path)
    numbers = {"loss": 1.0, "images_per_s": 8.0}
    monkeypatch.setattr(trainer.monitor, "collect", lambda _: {**numbers, "data_wait": waits.get(trainer.step, 0.0)})
    monkeypatch.setattr(trainer, "_show", lambda samples, evaluation: None)
    trainer.train()
    said = [line for line in capsys.readouterr().out.splitlines() if "waiting for examples" in line]
    assert len(said) == 1 and said[0].startswith("step 4: 31% of the time goes to waiting for examples")


def test_a_crash_before_the_first_checkpoint_leaves_no_rows_behind(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics.append(tmp_path / "metrics.jsonl", {"step": 3, "loss": 1.0})
    go(tiny(shapes), tmp_path, monkeypatch)
    assert [step for step, _ in losses(tmp_path)] == list(range(1, 13))


def test_accumulation_changes_nothing_but_rounding(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The gradients, rather than the weights: Adam's first steps are their signs, which rounding may turn.
    gradients: list[list[Tensor]] = []
    for accumulate in (1, 2, 4):
        trainer = start(tiny(shapes, training={"accumulate": accumulate}), tmp_path / str(accumulate))
        with monkeypatch.context() as patch:
            patch.setattr(trainer.optimizer, "step", lambda: None)
            patch.setattr(trainer.optimizer, "zero_grad", lambda: None)
            batch = trainer.maker(0)
            trainer.update(batch)
        gradients.append([p.grad.clone() for p in trainer.network.parameters() if p.grad is not None])
    assert max(float(g.abs().max()) for g in gradients[0]) > 1e-3
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-4, atol=1e-6)


def test_auto_is_bf16_where_this_machine_multiplies_in_it(shapes: Path, tmp_path: Path) -> None:
    trainer = start(tiny(shapes, training={"precision": "auto"}), tmp_path)
    kinds: list[torch.dtype] = []
    trainer.network.stem.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    trainer.update(trainer.maker(0))
    cpu = Path("/proc/cpuinfo")
    flags = set(cpu.read_text(encoding="utf-8").split()) if cpu.exists() else set()
    fast = flags & {"avx512_bf16", "amx_tile", "bf16"} or torch.cuda.is_available()
    assert kinds == [torch.bfloat16 if fast else torch.float32]
    assert {p.dtype for p in trainer.network.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("word", "expected"), [("cuda:1", "cuda:1"), ("cuda", "cuda:0"), ("mps", "mps:0"), ("cpu", "cpu")]
)
def test_accelerate_is_on_the_device_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, word: str, expected: str
) -> None:
    machine(monkeypatch, cuda=2, mps=True, DIFFUSION_DEVICE=word)
    monkeypatch.setattr(accelerate.state, "check_cuda_p2p_ib_support", lambda: True)
    monkeypatch.setattr(PartialState, "_shared_state", {})  # As in a new process.
    assert join() == PartialState().device == torch.device(expected)


def test_accumulation_averages_to_the_same_losses(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for accumulate in (1, 2):
        experiment = tiny(shapes, training={"accumulate": accumulate, "steps": 6})
        go(experiment, tmp_path / str(accumulate), monkeypatch)
    one, two = (losses(tmp_path / name) for name in "12")
    assert [loss for _, loss in one] == pytest.approx([loss for _, loss in two], rel=1e-3)


def test_the_loss_falls_on_the_tiny_data(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(tiny(shapes, training={"steps": 120, "lr": 0.02}), tmp_path, monkeypatch)
    values = [loss for _, loss in losses(tmp_path)]
    assert sum(values[-30:]) < 0.8 * sum(values[:30])


def test_a_learned_variance_trains(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = tiny(shapes, model={"learned_variance": True}, training={"hybrid": 0.1, "steps": 30})
    fresh = start(experiment, tmp_path / "fresh")
    outcome = go(experiment, tmp_path / "run", monkeypatch)
    batch, objective = fresh.maker(0), fresh.objective
    assert isinstance(objective, Objective) and objective.hybrid == 0.1

    def terms(model: Model) -> list[float]:
        """The error, and the bound's term of the variance."""
        both, error = (
            float(each.loss(model.denoiser, replace(batch, label=None)).mean())
            for each in (objective, replace(objective, hybrid=0.0))
        )
        return [error, both - error]

    with torch.no_grad():
        before, after = terms(fresh.model), terms(outcome.model)
    assert after[0] < 0.9 * before[0] and after[1] < 0.95 * before[1]
    assert bool(torch.isfinite(outcome.model.log_likelihood(torch.rand(2, 3, 8, 8), steps=20)).all())


@pytest.mark.parametrize("decay", [0.0, 0.4, 1.0])
def test_the_learning_rate_warms_up_and_falls_by_a_half_cosine(shapes: Path, tmp_path: Path, decay: float) -> None:
    trainer = start(tiny(shapes, training={"steps": 100, "warmup": 4, "decay": decay, "lr": 0.5}), tmp_path)
    for step in range(100):
        left = 1.0 if step <= 100 * (1 - decay) else (100 - step) / (100 * decay)
        expected = 0.5 * min(1, (step + 1) / 5) * math.sin(math.pi / 2 * left) ** 2
        assert trainer.learning_rate(step) == pytest.approx(expected, abs=1e-12)


def test_the_optimizer_follows_the_learning_rate(trained: Path) -> None:
    rates = [row["lr"] for row in rows(trained) if "lr" in row]
    assert rates[0] == pytest.approx(0.01 / 3, rel=1e-2) and len(rates) == 40
    assert rates[-1] == pytest.approx(0.01 * math.sin(math.pi / 2 / 40) ** 2)


def test_a_finished_run_has_all_its_pages(trained: Path) -> None:
    assert {p.name for p in trained.iterdir()} == {
        "checkpoints",
        "clocks.json",
        "config.json",
        "evaluation.csv",
        "evaluation.json",
        "examples.npy",
        "film.png",
        "gap_by_log_snr.png",
        "loss_by_log_snr.png",
        "machine.json",
        "metrics.jsonl",
        "restoration.png",
        "samples",
        "samples.png",
        "report.html",
        "sources.json",
    }
    assert sorted(p.name for p in (trained / "samples").iterdir()) == [
        "real.png",
        "step-00000020.png",
        "step-00000040.png",
    ]
    for name, step in (("samples/step-00000020.png", 20), ("samples/step-00000040.png", 40), ("samples.png", 40)):
        info = figures.read_info(trained / name)
        assert info["step"] == step and info["seed"] == 0 and info["sampling"]["steps"] == 4
    for name in ("film.png", "restoration.png"):
        assert figures.read_info(trained / name)["step"] == 40
    assert figures.read_info(trained / "samples/real.png") == {}


def test_as_many_held_out_images_are_restored_as_asked(shapes: Path, trained: Path, tmp_path: Path) -> None:
    """One is restored by the run that many tests look at."""
    for count in (0, 2):
        assert train(tiny(shapes, training={"steps": 1}, report={"restored": count}), tmp_path / str(count)) == 0
    assert not (tmp_path / "0" / "restoration.png").exists()
    with Image.open(trained / "restoration.png") as one, Image.open(tmp_path / "2" / "restoration.png") as two:
        assert two.size == (one.width, 2 * one.height)


def test_the_real_examples_of_a_run_are_of_all_its_classes(trained: Path) -> None:
    data = load(trained).config.data
    training, _ = open_source(data, lambda text: None).split(data.held_out, data.seed)
    last = len(training) - 1
    values, label = training.batch([0, round(last / 3), round(2 * last / 3), last])
    assert label is not None and label.tolist() == [0, 0, 1, 1]
    with Image.open(trained / "samples" / "real.png") as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(figures.draw(values / 255)))


def test_the_numbers_of_a_run_agree_with_each_other(trained: Path) -> None:
    info = figures.read_info(trained / "loss_by_log_snr.png")
    assert info["step"] == 40 and all(value > 0 for _, value in info["log_snr"])
    held_out = [row for row in rows(trained) if "held_out/total_bits_per_dim" in row]
    assert [row["step"] for row in held_out] == [20, 40]
    for row in held_out:
        terms = [row[f"held_out/{term}_bits_per_dim"] for term in ("prior", "diffusion", "decoder")]
        assert row["held_out/total_bits_per_dim"] == pytest.approx(sum(terms)) and min(terms) >= 0
        assert row["held_out/total_bits_per_dim_se"] > 0
    evaluation = json.loads((trained / "evaluation.json").read_text())
    assert evaluation["unit"] == "bits/dim" and evaluation["examples"] == 11
    assert evaluation["mean"]["total"] == pytest.approx(
        sum(evaluation["mean"][term] for term in ("prior", "diffusion", "decoder"))
    )


def test_another_configuration_is_refused_and_the_difference_named(shapes: Path, run: Path) -> None:
    before = (run / "config.json").read_text()
    experiment = tiny(shapes, training={"steps": 40, "lr": 0.02}, report={"pictures": 9})
    with pytest.raises(ConfigError) as caught:
        train(experiment, run)
    text = str(caught.value)
    assert "training.lr: 0.01 -> 0.02" in text and "--out" in text and "report" not in text
    assert (run / "config.json").read_text() == before


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"training": 3}', b"\xff"])
def test_a_damaged_configuration_of_a_run_is_named(shapes: Path, run: Path, data: bytes) -> None:
    (run / "config.json").write_bytes(data)
    with pytest.raises(ConfigError, match=r"config\.json"):
        train(tiny(shapes, training={"steps": 40}), run)


def test_another_network_is_refused(shapes: Path, run: Path) -> None:
    with pytest.raises(ConfigError, match=r"backbone\.channels: \[8, 16\] -> \[8, 8\]"):
        train(tiny(shapes, backbone={"channels": [8, 8]}, training={"steps": 40}), run)


def test_before_the_first_checkpoint_the_configuration_may_be_corrected(shapes: Path, tmp_path: Path) -> None:
    wrong = tiny(shapes.with_name("imagse"), training={"steps": 1})
    with pytest.raises(InputError, match=r"imagse does not exist; .* did you mean .*images"):
        train(wrong, tmp_path)
    assert train(tiny(shapes, training={"steps": 1}, data={"held_out": 0.0}, report={"pictures": 1}), tmp_path) == 0
    assert json.loads((tmp_path / "config.json").read_text())["data"]["path"] == str(shapes)


def test_a_finished_run_says_so_and_may_be_made_longer(
    shapes: Path, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    same = tiny(shapes, training={"steps": 40}, report={"checkpoint": 20, "samples": 20, "evaluate": 20})
    before = weights(run)
    assert train(same, run) == 0
    assert "already at step 40; to go on, raise training.steps" in capsys.readouterr().out
    assert_equal(before, weights(run))
    longer = replace(same, training=replace(same.training, steps=43))
    assert go(longer, run, monkeypatch).exit_code == 0
    assert f"resuming {run} from step 40" in capsys.readouterr().out
    assert [step for step, _ in losses(run)] == list(range(1, 44))
    assert checkpoint.verify(checkpoint.folders(run)[0]) == 43
    # As if a signal had come before its last pages, which are those of step 40 still.
    assert train(longer, run) == 0 and figures.read_info(run / "samples.png")["step"] == 43


def test_a_run_goes_on_in_the_units_that_it_began_with(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, run = Path(shutil.copytree(shapes, tmp_path / "images")), tmp_path / "run"
    quiet = {"report": {"checkpoint": 2}, "data": {"held_out": 0.0}}
    monkeypatch.setattr(Reporter, "finish", lambda self, model: None)
    monkeypatch.setattr(Trainer, "_show", lambda self, samples, evaluation: None)
    assert train(tiny(images, training={"steps": 2}, **quiet), run) == 0
    before = load(run).spec
    for name in ("white", "more"):
        Image.new("RGB", (8, 8), "white").save(images / "disk" / f"{name}.png")
    assert train(tiny(images, training={"steps": 4}, **quiet), run) == 0
    assert load(run).spec == before
    assert f"the statistics of the data have changed: mean {before.mean:.6g} -> " in capsys.readouterr().out
    (images / "square").rename(images / "circle")
    with pytest.raises(InputError, match=r"classes \('disk', 'square'\), got \('circle', 'disk'\)"):
        train(tiny(images, training={"steps": 5}, **quiet), run)


def test_a_batch_that_cannot_be_split_is_named(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.accumulate: must divide .*8.*, got 3"):
        start(tiny(shapes, training={"accumulate": 3}), tmp_path)


def test_a_tracker_receives_every_logged_number(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    go(tiny(shapes, report={"tracker": "tensorboard"}, training={"steps": 3}), run, monkeypatch)
    readers = [EventAccumulator(str(path)).Reload() for path in run.rglob("events.out.tfevents*")]
    scalars = [(tag, reader.Scalars(tag)) for reader in readers for tag in reader.Tags()["scalars"]]
    got = {(event.step, tag): event.value for tag, events in scalars for event in events}
    logged = {(int(row["step"]), name): value for row in rows(run) for name, value in row.items() if name != "step"}
    assert got == pytest.approx(logged, rel=1e-6) and len(got) >= 3 * 5


def test_a_tracker_receives_the_grids_and_the_final_pictures(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(trainer_file, "FIRST_SAMPLES_S", 1e9)
    assert train(tiny(shapes, report={"tracker": "tensorboard", "samples": 2}, training={"steps": 3}), run) == 0
    readers = [EventAccumulator(str(path)).Reload() for path in run.rglob("events.out.tfevents*")]
    images = {tag: reader.Images(tag) for reader in readers for tag in reader.Tags()["images"]}
    final = {f"final/{name}" for name in ("film", "restoration", "samples", "loss_by_log_snr", "gap_by_log_snr")}
    assert {*images} == {"samples", *final}
    assert [event.step for event in images["samples"]] == [2, 3]
    for event in images["samples"]:
        path = run / "samples" / f"step-{event.step:08d}.png"
        with Image.open(io.BytesIO(event.encoded_image_string)) as got, Image.open(path) as made:
            assert np.array_equal(np.asarray(got), np.asarray(made.convert("RGB")))


def ask_in_step(step: int, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a page ask a training for something while it takes a step."""
    update = Trainer.update

    def asked(self: Trainer, batch: Batch) -> Tensor:
        if self.step + 1 == step:
            requests.ask(RunFolder(self.run), what)
        return update(self, batch)

    monkeypatch.setattr(Trainer, "update", asked)


def test_samples_that_a_page_asks_for_are_those_of_the_step_and_change_nothing(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, whole, asked = tiny(shapes, backbone={"dropout": 0.2}), tmp_path / "whole", tmp_path / "asked"
    monkeypatch.setattr(trainer_file, "FIRST_SAMPLES_S", 1e9)
    assert train(experiment, whole) == 0
    ask_in_step(5, "sample", monkeypatch)
    assert train(experiment, asked) == 0
    assert (RunFolder(whole).grids, RunFolder(asked).grids) == ([12], [5, 12])
    assert figures.read_info(asked / "samples" / "step-00000005.png")["step"] == 5
    assert_equal(weights(whole), weights(asked))
    assert losses(whole) == losses(asked) and not (asked / "request.json").exists()


def test_a_training_that_a_page_asks_to_stop_ends_as_by_sigterm(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment, whole, parts = tiny(shapes), tmp_path / "whole", tmp_path / "parts"
    assert train(experiment, whole) == 0
    with monkeypatch.context() as patch:
        ask_in_step(7, "stop", patch)
        assert train(experiment, parts) == 128 + signal.SIGTERM
    assert f"stopped at step 7, as a page asked, saved in {parts}; the same command" in capsys.readouterr().out
    assert '<span class="state stopped">stopped</span>' in (parts / "report.html").read_text()
    assert RunFolder(parts).state == "stopped" and RunFolder(parts).checkpoints == [7]
    assert train(experiment, parts) == 0
    assert_equal(weights(whole), weights(parts))
    assert losses(whole) == losses(parts)


def test_an_error_that_ends_a_training_is_noted(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Trainer, batch: Batch) -> Tensor:
        raise OSError("the disk is gone")

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", fail)
        with pytest.raises(OSError, match="the disk is gone"):
            train(tiny(shapes), run)
    assert RunFolder(run).incidents == ["step 0: ended by an error: the disk is gone"]


@pytest.mark.filterwarnings("ignore:.*swanlab")
def test_a_tracker_that_is_not_installed_is_named(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"report\.tracker: swanlab is not installed"):
        go(tiny(shapes, report={"tracker": "swanlab"}), tmp_path / "run", monkeypatch)


TOML = """
[data]
path = {path}
size = 8
held_out = 0.2
[backbone]
channels = [8, 16]
blocks = 1
attention = []
[training]
steps = {steps}
batch = 8
precision = "fp32"
[report]
log = 1
pictures = 4
images = 4
draws = 2
restored = 0
[sampling]
steps = 2
"""


def command(config: Path, run: Path) -> list[str]:
    return [str(ROOT / "train.py"), str(config), "--out", str(run)]


def start_afresh(program: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)]
)
def test_a_signal_saves_and_the_same_command_goes_on(shapes: Path, tmp_path: Path, number: int, code: int) -> None:
    config, run = tmp_path / "shapes.toml", tmp_path / "run"
    config.write_text(TOML.format(path=json.dumps(str(shapes)), steps=100_000))
    # One of them shows that a fork, which starts at once, is not told from a process that imports everything.
    process = (start_afresh if number == signal.SIGINT else launch)(command(config, run))
    try:
        while not (run / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=HANGS_S)
    finally:
        process.kill()
    assert process.returncode == code, err
    (folder,) = checkpoint.folders(run)
    step = checkpoint.verify(folder)
    assert f"stopped at step {step}, saved in {run}; the same command goes on from here" in out
    assert "Traceback" not in err
    assert rows(run)[-1]["step"] == step
    if number != signal.SIGINT:
        return  # One of them is enough to show the way on.
    config.write_text(TOML.format(path=json.dumps(str(shapes)), steps=step + 2))
    resumed = launch(command(config, run))
    out, err = resumed.communicate(timeout=HANGS_S)
    assert resumed.returncode == 0, err
    assert f"resuming {run} from step {step}" in out
    assert checkpoint.verify(checkpoint.folders(run)[0]) == step + 2
    assert [s for s, _ in losses(run)] == list(range(1, step + 3))


def test_the_resolved_configuration_is_the_one_that_was_used(shapes: Path, trained: Path) -> None:
    experiment = tiny(shapes, training={"steps": 40}, report={"checkpoint": 20, "samples": 20, "evaluate": 20})
    assert json.loads((trained / "config.json").read_text()) == json.loads(json.dumps(to_dict(experiment)))
