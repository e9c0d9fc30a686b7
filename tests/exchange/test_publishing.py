"""What is published: a checkpoint without a trace of this machine, and back from the hub to the last bit."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors import safe_open

import diffusion
from diffusion import checkpoint, cli, config
from diffusion.checkpoint import Part, Retention
from diffusion.config import DistillationConfig, TrainingConfig
from diffusion.data import DataOptions, DataSpec
from diffusion.errors import InputError
from diffusion.exchange import publishing
from diffusion.exchange.publishing import checked_license, upload, write
from diffusion.model import Model
from diffusion.model.loading import describe
from tests.conftest import fails
from tests.fake_hub import FakeHub
from tests.own_models import UNET, made

REPO = "jane/shapes"
NAMES = ["README.md", "config.json", "manifest.json", "model.safetensors", "samples.png"]
SPEC = DataSpec((3, 8, 8), 256, ("cat", "dog"), 100.0, 50.0)


def tiny(folder: Path, **changes: object) -> Model:
    """Writes a run of a network with random weights, whose configuration names places of this machine."""
    model = made(SPEC, {**UNET, "channels": [4], "attention": []}, data={"labels": True})
    secret = DataOptions(path=str(folder / "secret" / "cats and dogs") + os.sep, size=8, labels="tables/labels.csv")
    training = TrainingConfig(init="~/old/photos", steps=7, batch=4, em=0)
    experiment = replace(model.config, data=secret, training=training, **changes)  # type: ignore[arg-type]
    network = model.denoiser.backbone
    assert isinstance(network, torch.nn.Module)
    part = Part(network.state_dict(), describe(experiment, SPEC, 7))
    run = folder / "run"
    for step in (3, 7):
        checkpoint.write(run, step, {"model": part, "training": Part({}, {})}, keep=Retention(9))
    (run / "config.json").write_text(json.dumps(config.to_dict(experiment)))
    return replace(model, config=experiment)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A run folder."""
    tiny(tmp_path)
    return tmp_path / "run"


def weights(model: Model) -> dict[str, torch.Tensor]:
    network = model.denoiser.backbone
    assert isinstance(network, torch.nn.Module)
    return network.state_dict()


def test_no_place_of_this_machine_is_published(small: Path, tmp_path: Path) -> None:
    found = write(small, tmp_path / "out", repo=REPO, license="mit")
    assert [*found.files] == NAMES and found.step == 7
    assert set(found.lines) == {
        f"data.path: {tmp_path}/secret/cats and dogs/ is published as cats and dogs",
        "data.labels: tables/labels.csv is published as labels.csv",
        "training.init: ~/old/photos is published as photos",
    }
    for name in NAMES:
        content = (tmp_path / "out" / name).read_bytes()
        assert found.files[name] == len(content)
        for trace in (str(tmp_path), str(Path.home()) + "/", "secret", "tables/", "old/"):
            assert trace.encode() not in content, (name, trace)
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        described = json.loads(file.metadata()["description"])
    assert described["config"]["data"]["path"] == "cats and dogs"
    assert described["config"] == json.loads((tmp_path / "out" / "config.json").read_text())


def test_the_folder_is_a_model_to_the_last_bit(small: Path, tmp_path: Path) -> None:
    write(small, tmp_path / "out", repo=REPO, license="mit")
    before, after = diffusion.load(small, device="cpu"), diffusion.load(tmp_path / "out", device="cpu")
    expected, found = weights(before), weights(after)
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    assert (after.spec, after.step, after.config.backbone) == (before.spec, 7, before.config.backbone)
    assert torch.equal(before.sample(2, seed=3), after.sample(2, seed=3))


def test_a_checkpoint_is_published_by_its_step(small: Path, tmp_path: Path) -> None:
    part = checkpoint.read(small / "checkpoints" / "step-00000003", "model")
    described = {**part.description, "step": 3}
    checkpoint.write(small, 3, {"model": Part(part.tensors, described)}, keep=Retention(9))
    assert write(small / "step-00000003", tmp_path / "out", repo=REPO, license="mit").step == 3


def test_the_picture_is_that_of_the_run_at_this_step_without_what_stands_beside_it(small: Path, tmp_path: Path) -> None:
    (small / "samples").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    info = PngInfo()
    info.add_text("diffusion", "/home/jane/secret")
    Image.fromarray(pixels).save(small / "samples" / "step-00000007.png", pnginfo=info)
    write(small, tmp_path / "out", repo=REPO, license="mit")
    with Image.open(tmp_path / "out" / "samples.png") as picture:
        assert (np.array(picture) == pixels).all() and picture.info == {}


