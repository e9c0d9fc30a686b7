"""Checkpoints of every format there was are loaded, and trained on from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion import checkpoint, config, load
from diffusion.checkpoint import CheckpointError, Part
from diffusion.training import train
from tests.golden.make import EXPERIMENT

GOLDEN = sorted(Path(__file__).parent.glob("format-*"))


def test_there_is_one_of_every_format_and_they_are_small() -> None:
    assert [path.name for path in GOLDEN] == [f"format-{n}" for n in range(checkpoint.OLDEST, checkpoint.FORMAT + 1)]
    assert sum(path.stat().st_size for golden in GOLDEN for path in golden.rglob("*")) < 50_000 * len(GOLDEN)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_the_model_says_what_it_said(golden: Path) -> None:
    samples = load(golden, device="cpu").sample(4, seed=0)
    expected = torch.tensor(json.loads((golden / "expected.json").read_text())["samples"])
    torch.testing.assert_close(samples, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_training_goes_on(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(golden, tmp_path / "run"))
    tree: dict[str, dict[str, Any]] = {**EXPERIMENT, "training": {**EXPERIMENT["training"], "steps": 5}}
    assert train(config.from_dict(tree), run) == 0
    assert f"resuming {run} from step 3" in capsys.readouterr().out
    assert checkpoint.verify(checkpoint.folders(run)[0]) == 5


def renamed(name: str, part: Part) -> Part:
    """Renames a section of the configuration, as a next format might."""
    if name != "model":
        return part
    tree: dict[str, Any] = {**part.description["config"]}
    tree["shows"] = tree.pop("report")
    return Part(part.tensors, {**part.description, "config": tree})


def test_an_older_format_goes_through_the_migrations_and_a_newer_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest = GOLDEN[0] / "checkpoints" / "step-00000003"
    before = checkpoint.read(oldest, "model").description["config"]
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    monkeypatch.setattr(checkpoint, "MIGRATIONS", {**checkpoint.MIGRATIONS, checkpoint.FORMAT - 1: renamed})
    assert checkpoint.verify(oldest) == 3
    after = checkpoint.read(oldest, "model").description["config"]
    assert after["shows"] == before["report"] and "report" not in after
    monkeypatch.undo()
    copy = Path(shutil.copytree(oldest, tmp_path / oldest.name))
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"format": checkpoint.FORMAT + 1}))
    with pytest.raises(CheckpointError, match="use the version of this package that wrote it, or a newer one"):
        checkpoint.verify(copy)
