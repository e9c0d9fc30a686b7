"""Models from runs that are here do without the hub and its library; others are those of their address."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import diffusion
from diffusion.errors import InputError
from diffusion.exchange import folder, imported
from diffusion.model import Model
from tests.fake_hub import FakeHub
from tests.public_models import network, pipeline


def first(model: Model) -> torch.Tensor:
    assert isinstance(model.denoiser.backbone, nn.Module)
    return model.denoiser.backbone.state_dict()["conv_in.weight"]


def test_a_run_that_is_here_needs_nothing_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported.write(folder.read(pipeline(tmp_path / "made")), tmp_path / "run")
    monkeypatch.setitem(sys.modules, "diffusion.exchange.resolve", None)
    assert torch.equal(first(diffusion.load(tmp_path / "run", device="cpu")), network().state_dict()["conv_in.weight"])


def test_an_address_is_the_model_at_its_revision(hub: FakeHub, tmp_path: Path) -> None:
    hub.folders["owner/name"] = pipeline(tmp_path / "served", seed=3)
    hub.tags.add("v1")
    expected = network(seed=3).state_dict()["conv_in.weight"]
    for given in ({"run": "hf://owner/name@v1"}, {"run": "owner/name", "revision": "v1"}):
        assert torch.equal(first(diffusion.load(**given, device="cpu")), expected)
    with pytest.raises(InputError, match="hf://owner/name@v2: has no revision 'v2'"):
        diffusion.load("owner/name", revision="v2")
    with pytest.raises(InputError, match=r"revision: must be left out for .*served, a run on this machine, got v1"):
        diffusion.load(tmp_path / "served", revision="v1")
    with pytest.raises(InputError, match="missing: no such run folder"):
        diffusion.load(tmp_path / "missing")