def test_a_student_and_a_model_of_points_are_published_too(tmp_path: Path) -> None:
    tiny(tmp_path / "a", distillation=DistillationConfig("/runs/teacher"))
    write(tmp_path / "a" / "run", tmp_path / "student", repo=REPO, license="mit")
    student = diffusion.load(tmp_path / "student", device="cpu")
    assert (
        student.teacher == "teacher"
        and "distilled to sample in 15 evaluations" in (tmp_path / "student" / "README.md").read_text()
    )
    points = made(DataSpec((2,), None), {"name": "rbf", "units": 2}, data={"source": "mixture"})
    network = points.denoiser.backbone
    assert isinstance(network, torch.nn.Module)
    part = Part(network.state_dict(), describe(points.config, points.spec, 1))
    checkpoint.write(tmp_path / "b", 1, {"model": part}, keep=Retention(1))
    assert [*write(tmp_path / "b", tmp_path / "points", repo=REPO, license="mit").files] == NAMES[:-1]
    assert "samples.png" not in (tmp_path / "points" / "README.md").read_text()


def test_what_still_has_a_path_is_refused(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing.Card, "text", lambda _: "made at /home/jane\n")
    with pytest.raises(InputError, match=r"^README.md: would publish a path of this machine, '/home/jane'"):
        write(small, tmp_path / "out", repo=REPO, license="mit")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["MIT", " apache-2.0\n", "cc-by-nc-sa-4.0"])
def test_licenses_are_identifiers(text: str) -> None:
    assert checked_license(text) == text.strip().lower()


@pytest.mark.parametrize("text", ["", "MIT License", "mit\nbase_model: x", "-"])
def test_other_licenses_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^--license: must be an identifier such as mit"):
        checked_license(text)


def test_a_model_goes_to_the_hub_and_comes_back_to_the_last_bit(
    small: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["publish", str(small), REPO, "--license", "mit"]) == 0
    output = capsys.readouterr().out
    listed = output.index("jane/shapes gets 5 files, under mit:")
    assert listed < output.index("model.safetensors") < output.index(f"{hub.url}/{REPO}/commit/")
    assert "secretsecret" not in output and hub.tokens == {"Bearer hf_secretsecretsecret"}
    assert sorted(hub.files(REPO)) == NAMES and hub.visibility == {REPO: "public"}
    assert hub.commits == [(REPO, "main", "Publish step 7 of a model")]
    before = diffusion.load(small, device="cpu")
    for name, revision in ((REPO, None), (REPO, "main"), (f"hf://{REPO}", None)):
        after = diffusion.load(name, revision=revision, device="cpu")
        expected, found = weights(before), weights(after)
        assert expected.keys() == found.keys() and all(torch.equal(expected[key], found[key]) for key in expected)
        assert (after.spec, after.step) == (before.spec, before.step)
    card = ModelCard(hub.files(REPO)["README.md"].decode())
    assert (card.data.license, card.data.library_name) == ("mit", "reverse-diffusion")


def test_a_branch_and_a_private_repository_are_made(small: Path, hub: FakeHub) -> None:
    arguments = ["publish", str(small), REPO, "--license", "mit", "--private", "--revision", "small"]
    assert cli.main(arguments) == 0 and cli.main(arguments) == 0
    assert hub.visibility == {REPO: "private"} and "small" in hub.tags
    assert [each[:2] for each in hub.commits] == [(REPO, "small")] * 2


def test_a_public_repository_is_not_taken_for_a_private_one(
    small: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["publish", str(small), REPO, "--license", "mit"]) == 0
    message = fails(capsys, "publish", small, REPO, "--license", "mit", "--private")
    assert "is there already, and public; make it private on its page first" in message and len(hub.commits) == 1


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "the hub asks who you are: log in by: hf auth login"),
        (403, "this token must not write there: log in by one that may (hf auth login), or take another OWNER"),
        (418, "the hub answers with status 418; try again later"),
    ],
)
def test_what_the_hub_refuses_is_said_without_the_token(
    status: int, said: str, small: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refuses = status
    message = fails(capsys, "publish", small, REPO, "--license", "mit")
    assert message == f"error: {REPO}: {said}\n"


def test_a_license_that_the_hub_does_not_know_is_said_before_anything_is_sent(
    small: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(capsys, "publish", small, REPO, "--license", "mine")
    assert re.search('jane/shapes: the hub does not take the card: .*"license" must be one of mit', message)
    assert hub.files(REPO) == {} and hub.objects == {}


def test_a_hub_that_is_not_reached_is_said(small: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"^jane/shapes: the hub cannot be reached, or the line"):
        upload(small, ["config.json"], REPO, private=False, revision="", message="")
    assert hub.requests == []
