"""The configuration that trains an imported model on says what the model is of, and is taken as it stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diffusers import DDPMScheduler, EDMEulerScheduler
from PIL import Image

from diffusion import cli, config, load
from diffusion.commands import finetuning
from diffusion.config import Config, to_dict
from tests.public_models import SIDE, pipeline


def test_what_is_no_default_is_written_and_read_back(tmp_path: Path) -> None:
    experiment = config.override(
        Config(), ["data.size=16", "parameterization.name=v", "training.lr=0.0001", "grid.name=time"]
    )
    text = finetuning.write(experiment, tmp_path).read_text()
    read = config.load(tmp_path / finetuning.FILE)
    assert text.startswith(f"# Trains {tmp_path} on with a folder of images: diffusion train {tmp_path}/finetune.toml")
    kept = {section for section in to_dict(read) if section not in ("training", "report")}
    assert all(to_dict(read)[section] == to_dict(experiment)[section] for section in kept)
    assert read.training.lr == 0.0001 and read.training.init == str(tmp_path) and read.training.patience == 5
    assert "[schedule]" not in text and "[parameterization]" in text and "null" not in text


@pytest.mark.parametrize("kind", [DDPMScheduler, EDMEulerScheduler])
def test_an_imported_model_trains_on_by_the_command_that_its_comment_names(
    kind: type[DDPMScheduler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(24):
        values = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(values).save(photos / f"{number}.png")
    pipeline(tmp_path / "public", kind())
    assert cli.main(["import", "public"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert (
        said == "runs/public: to train on from it: diffusion train runs/public/finetune.toml data.path=FOLDER --out RUN"
    )
    given = ["data.path=photos", "training.steps=1", "training.batch=4", "report.restored=0", "report.pictures=1"]
    assert cli.main(["train", "runs/public/finetune.toml", *given, "--out", "runs/mine", "sampling.steps=2"]) == 0
    assert "runs/mine: begins from the weights of" in capsys.readouterr().out
    assert load(tmp_path / "runs" / "mine", device="cpu").step == 1
