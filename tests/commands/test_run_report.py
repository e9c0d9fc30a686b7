"""What inspect says of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from diffusion import checkpoint, cli
from diffusion.commands.run_report import lines, run_at
from diffusion.data import open_source
from diffusion.model import clocks, load, origin
from diffusion.training.beginning import records
from diffusion.training.metrics import bounds
from tests.conftest import tiny


def test_a_run_is_told_from_images(run: Path, shapes: Path, tmp_path: Path) -> None:
    step = run / "checkpoints" / "step-00000020"
    assert run_at(str(run)) == run_at(f"{run}/") == run_at(str(run / "checkpoints")) == run
    assert run_at(str(step)) == run / "step-00000020"
    assert [run_at(path) for path in (str(shapes), str(tmp_path / "none"), "hf://owner/name", "$UNSET_HERE/a")] == 4 * [
        None
    ]


def test_the_report_has_the_facts_of_a_run(run: Path, shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(run)]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    model, found = load(run), bounds(run / "metrics.jsonl")
    assert said["run"] == f"{run}, step 40 of 40" and said["begun"] == "from new weights"
    assert said["data"] == f"{shapes}, 40 examples"
    assert said["examples"] == "3x8x8, 2 classes: disk, square"
    count = sum(each.numel() for each in model.denoiser.backbone.parameters())  # type: ignore[union-attr]
    assert said["network"] == f"unet, {count / 1e6:.2f} M parameters"
    assert said["bound"].startswith(f"{found[40]:.4f} on held-out examples at step 40")
    assert ("lowest at step 20" in said["bound"]) == (found[20] < found[40])


def test_a_run_says_what_it_began_from_and_an_earlier_step_is_its_own(run: Path, shapes: Path) -> None:
    source = Path(shutil.copytree(run, run.with_name("source")))
    experiment = tiny(shapes, training={"init": str(source), "steps": 90})
    (run / "checkpoints").rename(run / "aside")
    origin.record(run, experiment, open_source(experiment.data, lambda line: None), records(experiment, run))
    (run / "aside").rename(run / "checkpoints")
    folder = checkpoint.folders(run)[1]
    part = checkpoint.read(folder, "model")
    tree = {**part.description["config"], "training": {**part.description["config"]["training"], "init": str(source)}}
    parts = {"model": checkpoint.Part(part.tensors, {**part.description, "config": tree})}
    checkpoint.write(run, 20, parts, keep=checkpoint.Retention(9))
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": n, "held_out/total_bits_per_dim": 3 + n / 100}) + "\n" for n in (0, 20))
    )
    shutil.rmtree(source)
    found = lines(run / "step-00000020")
    assert found[0].startswith(f"run       {run / 'step-00000020'}, step 20 of ")
    assert found[1].startswith(f"begun     from the weights of {source}, step 40 (sha256 ")
    bound = next(i for i, line in enumerate(found) if line.startswith("bound"))
    assert found[bound] == "bound     3.2000 on held-out examples at step 20; lowest at step 0: 3.0000"
    assert found[bound + 1].startswith("clocks    ") and "becomes of 29 images at 8x8" in found[bound + 2]
    (run / clocks.CLOCKS).unlink()
    assert lines(run / "step-00000020") == found[: bound + 1]
