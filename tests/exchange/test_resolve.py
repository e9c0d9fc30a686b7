"""Runs by address: models of diffusers and runs of this package from a hub on this machine, to the last bit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from huggingface_hub import constants
from torch import Tensor, nn

import diffusion
from diffusion import checkpoint, cli
from diffusion.data import DataOptions
from diffusion.errors import InputError
from diffusion.exchange import folder, imported, kept, resolve
from diffusion.exchange.hub import Address, File, Repository
from diffusion.model import Model, origin
from diffusion.training import beginning, train
from diffusion.training.report import Reporter, Validation
from tests.fake_hub import FakeHub
from tests.public_models import SIDE, change, flat, network, pipeline

NEEDED = {
    *("model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"),
    "scheduler/scheduler_config.json",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with a pickle, code and a page beside it."""
    made = pipeline(tmp_path_factory.mktemp("saved") / "pipeline", DDIMScheduler())
    for name in ("unet/diffusion_pytorch_model.bin", "pipeline.py", "unet/model.py", "README.md", "optimizer.pt"):
        (made / name).write_text("raise SystemExit('this was run')")
    return made


@pytest.fixture(scope="module")
def own(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of this package, with two checkpoints."""
    run = tmp_path_factory.mktemp("runs") / "own"
    model = folder.read(saved)
    imported.write(model, run)
    part = checkpoint.read(checkpoint.find(run)[0], "model")
    later = {name: value + 1 for name, value in part.tensors.items()}
    parts = {
        "model": checkpoint.Part(later, {**part.description, "step": 7}),
        "training": checkpoint.Part({"network/a": torch.ones(3)}, {"step": 7}),
    }
    checkpoint.write(run, 7, parts, keep=checkpoint.Retention(9))
    return run


@pytest.fixture
def filled(hub: FakeHub, saved: Path, tmp_path: Path) -> FakeHub:
    """The hub with a copy of the pipeline."""
    hub.folders["owner/name"] = Path(shutil.copytree(saved, tmp_path / "served"))
    return hub


def state(model: Model) -> dict[str, Tensor]:
    assert isinstance(model.denoiser.backbone, nn.Module)
    return model.denoiser.backbone.state_dict()


def files(path: Path) -> dict[str, bytes]:
    return {str(inner.relative_to(path)): inner.read_bytes() for inner in sorted(path.rglob("*")) if inner.is_file()}


def test_a_model_comes_to_the_last_bit_without_its_pickle_and_code(
    filled: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = diffusion.load("hf://owner/name", device="cpu")
    assert filled.served() == NEEDED
    expected = network().state_dict()
    assert all(torch.equal(state(model)[name], value) for name, value in expected.items())
    out = capsys.readouterr().out
    assert "hf://owner/name: clip_sample: dropped" in out
    assert f"hf://owner/name: imported into {tmp_path}/cache/models/owner--name--" in out
    # It is imported once, and nothing is downloaded again.
    filled.requests.clear()
    again = diffusion.load("hf://owner/name", device="cpu")
    assert state(again).keys() == state(model).keys() and not filled.served()
    assert "imported" not in capsys.readouterr().out


def test_a_flat_repository_and_a_folder_within_one(filled: FakeHub, saved: Path, tmp_path: Path) -> None:
    filled.folders["owner/flat"] = flat(tmp_path / "flat", saved)
    (tmp_path / "nested").mkdir()
    shutil.copytree(saved, tmp_path / "nested" / "checkpoint-5")
    filled.folders["owner/nested"] = tmp_path / "nested"
    expected = network().state_dict()["conv_in.weight"]
    for address in ("hf://owner/flat", "hf://owner/nested/checkpoint-5"):
        filled.requests.clear()
        assert torch.equal(state(diffusion.load(address, device="cpu"))["conv_in.weight"], expected)
        assert not any(name.endswith((".bin", ".py", ".md", ".pt")) for name in filled.served())


@pytest.mark.parametrize("layout", ["run", "checkpoint"])
def test_a_run_of_this_package_is_taken_as_it_is(layout: str, own: Path, hub: FakeHub, tmp_path: Path) -> None:
    newest = own / "checkpoints" / "step-00000007"
    hub.folders["me/run"] = own if layout == "run" else newest
    model = diffusion.load("hf://me/run", device="cpu")
    assert model.step == 7 and {name.rpartition("/")[2] for name in hub.served()} == {
        *("manifest.json", "model.safetensors", "training.safetensors")
    }
    assert not any("step-00000000" in name for name in hub.served())
    (cached,) = (tmp_path / "cache" / "models").iterdir()
    assert files(checkpoint.find(cached)[0]) == files(newest)


def test_a_run_that_was_damaged_on_the_hub_is_refused_and_leaves_nothing(
    own: Path, hub: FakeHub, tmp_path: Path
) -> None:
    hub.folders["me/run"] = Path(shutil.copytree(own, tmp_path / "damaged"))
    (tmp_path / "damaged" / "checkpoints" / "step-00000007" / "training.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match=r"damaged checkpoint: training\.safetensors has 5 bytes"):
        diffusion.load("hf://me/run", device="cpu")
    assert [*(tmp_path / "cache" / "models").iterdir()] == []


def test_a_name_without_hf_is_a_repository_unless_it_may_be_a_folder_here(
    filled: FakeHub, own: Path, tmp_path: Path
) -> None:
    filled.tags.add("v1")
    expected = network().state_dict()["conv_in.weight"]
    for name, revision in (("owner/name", None), ("owner/name", "v1"), ("hf://owner/name", "v1")):
        model = diffusion.load(name, revision=revision, device="cpu")
        assert torch.equal(state(model)["conv_in.weight"], expected)
    with pytest.raises(InputError, match=r"^hf://owner/name@v2: has no revision 'v2'"):
        diffusion.load("owner/name", revision="v2")
    # A folder of that name wins, and where a folder OWNER is, the name is likely one in it that was mistyped.
    shutil.copytree(own, tmp_path / "owner" / "name")
    assert diffusion.load("owner/name", device="cpu").step == 7
    with pytest.raises(InputError, match=r"^owner/nmae: no such run folder; did you mean owner/name\?"):
        diffusion.load("owner/nmae")
    assert resolve.address_of("owner/other", "v1") == "hf://owner/other@v1" and resolve.address_of(Path("jane/x")) == ""


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("owner/name", r"revision: must be left out for owner/name, a run on this machine, got v1"),
        ("runs/a/b", r"revision: must be left out for runs/a/b, a run on this machine, got v1"),
        ("hf://jane/x@v0", r"revision: must be left out where the address has one, got v1"),
    ],
)
def test_a_revision_belongs_to_the_hub(run: str, message: str, hub: FakeHub, own: Path, tmp_path: Path) -> None:
    shutil.copytree(own, tmp_path / "owner" / "name")
    with pytest.raises(InputError, match=f"^{message}$"):
        diffusion.load(run, revision="v1")


def test_without_a_network_the_cache_serves(
    filled: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = diffusion.load("hf://owner/name", device="cpu")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    filled.requests.clear()
    capsys.readouterr()
    assert state(diffusion.load("hf://owner/name", device="cpu")).keys() == state(first).keys()
    # The imported run may be gone, as may the one in runs/.
    shutil.rmtree(tmp_path / "cache")
    again = state(diffusion.load("hf://owner/name", device="cpu"))
    assert all(torch.equal(again[name], value) for name, value in state(first).items())
    assert not filled.requests and "as the hub is not asked, as HF_HUB_OFFLINE is set" in capsys.readouterr().out


def test_commands_take_an_address_for_a_run_and_write_beside_others(
    filled: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sample", "hf://owner/name", "--n", "2", "--steps", "2", "--device", "cpu"]
    assert cli.main(command) == 0
    assert "hf://owner/name: is the run folder runs/name from here on" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "runs" / "name" / "samples-0").glob("0*")) == [
        "00000.png",
        "00001.png",
    ]
    # The same command goes on in the same folder; that of another commit gets another one.
    assert cli.main(command) == 0 and "from here on" not in capsys.readouterr().out
    change(tmp_path / "served" / "scheduler" / "scheduler_config.json", beta_end=0.03)
    assert cli.main(command) == 0
    assert "runs/name-2 from here on" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["name", "name-2"]
    assert cli.main(["sample", "hf://owner/missing", "--n", "1"]) == 2
    assert "error: hf://owner/missing: no such repository" in capsys.readouterr().err


def test_the_command_import_takes_an_address(
    filled: FakeHub, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled.folders["me/run"] = own
    assert cli.main(["import", "hf://owner/name"]) == 0 and cli.main(["import", "hf://me/run", "--out", "mine"]) == 0
    out = capsys.readouterr().out
    assert "runs/name: written; to draw images from it" in out and "hf://me/run: a run at step 7, which is mine" in out
    record = json.loads((tmp_path / "runs" / "name" / imported.RECORD).read_text())
    assert (record["source"], record["commit"]) == ("hf://owner/name", filled.commit("owner/name"))
    assert diffusion.load("mine", device="cpu").step == 7
    assert cli.main(["import", "hf://owner/name", "--variant", "fp16", "--out", "x"]) == 2
    assert "hf://owner/name: no weights of the variant fp16; there are weights without" in capsys.readouterr().err


def test_a_repository_without_safetensors_is_read_without_running_its_pickle(filled: FakeHub, tmp_path: Path) -> None:
    """As google/ddpm-ema-bedroom-256 is."""
    (tmp_path / "served" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    expected = network().state_dict()
    torch.save(expected, tmp_path / "served" / "unet" / "diffusion_pytorch_model.bin")
    found = state(diffusion.load("hf://owner/name", device="cpu"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_another_run_of_that_name_is_left_alone(filled: FakeHub, own: Path, tmp_path: Path) -> None:
    shutil.copytree(own, tmp_path / "runs" / "name")
    before = files(tmp_path / "runs" / "name")
    assert resolve.at_hand("hf:/owner/name") == Path("runs/name-2")
    assert files(tmp_path / "runs" / "name") == before
    assert diffusion.load("runs/name-2", device="cpu").spec.shape == (3, SIDE, SIDE)


def test_a_second_process_that_is_faster_is_no_fault(filled: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    write = imported.write

    def faster(model: imported.Imported, run: Path) -> None:
        write(model, run)
        write(model, run)

    monkeypatch.setattr(imported, "write", faster)
    assert resolve.local("hf://owner/name").is_dir()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"README.md"}, "hf://owner/empty: holds neither a run of this package nor a model of diffusers$"),
        ({"a/b.pt", "README.md"}, r"to import a file of guided-diffusion, name it: hf://owner/empty/a/b\.pt"),
        ({"config.json", "model.safetensors"}, "holds neither a run"),
        ({"checkpoints/step-00000001/manifest.json"}, "holds neither a run"),
        ({"model_index.json", "unet/config.json"}, "hf://owner/empty: no weights; a file"),
    ],
)
def test_what_a_repository_holds_instead_is_said(names: set[str], message: str) -> None:
    listed = dict.fromkeys(names, File(None, "", ""))
    with pytest.raises(InputError, match=message):
        resolve.model_files(Repository(Address("owner/empty"), "0" * 40, listed), "")


def test_an_address_may_name_a_file() -> None:
    listed = dict.fromkeys({"a.pt", "a.py"}, File(None, "", ""))
    assert resolve.model_files(Repository(Address("o/n", "", "a.pt"), "0" * 40, listed), "") == ["a.pt"]
    with pytest.raises(
        InputError, match=r"hf://o/n/a\.py: must be a folder, or a file of guided-diffusion \(\.pt, \.pth\)"
    ):
        resolve.model_files(Repository(Address("o/n", "", "a.py"), "0" * 40, listed), "")


def test_variants_come_alone(filled: FakeHub, saved: Path, tmp_path: Path) -> None:
    network().half().save_pretrained(tmp_path / "served" / "unet", variant="fp16")
    run = resolve.local("hf://owner/name", variant="fp16")
    assert run.name.endswith("--fp16") and "unet/diffusion_pytorch_model.safetensors" not in filled.served()
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in filled.served()


def test_a_run_begins_from_an_address_and_goes_on_without_the_hub(
    filled: FakeHub, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("finish", "samples"):
        monkeypatch.setattr(Reporter, name, lambda self, model: None)
    monkeypatch.setattr(Reporter, "validation", lambda self, model, losses: Validation())
    beginning.folder_of.cache_clear()
    address, run = "hf://owner/name", tmp_path / "run"
    source = diffusion.load(address, device="cpu").config
    training = replace(source.training, init=address, steps=1, batch=4, precision="fp32")
    experiment = replace(source, data=DataOptions(path=str(shapes), size=SIDE), training=training)
    assert train(experiment, run) == 0
    (digits,) = (path.name[-12:] for path in (tmp_path / "cache" / kept.MODELS).iterdir())
    first, said = capsys.readouterr().out.splitlines(), f"from the weights of {address}, commit {digits}, step 0 (sha"
    assert next(line for line in first if line.startswith(f"{run}: ")).startswith(f"{run}: begins {said}")
    assert any(line.startswith("training.init: ") and "classes" not in line for line in first)
    record = origin.recorded(run)["models"]["training.init"]
    assert record == {**record, "path": address, "commit": digits, "step": 0}
    assert diffusion.load(run, device="cpu").config.training.init == address

    filled.status = 503
    shutil.rmtree(tmp_path / "cache" / kept.MODELS)
    beginning.folder_of.cache_clear()
    assert train(replace(experiment, training=replace(training, steps=2)), run) == 0
    assert f"{run}: began {said}" in capsys.readouterr().out
    assert origin.recorded(run)["models"]["training.init"] == record
    missing = replace(experiment, training=replace(training, init="hf://owner"))
    with pytest.raises(InputError, match=r"^training.init: hf://owner: must be hf://OWNER/NAME"):
        train(missing, tmp_path / "other")
