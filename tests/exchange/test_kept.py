"""The models of the hub in the cache: what `diffusion cache` says of them and removes, and what that leaves whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from diffusers import DDIMScheduler

import diffusion
from diffusion import cli
from diffusion.exchange import kept, resolve
from tests.fake_hub import FakeHub
from tests.public_models import pipeline

ADDRESS = "hf://owner/name"


@pytest.fixture
def filled(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The hub with a model, and a working directory of its own."""
    hub.folders["owner/name"] = pipeline(tmp_path / "served", DDIMScheduler())
    monkeypatch.chdir(tmp_path)
    return hub


def listed(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    capsys.readouterr()
    assert cli.main(["cache", *options]) == 0
    return capsys.readouterr().out


def test_a_model_is_listed_by_its_address_and_removed_when_asked(
    filled: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = resolve.at_hand(ADDRESS)
    cache = tmp_path / "cache"
    (entry,) = kept.models(cache)
    commit = kept.commit_of(entry.path)
    assert len(commit) == 12 and entry.of == f"{ADDRESS}@{commit}" and entry.bytes > 1000
    out = listed(capsys)
    assert f"model of the hub            {ADDRESS}@{commit}" in out and "other files" not in out
    assert "removed" not in listed(capsys, "--prune"), "it may be used again"
    os.utime(entry.path, (0, 0))
    resolve.local(ADDRESS)
    assert kept.models(cache)[0].used > 0, "it was used"
    os.utime(entry.path, (0, 0))
    assert "removed  1970-01-01 " in listed(capsys, "--prune", "--older-than", "30")
    assert kept.models(cache) == []
    assert diffusion.load(run, device="cpu").spec.is_image, "the run has its files still"
    assert resolve.at_hand(ADDRESS) == run, "it is made again, and is the same"


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = tmp_path / "cache" / kept.MODELS / ".tmp-owner--name--0123456789ab-7"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(bytes(1000))
    (found,) = kept.models(tmp_path / "cache")
    assert found.unfinished and not found.obsolete
    for path in (left / "model.safetensors", left):
        os.utime(path, (0, 0))
    (found,) = kept.models(tmp_path / "cache")
    assert found.obsolete == "left by a process that was killed"
    shutil.rmtree(left)


def test_names_tell_the_path_the_commit_and_the_variant(tmp_path: Path) -> None:
    name = kept.name_of(["owner", "a--b", "checkpoint-5"], "0123456789abcdef", "fp16")
    assert name == "owner--a--b--checkpoint-5--0123456789ab--fp16"
    assert kept.commit_of(Path(name)) == "0123456789ab" and kept.commit_of(Path("digits")) == ""
    (tmp_path / kept.MODELS / name).mkdir(parents=True)
    (found,) = kept.models(tmp_path)
    assert found.what == "model of the hub, fp16" and found.of == "hf://owner/a/b/checkpoint-5@0123456789ab"
