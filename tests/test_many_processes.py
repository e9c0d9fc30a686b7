"""Two processes on the CPU against one: the same losses, weights, samples, restorations and likelihoods.

They differ in the order in which float32 numbers are added, over processes and over the rows of a batch: losses and
weights agree to about 1e-6 of their size, and 8-bit pixels to one gray level.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion import checkpoint, cli
from diffusion.config import load
from diffusion.evaluation import likelihood
from diffusion.training import train
from tests.conftest import ROOT, finish, start, start_afresh, torchrun

TOML = """
[data]
path = {path}
size = 8
labels = true
held_out = 0.4
[backbone]
channels = [8, 16]
blocks = 1
attention = [1]
[noise_levels]
name = "measured"
bins = 4
every = 2
[weighting]
name = "exact"
[training]
steps = {steps}
batch = 8
accumulate = 2
lr = 0.001
precision = "fp32"
[report]
log = 1
checkpoint = 1
keep = 6
pictures = 3
images = 4
draws = 2
restored = 1
[sampling]
steps = 3
"""
SEVERAL = """
import json, sys
from diffusion import cli, launched
from diffusion.evaluation import likelihood

likelihood.BATCH = 6
assert [cli.main(command) for command in json.loads(sys.argv[1])] == [0, 0, 0, 0]
launched.leave(0)
"""


def experiment(shapes: Path, folder: Path, steps: int = 6) -> Path:
    path = folder / "shapes.toml"
    path.write_text(TOML.format(path=json.dumps(str(shapes)), steps=steps))
    return path


@pytest.fixture(scope="module")
def one(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    assert train(load(experiment(shapes, folder)), folder / "run") == 0
    return folder / "run"


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def values(run: Path, *names: str) -> list[float]:
    return [row[name] for row in rows(run) for name in names if name in row]


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {str(path.relative_to(folder)): np.asarray(Image.open(path), int) for path in folder.rglob("*.png")}


def assert_same_pictures(one: Path, two: Path) -> None:
    expected, got = pictures(one), pictures(two)
    assert expected.keys() == got.keys() != set()
    for name, picture in expected.items():
        if "loss" not in name:  # Where a line of a plot moves a little, pixels change by more.
            assert picture.shape == got[name].shape and np.abs(picture - got[name]).max() <= 1, name


def test_the_noise_levels_of_these_runs_are_measured(one: Path) -> None:
    shares = checkpoint.read(checkpoint.find(one)[0], "training").tensors["adaptive/shares"]
    assert shares.shape == (4,) and float(shares.sum()) == pytest.approx(1) and float(shares.max() / shares.min()) > 2


def assert_same_run(one: Path, two: Path) -> None:
    assert values(two, "step") == values(one, "step")
    assert values(two, "loss", "grad_norm") == pytest.approx(values(one, "loss", "grad_norm"), rel=1e-5)
    held_out = ("held_out/total_bits_per_dim", "held_out/total_bits_per_dim_se", "training/total_bits_per_dim")
    assert values(two, *held_out) == pytest.approx(values(one, *held_out), rel=1e-5)
    for part in ("model", "training"):
        expected, got = (checkpoint.read(checkpoint.find(run)[0], part).tensors for run in (one, two))
        assert expected.keys() == got.keys()
        for name, tensor in expected.items():
            assert tensor.shape == got[name].shape
            if tensor.numel():
                assert float((tensor - got[name]).abs().max()) <= 1e-4 * max(1e-3, float(tensor.abs().max())), name
    assert_same_pictures(one, two)


def training(shapes: Path, folder: Path, steps: int = 6) -> list[str]:
    return [str(ROOT / "train.py"), str(experiment(shapes, folder, steps)), "--out", str(folder / "run")]


@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_two_processes_train_and_report_as_one(shapes: Path, one: Path, tmp_path: Path, name: str) -> None:
    if name == "fsdp2":  # From a checkpoint that is not sharded.
        shutil.copytree(one, tmp_path / "run")
        for folder in checkpoint.folders(tmp_path / "run")[:-1]:
            shutil.rmtree(folder)
    shipped = ROOT / "configs" / "accelerate" / f"{name}.yaml"
    launcher = ["accelerate.commands.launch", "--config_file", str(shipped), "--main_process_port", "0"]
    begin = start if name == "fsdp2" else start_afresh
    code, out, err = finish(begin(launcher, *training(shapes, tmp_path)))
    assert code == 0, err
    assert out.count(f"2 x cpu, fp32{', sharded, from step 1' if name == 'fsdp2' else ', from step 0'}") == 1
    assert_same_run(one, tmp_path / "run")


def test_two_processes_learn_to_restore_as_one(shapes: Path, tmp_path: Path) -> None:
    """What is observed of an example is a function of its number, whichever process it goes to."""
    observed = ["observed.share=0.7", "observed.noisy=0.5"]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    configuration = load(experiment(shapes, tmp_path / "one", steps=3), observed)
    assert train(configuration, tmp_path / "one" / "run") == 0
    code, out, err = finish(start(torchrun(2), *training(shapes, tmp_path / "two", steps=3), *observed))
    assert code == 0, err
    assert out.count("2 x cpu, fp32, from step 0") == 1
    assert_same_run(tmp_path / "one" / "run", tmp_path / "two" / "run")


def test_a_signal_to_one_process_ends_both_after_saving_once(shapes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    launched = start(torchrun(2), *training(shapes, tmp_path, steps=100_000), "report.checkpoint=100000")
    while not (run / "metrics.jsonl").exists() and launched.poll() is None:
        time.sleep(0.02)
    if launched.poll() is None:
        workers = Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text().split()
        assert len(workers) == 2
        os.kill(int(workers[-1]), signal.SIGTERM)
    code, out, err = finish(launched)
    assert code != 0
    (folder,) = checkpoint.folders(run)
    step = checkpoint.verify(folder)
    assert out.count(f"stopped at step {step}, saved in {run}; the same command goes on from here") == 1, err
    assert values(run, "step")[-1] == step


def commands(run: Path, folder: Path, image: Path, mask: Path) -> list[list[str]]:
    """Returns commands whose work two processes cannot divide evenly; with a single sample one of them has none."""
    restored = ["--n", "3", "--steps", "6", "--out", str(folder / "restored")]
    return [
        ["sample", str(run), "--n", "5", "--batch", "2", "--seed", "5", "--film", "--out", str(folder / "five")],
        ["sample", str(run), "--n", "1", "--out", str(folder / "single")],
        ["inpaint", str(run), str(image), "--mask", str(mask), *restored],
        ["evaluate", str(run), "--draws", "2"],
    ]


def test_two_processes_sample_restore_and_evaluate_as_one(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "BATCH", 6)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(image := tmp_path / "image.png")
    Image.fromarray(np.where(np.arange(64) < 32, 255, 0).astype(np.uint8).reshape(8, 8)).save(
        mask := tmp_path / "m.png"
    )
    runs = [Path(shutil.copytree(one, tmp_path / name / "run")) for name in ("one", "two")]
    (tmp_path / "several.py").write_text(SEVERAL)
    work = json.dumps(commands(runs[1], tmp_path / "two", image, mask))
    code, out, err = finish(start(torchrun(2), str(tmp_path / "several.py"), work))
    assert code == 0, err
    assert out.count("5 samples of step 6") == 1 and out.count("restored 3 times") == 1
    assert [cli.main(command) for command in commands(runs[0], tmp_path / "one", image, mask)] == [0, 0, 0, 0]
    assert_same_pictures(tmp_path / "one", tmp_path / "two")
    expected, got = (json.loads((run / "evaluation.json").read_text()) for run in runs)
    assert got["examples"] == expected["examples"] == 15
    for key in ("mean", "standard_error"):
        assert got[key] == pytest.approx(expected[key], rel=1e-6)
