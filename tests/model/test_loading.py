"""From a checkpoint to a model: the averaged weights, ready to use, and the parts of an experiment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffusion import checkpoint, config
from diffusion.backbones import BACKBONES
from diffusion.checkpoint import CheckpointError, Part, Retention
from diffusion.data import DataSpec
from diffusion.denoiser import Denoiser
from diffusion.errors import InputError
from diffusion.model import assemble, build, describe, load, loading
from diffusion.model.loading import CONSTANTS, Bounded
from tests.conftest import tiny
from tests.machines import machine

SPEC = DataSpec((3, 8, 8), 256, ("disk", "square"), 100.0, 50.0)


@pytest.mark.parametrize(("learned", "outputs"), [(False, 3), (True, 6)])
def test_a_backbone_has_a_second_set_of_channels_for_a_learned_variance(learned: bool, outputs: int) -> None:
    experiment = tiny(
        Path("images"), model={"learned_variance": learned}, training={"hybrid": 0.001 if learned else 0.0}
    )
    network = build(experiment, SPEC)
    x = torch.zeros(2, 3, 8, 8)
    assert network(x, torch.zeros(2), torch.tensor([0, 1])).shape == (2, outputs, 8, 8)


def test_a_backbone_knows_the_classes_and_the_spacing_of_the_gray_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, asked = tiny(Path("images")), []

    def record(self: object, *arguments: object, **options: object) -> None:
        asked.append((arguments, options))

    monkeypatch.setattr(type(experiment.backbone), "build", record)
    build(experiment, SPEC)
    build(experiment, replace(SPEC, shape=(1, 8, 8), classes=()))
    plain = {"spacing": 1 / 50, "mapped": False, "condition_channels": 0}
    assert asked == [((3, 3, 2), plain), ((1, 1, 0), plain)]


def test_a_denoiser_has_the_schedule_and_the_parameterization_of_the_experiment() -> None:
    experiment = tiny(Path("images"), schedule={"name": "cosine"}, parameterization={"name": "v"})
    network = build(experiment, SPEC)
    assert assemble(experiment, network) == Denoiser(network, experiment.schedule, experiment.parameterization)


@pytest.mark.parametrize("newest", [True, False])
def test_a_model_has_the_averaged_weights_of_a_checkpoint(trained: Path, newest: bool) -> None:
    """A run folder stands for its newest checkpoint."""
    step = 40 if newest else 20
    folder = trained / "checkpoints" / f"step-{step:08d}"
    model = load(trained if newest else folder, device="cpu")
    stored = checkpoint.read(folder, "model")
    weights = model.denoiser.backbone.state_dict()  # type: ignore[attr-defined]
    assert weights.keys() == stored.tensors.keys()
    assert all(torch.equal(weights[name], value) for name, value in stored.tensors.items())
    assert model.step == step and model.spec.classes == ("disk", "square")
    assert model.config == config.from_dict(dict(stored.description["config"]))


def test_a_description_is_the_inverse_of_loading(trained: Path, tmp_path: Path) -> None:
    model = load(trained, device="cpu")
    described = describe(model.config, model.spec, 7)
    weights = model.denoiser.backbone.state_dict()  # type: ignore[attr-defined]
    checkpoint.write(tmp_path, 7, {"model": Part(weights, described)}, keep=Retention(1))
    again = load(tmp_path, device="cpu")
    assert (again.config, again.spec, again.step) == (model.config, model.spec, 7)
    x, t = torch.zeros(1, 3, 8, 8), torch.tensor(0.5)
    assert torch.equal(again.denoiser(x, t).mean, model.denoiser(x, t).mean)


def test_a_loaded_network_is_ready_to_use_on_its_device(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned: list[bool] = []
    monkeypatch.setattr(loading, "tune_malloc", lambda: tuned.append(True))
    model = load(trained, device="cpu")
    backbone = model.denoiser.backbone
    assert isinstance(backbone, torch.nn.Module) and not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert {parameter.device for parameter in backbone.parameters()} == {torch.device("cpu")} == {model.device}
    assert tuned == [True], "memory that is freed is kept on a CPU"


def test_tensors_that_are_not_the_networks_are_damage_that_is_named(trained: Path, tmp_path: Path) -> None:
    stored = checkpoint.read(checkpoint.find(trained)[0], "model")
    name = sorted(stored.tensors)[0]
    for number, tensors in enumerate(
        (
            {key: value for key, value in stored.tensors.items() if key != name},
            {**stored.tensors, name: stored.tensors[name].new_zeros(1, 2, 3)},
        )
    ):
        run = tmp_path / str(number)
        checkpoint.write(run, 1, {"model": Part(tensors, stored.description)}, keep=Retention(1))
        with pytest.raises(CheckpointError) as caught:
            load(run)
        assert f"1 tensors differ from the network's in name or shape, such as {name}" in str(caught.value)
        assert "damaged checkpoint: its description does not fit" in str(caught.value)


def test_a_device_is_named_by_a_word_or_is_one_of_torch(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=0)
    assert load(trained).device == load(trained, device="auto").device == torch.device("cpu")
    with pytest.raises(InputError, match=r"^device: must be a device of this machine, cpu, got cuda; this torch is bu"):
        load(trained, device="cuda")
    with pytest.raises(InputError, match=r"^device: must be auto, cpu, cuda, cuda:N or mps, got 'gpu'"):
        load(trained, device="gpu")
    assert load(trained, device=torch.device("meta")).device == torch.device("meta")


def test_a_process_of_several_loads_onto_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=2, LOCAL_RANK="1", WORLD_SIZE="2")
    named = [loading._device(word) for word in (None, "auto", "cuda", "cuda:0", "cpu")]
    assert named == [torch.device(name) for name in ("cuda:1", "cuda:1", "cuda:1", "cuda:0", "cpu")]


@pytest.mark.parametrize("name", BACKBONES)
def test_all_values_of_a_network_are_counted_before_they_are_made(name: str) -> None:
    """Those of its state, and the few of constants, by whatever function of torch it makes them."""
    classes = 0 if name == "rbf" else 4
    with Bounded(10**9) as counter:
        network = BACKBONES[name]().build(3, 3, classes, mapped=classes > 0)
    stored = sum(value.numel() for value in network.state_dict().values())
    assert stored <= 10**9 - counter.left <= stored + CONSTANTS // 8
    made: list[torch.Size] = []
    with pytest.raises(ValueError, match="more than 1,000 values"), Bounded(1000):
        made.extend(torch.zeros(size).shape for size in (600, (20, 20), 1))
    assert made == [(600,), (20, 20)], "the last value is one too many"


@pytest.mark.parametrize(
    "vast",
    [
        lambda: torch.empty(size=(10**6, 10**6)),
        lambda: torch.randn(10**6, 10**6),
        lambda: torch.arange(10**12),
        lambda: torch.linspace(0, 1, 10**12),
        lambda: torch.logspace(0, 1, steps=10**12),
        lambda: torch.nn.Linear(10**6, 10**6),
        lambda: torch.nn.Conv2d(10**6, 10**6, 3),
    ],
)
def test_what_is_vast_is_not_made(vast: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="more than 1,000,000 values"), Bounded(10**6):
        vast()


def test_the_model_that_was_loaded_last_is_kept_until_there_is_a_newer_one(run: Path, restorer: Path) -> None:
    with loading.keeping():
        first = load(run)
        assert load(run) is first and load(run / "checkpoints") is first
        assert load(run, device="cpu") is first
        other = load(restorer)
        assert other is not first and load(restorer) is other
        again = load(run)
        assert again is not first, "one is kept"
        newest = run / "checkpoints" / f"step-{again.step:08d}"
        newest.rename(newest.with_name(f"step-{again.step + 1:08d}"))
        assert load(run) is not again
    assert load(run) is not load(run)
