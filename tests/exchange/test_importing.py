"""A model is read from a folder of diffusers, or from a file of guided-diffusion, by what lies at a path."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion.errors import InputError
from diffusion.exchange.adm_flags import parse
from diffusion.exchange.importing import read
from tests.guided import Guided
from tests.public_models import pipeline

FLAGS = "--image_size 8 --num_channels 32 --num_res_blocks 1 --channel_mult 1,2 --attention_resolutions 4"


def test_a_file_and_a_folder_say_where_they_come_from(tmp_path: Path) -> None:
    torch.save({"model": Guided(parse(FLAGS)).draw(), "ema": Guided(parse(FLAGS), seed=1).draw()}, tmp_path / "x.pt")
    ema = read(tmp_path / "x.pt", source="hf://a/b/x.pt", commit="123", flags=FLAGS, within="ema")
    assert ema.origin["source"] == "hf://a/b/x.pt" and ema.origin["commit"] == "123" and ema.origin["flags"] == FLAGS
    expected = Guided(parse(FLAGS), seed=1).draw()["out.2.weight"]
    assert ema.tensors["conv_out.weight"].equal(expected) and len(ema.origin["files"]["x.pt"]) == 64
    made = read(pipeline(tmp_path / "made"), source="here")
    assert made.origin["source"] == "here" and "commit" not in made.origin and made.shape == (3, 8, 8)


def test_what_belongs_to_the_other_kind_is_refused(tmp_path: Path) -> None:
    torch.save(Guided(parse(FLAGS)).draw(), tmp_path / "x.pth")
    with pytest.raises(InputError, match="--variant: must be left out for a file of weights, got fp16"):
        read(tmp_path / "x.pth", source="", flags=FLAGS, variant="fp16")
    with pytest.raises(InputError, match="--size: must be left out for a file of weights"):
        read(tmp_path / "x.pth", source="", flags=FLAGS, size=(8, 8))
    made = pipeline(tmp_path / "made")
    with pytest.raises(
        InputError, match=r"--card: must be left out, as only files \(.pt, .pth\) need it, got lsun_cat"
    ):
        read(made, source="", card="lsun_cat")
    with pytest.raises(InputError, match="--flags: must be left out, as only files"):
        read(made / "unet" / "config.json", source="", flags=FLAGS)
    with pytest.raises(InputError, match=r"x\.pt: is not there; name a folder of diffusers, a \.pt file"):
        read(tmp_path / "x.pt", source="")
