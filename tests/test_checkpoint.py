"""Checkpoints: exact, whole or invisible, and checked when read."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffusion import checkpoint, files
from diffusion.checkpoint import CheckpointError, Part, Retention
from diffusion.errors import InputError
from diffusion.model import load
from diffusion.training import train
from diffusion.training.report import Reporter
from diffusion.training.trainer import Trainer
from tests.conftest import tiny

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8)
FILES = ("manifest.json", "model.safetensors", "training.safetensors")


def tensors(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    values = torch.randn(3, 4, generator=generator, dtype=torch.float64) * 100
    found = {str(dtype): values.to(dtype) for dtype in DTYPES}
    return found | {
        "bool": values > 0,
        "scalar": values.sum(),
        "transposed": values.clone().T,
        "channels_last": torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last),
        "empty": torch.zeros(0, 3),
    }


def write(run: Path, step: int, keep: int = 10) -> Path:
    description = {"step": step, "config": {"name": "é"}}
    parts = {"model": Part(tensors(step), description), "training": Part({"x": torch.arange(50.0)}, {"step": step})}
    return checkpoint.write(run, step, parts, keep=Retention(keep))


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_what_is_read_is_what_was_written_to_the_last_bit(tmp_path: Path) -> None:
    folder = write(tmp_path, 7)
    assert folder == tmp_path / "checkpoints" / "step-00000007" and checkpoint.verify(folder) == 7
    part = checkpoint.read(folder, "model")
    assert part.description == {"step": 7, "config": {"name": "é"}}
    assert part.tensors.keys() == tensors(7).keys()
    for name, value in tensors(7).items():
        assert part.tensors[name].dtype == value.dtype and torch.equal(part.tensors[name], value), name


def test_the_newest_k_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 30):
        write(tmp_path, step, keep=2)
    assert names(tmp_path) == ["step-00000010", "step-00000030"]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (Retention(1), [60]),
        (Retention(2), [50, 60]),
        (Retention(1, every=20), [20, 40, 60]),
        (Retention(2, best=30), [30, 50, 60]),
        (Retention(1, every=40, best=10), [10, 40, 60]),
        (Retention(2, best=60), [50, 60]),
        (Retention(1, best=35), [60]),
    ],
)
def test_the_newest_those_of_every_so_many_steps_and_the_best_are_kept(
    tmp_path: Path, keep: Retention, kept: list[int]
) -> None:
    for step in range(10, 70, 10):
        part = {"model": Part({"x": torch.zeros(1)}, {})}
        checkpoint.write(tmp_path, step, part, keep=keep)
    assert names(tmp_path) == [f"step-{step:08d}" for step in kept]


def test_a_checkpoint_that_does_not_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write(tmp_path, 1, keep=1)
    needed = sum(tensor.nbytes for tensor in tensors(2).values()) + 200
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(checkpoint, "save_file", None)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda place: usage(10**9, 10**9, needed - 1))
    with pytest.raises(CheckpointError, match=r"cannot be written \(No space: 0\.0 MB are needed.*before it are whole"):
        write(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["step-00000001"] and checkpoint.newest(tmp_path) == (before, [])


def test_damaged_checkpoints_of_later_steps_do_not_count_among_those_kept(tmp_path: Path) -> None:
    write(tmp_path, 5)
    (write(tmp_path, 10) / "model.safetensors").unlink()
    folder = write(tmp_path, 7, keep=1)
    assert names(tmp_path) == ["step-00000007"] and checkpoint.newest(tmp_path) == (folder, [])


def test_a_folder_that_cannot_be_deleted_does_not_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1)
    real = os.rmdir

    def refuse(path: str, **options: object) -> None:
        if "step-00000001" in str(path) or options:
            raise PermissionError(path)
        real(path)

    monkeypatch.setattr(os, "rmdir", refuse)
    assert checkpoint.verify(write(tmp_path, 2, keep=1)) == 2


def fail_on(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, error: Exception, call: int) -> None:
    """Makes the call number `call` of owner.name raise."""
    real, calls = getattr(owner, name), [0]

    def broken(*values: object, **options: object) -> object:
        calls[0] += 1
        if calls[0] == call:
            raise error
        return real(*values, **options)

    monkeypatch.setattr(owner, name, broken)


DISK_FULL = OSError(28, "No space left on device")
POINTS = [
    (checkpoint, "save_file", SafetensorError("No space left on device"), 1),
    (checkpoint, "save_file", DISK_FULL, 2),
    (checkpoint, "file_hash", DISK_FULL, 2),
    (Path, "write_text", DISK_FULL, 1),
    (os, "fsync", DISK_FULL, 1),
    (os, "fsync", DISK_FULL, 4),
    (Path, "rename", DISK_FULL, 1),
    (checkpoint, "save_file", KeyboardInterrupt(), 1),
]


@pytest.mark.parametrize(("owner", "name", "error", "call"), POINTS)
def test_a_failure_at_any_point_leaves_the_previous_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, error: Exception, call: int
) -> None:
    before = write(tmp_path, 1, keep=1)
    with monkeypatch.context() as patch:
        fail_on(patch, owner, name, error, call)
        interrupted = isinstance(error, KeyboardInterrupt)
        with pytest.raises(
            KeyboardInterrupt if interrupted else CheckpointError,
            match=None if interrupted else r"cannot be written \(.*No space",
        ):
            write(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["step-00000001"]
    assert checkpoint.newest(tmp_path) == (before, [])
    assert torch.equal(checkpoint.read(before, "model").tensors["scalar"], tensors(1)["scalar"])


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    left = tmp_path / "checkpoints" / ".tmp-step-00000001-12345"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    write(tmp_path, 2)
    assert names(tmp_path) == ["step-00000002"]


def test_stray_entries_are_ignored(tmp_path: Path) -> None:
    folder = write(tmp_path, 3)
    parent = folder.parent
    for name in ("99.txt", ".DS_Store", "step-00000099"):
        (parent / name).write_text("stray")
    for name in (".tmp-step-00000050-1", "tmp.foo", "step-best", "step-", "step-00000004.bak"):
        (parent / name).mkdir()
    assert checkpoint.folders(tmp_path) == [folder]
    assert checkpoint.find(tmp_path) == (folder, [])


def test_a_run_may_be_called_as_a_checkpoint_is(tmp_path: Path) -> None:
    folder = write(tmp_path / "step-2", 3)
    assert checkpoint.find(tmp_path / "step-2") == (folder, []) and checkpoint.find(folder) == (folder, [])


DAMAGES: dict[str, Callable[[Path, bytes], object]] = {
    "truncated": lambda path, data: path.write_bytes(data[: len(data) // 2]),
    "emptied": lambda path, data: path.write_bytes(b""),
    "flipped": lambda path, data: path.write_bytes(
        data[: (k := len(data) * 9 // 10)] + bytes([data[k] ^ 1]) + data[k + 1 :]
    ),
    "removed": lambda path, data: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_named_and_the_previous_checkpoint_used(tmp_path: Path, name: str, damage: str) -> None:
    previous, folder = write(tmp_path, 1), write(tmp_path, 2)
    path = folder / name
    DAMAGES[damage](path, path.read_bytes())
    with pytest.raises(CheckpointError) as caught:
        checkpoint.verify(folder)
    assert str(folder) in str(caught.value)
    if (name, damage) != ("manifest.json", "flipped"):  # It may then accuse the file that it no longer describes.
        assert name in str(caught.value)
    found, problems = checkpoint.find(tmp_path)
    assert found == previous and problems == [str(caught.value)]


def test_any_flipped_bit_of_a_manifest_is_found_or_harmless(tmp_path: Path) -> None:
    folder = write(tmp_path, 2)
    path = folder / "manifest.json"
    data = path.read_bytes()
    unnoticed = []
    for k in range(len(data)):
        path.write_bytes(data[:k] + bytes([data[k] ^ 1]) + data[k + 1 :])
        try:
            checkpoint.verify(folder)
        except CheckpointError:
            continue
        unnoticed.append(k)
    # Only the step, which is not read from there, and format 3, as what brings format 2 to it leaves such parts alone.
    assert unnoticed == [data.index(field) + len(field) - 1 for field in (b'"format": 3', b'"step": 2')]
    part = Part({"embed.label.weight": torch.ones(3, 2), "embed.label.rms": torch.full((3,), 0.5)}, {})
    found = checkpoint.MIGRATIONS[2]("model", part).tensors
    assert found.keys() == part.tensors.keys() and torch.equal(found["embed.label.rms"], torch.full((3,), 0.5))


def test_a_manifest_has_the_step_and_the_hashes_of_the_files(tmp_path: Path) -> None:
    folder = write(tmp_path, 2)
    expected = {path.name: checkpoint.file_hash(path) for path in folder.glob("*.safetensors")}
    assert expected and checkpoint.hashes(folder) == (2, expected)


@pytest.mark.parametrize("text", ["[]", "{}", "3", '{"format": 1, "step": 2, "files": []}'])
def test_a_manifest_of_another_shape_is_damage(tmp_path: Path, text: str) -> None:
    folder = write(tmp_path, 2)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        checkpoint.verify(folder)


def test_another_format_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, 2)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(CheckpointError, match="format 99; this version reads formats 1 to 3"):
        checkpoint.verify(folder)


class Canary:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("data", [b"", (2**60).to_bytes(8, "little") + b"{}", None])
def test_a_file_that_is_no_safetensors_is_refused_even_with_a_right_manifest(
    tmp_path: Path, data: bytes | None
) -> None:
    folder = write(tmp_path, 2)
    path = folder / "model.safetensors"
    path.write_bytes(pickle.dumps(Canary(tmp_path / "canary")) if data is None else data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name] = {"size": path.stat().st_size, "sha256": checkpoint.file_hash(path)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    checkpoint.verify(folder)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        checkpoint.read(folder, "model")
    assert not (tmp_path / "canary").exists()


def test_a_manifest_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    folder = write(tmp_path, 2)
    (tmp_path / "secret").write_text("x")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../secret"] = {"size": 1, "sha256": checkpoint.file_hash(tmp_path / "secret")}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"manifest\.json names '\.\./\.\./secret', no file of a checkpoint"):
        checkpoint.verify(folder)


def test_a_missing_run_and_one_without_checkpoint_say_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone: no such run folder.*diffusion train CONFIG --out .*gone"):
        checkpoint.find(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=r"no checkpoint in this folder.*diffusion train CONFIG --out"):
        checkpoint.find(tmp_path)


def test_when_all_are_damaged_each_is_named(tmp_path: Path) -> None:
    for step in (1, 2):
        (write(tmp_path, step) / "model.safetensors").unlink()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.find(tmp_path)
    text = str(caught.value)
    assert "no usable checkpoint" in text
    assert "step-00000001: damaged" in text and "step-00000002: damaged" in text


def test_a_checkpoint_folder_is_found_by_itself(tmp_path: Path) -> None:
    folder = write(tmp_path, 2)
    assert checkpoint.find(folder) == (folder, [])
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        checkpoint.find(folder)


@pytest.mark.parametrize(
    ("path", "means"),
    [
        ("run", "run"),
        ("run/", "run"),
        ("run/config.json", "run"),
        ("run/checkpoints", "run"),
        ("run/checkpoints/", "run"),
        ("run/checkpoints/step-00000002", "run/step-00000002"),
        ("run/checkpoints/step-00000002/model.safetensors", "run/step-00000002"),
        ("run/checkpoints/step-00000002/training.safetensors", "run/step-00000002"),
        ("run/checkpoints/step-00000002/manifest.json", "run/step-00000002"),
        ("run/step-00000002", "run/step-00000002"),
        ("~/run/checkpoints/step-00000002", "run/step-00000002"),
        ("copy/model.safetensors", "copy"),
        ("run/samples/a.png", "run/samples/a.png"),
    ],
)
def test_a_file_or_a_folder_of_a_run_means_the_run_or_its_checkpoint(
    path: str, means: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, older = write(tmp_path / "run", 3), write(tmp_path / "run", 2)
    newest = write(tmp_path / "run", 3)
    shutil.copytree(older, tmp_path / "copy")
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "run" / "samples").mkdir()
    (tmp_path / "run" / "samples" / "a.png").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    for start in (tmp_path, Path()):
        monkeypatch.chdir(tmp_path)
        given = Path(path) if path[0] == "~" else start / path
        found = checkpoint.named(given)
        assert found.absolute() == tmp_path / means
        if means.endswith("png"):
            with pytest.raises(CheckpointError, match=r"a\.png: is a file; name a run folder, such as runs/digits"):
                checkpoint.find(given)
            continue
        expected = {"run": newest, "copy": tmp_path / "copy"}.get(means, older)
        assert checkpoint.find(given)[0].absolute() == expected
        assert checkpoint.run_of(found).absolute() == tmp_path / ("copy" if means == "copy" else "run")


def test_the_folder_in_which_a_command_runs_may_be_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = write(tmp_path / "run", 3)
    for folder, path in (("run", "."), ("run/checkpoints", "."), ("run/checkpoints", ".."), ("run/checkpoints", "../")):
        monkeypatch.chdir(tmp_path / folder)
        assert checkpoint.named(Path(path)) == tmp_path / "run"
        assert checkpoint.find(Path(path)) == (newest, [])
    monkeypatch.chdir(newest)
    assert checkpoint.named(Path("model.safetensors")) == tmp_path / "run" / newest.name
    assert checkpoint.named(Path(".")) == tmp_path / "run" / newest.name


def test_a_run_may_be_called_checkpoints(tmp_path: Path) -> None:
    newest = write(tmp_path / "checkpoints", 3)
    assert checkpoint.named(tmp_path / "checkpoints") == tmp_path / "checkpoints"
    assert checkpoint.find(tmp_path / "checkpoints") == (newest, [])
    assert checkpoint.named(tmp_path / "checkpoints" / "checkpoints") == tmp_path / "checkpoints"


def test_the_nearest_run_and_the_checkpoints_there_are_are_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for step in (2, 3):
        write(tmp_path / "runs" / "digits", step)
    for path, message in {
        "runs/digit": "runs/digit: no such run folder; did you mean runs/digits?",
        "digits": "digits: no such run folder; did you mean runs/digits?",
        "xyzzy": "xyzzy: no such run folder; it is made by: diffusion train CONFIG --out xyzzy",
        "runs/digits/step-00000004": "runs/digits/step-00000004: no such checkpoint; "
        "there are step-00000002, step-00000003",
        "runs/digits/checkpoints/step-4": "runs/digits/step-4: no such checkpoint; "
        "there are step-00000002, step-00000003",
    }.items():
        with pytest.raises(CheckpointError) as caught:
            checkpoint.find(Path(path))
        assert str(caught.value) == message


def test_the_metadata_hold_the_experiment_and_the_description_of_the_data(trained: Path) -> None:
    folder, _ = checkpoint.find(trained)
    description = checkpoint.read(folder, "model").description
    assert description["step"] == 40
    assert description["config"] == json.loads((trained / "config.json").read_text())
    assert description["spec"]["shape"] == [3, 8, 8] and description["spec"]["classes"] == ["disk", "square"]
    assert checkpoint.read(folder, "training").description == {"step": 40, "at_once": 8}
    assert names(trained) == ["step-00000020", "step-00000040"]


def test_what_a_description_asks_for_is_not_taken_without_the_values(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = checkpoint.read(checkpoint.find(trained)[0], "model")
    config = {**part.description["config"]}
    config["backbone"] = {**config["backbone"], "channels": [2**14] * 12, "attention": []}
    vast = Part(part.tensors, {**part.description, "config": config})
    checkpoint.write(tmp_path, 1, {"model": vast}, keep=Retention(1))
    rule = r"a network of more than [0-9,]+ values, which are all that its file has"
    with pytest.raises(CheckpointError, match=rule):
        load(tmp_path)


@pytest.mark.parametrize("field", ["config", "spec", "step"])
@pytest.mark.parametrize("value", [None, 3, [], {"_target_": "os.system"}, {"shape": "x", "levels": 3, "classes": []}])
def test_a_description_that_is_none_is_refused(trained: Path, tmp_path: Path, field: str, value: object) -> None:
    if (field, value) == ("step", 3):
        return
    part = checkpoint.read(checkpoint.find(trained)[0], "model")
    checkpoint.write(tmp_path, 1, {"model": Part(part.tensors, {**part.description, field: value})}, keep=Retention(1))
    with pytest.raises(InputError):
        load(tmp_path)


def test_load_falls_back_and_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "checkpoints" / "step-00000040" / "training.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert load(run).step == 20
    text = capsys.readouterr().out
    assert "training.safetensors has 1000 bytes" in text and "using step-00000020 instead" in text


def test_text_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    files.write_text(path, "old")
    with monkeypatch.context() as patch:
        fail_on(patch, os, "fsync", DISK_FULL, 1)
        with pytest.raises(OSError, match="No space"):
            files.write_text(path, "new")
    assert path.read_text() == "old"
    files.write_text(path, "new")
    assert path.read_text() == "new"


def find(run: Path) -> Path:
    return checkpoint.find(run)[0]


# Names that layers of a U-Net had in format 1, and their names of today.
OLD_LAYERS = {"shortcut": "trunk", "proj_out": "merge", "embed.log_snr_layer": "embed.level"}


def as_format_1(run: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Part]:
    """Writes the newest checkpoint of a run again as format 1 had it; returns it as it is today."""
    folder = find(run)
    today = {name: checkpoint.read(folder, name) for name in ("model", "training")}
    old = {}
    for name, part in today.items():
        renamed = {}
        for key, value in part.tensors.items():
            if key.endswith("embed.label.rms"):  # Formats 1 and 2 had none.
                assert torch.equal(value, torch.ones_like(value))
                continue
            for new_layer, old_layer in OLD_LAYERS.items():
                key = re.sub(rf"(?<![\w]){re.escape(new_layer)}\.", f"{old_layer}.", key)
            renamed[key] = value
        old[name] = Part(renamed, part.description)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 1)
        checkpoint.write(run, checkpoint.step_of(folder), old, keep=Retention(1))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == 1
    return today


@pytest.mark.parametrize("design", ["magnitude", "group_norm"])
def test_a_u_net_of_format_1_is_loaded_under_the_new_names_to_the_last_bit(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, design: str
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(Reporter, "finish", lambda self, model: None)
    monkeypatch.setattr(Trainer, "_show", lambda self, samples, evaluation: None)
    assert train(tiny(shapes, backbone={"design": design}, training={"steps": 3}), run) == 0
    before = load(run, device="cpu")
    today = as_format_1(run, monkeypatch)

    raw = load_file(find(run) / "model.safetensors")
    for old_layer in OLD_LAYERS.values():
        assert any(re.search(rf"(^|\.){re.escape(old_layer)}\.", key) for key in raw), old_layer
    for name, part in today.items():
        found = checkpoint.read(find(run), name)
        assert found.description == part.description and found.tensors.keys() == part.tensors.keys()
        assert all(torch.equal(found.tensors[key], value) for key, value in part.tensors.items())

    after, x = load(run, device="cpu"), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    label, t = torch.tensor([0, 1]), torch.tensor([0.3, 0.8])
    with torch.no_grad():
        outputs = [model.denoiser(x, t, label).mean for model in (before, after)]
    assert torch.equal(*outputs) and float(outputs[0].std()) > 0.01
    assert torch.equal(before.sample(2, steps=2), after.sample(2, steps=2))


def test_a_run_of_format_1_trains_on_as_one_of_today(
    shapes: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [Path(shutil.copytree(trained, tmp_path / name)) for name in ("old", "new")]
    as_format_1(runs[0], monkeypatch)
    monkeypatch.setattr(Reporter, "finish", lambda self, model: None)
    monkeypatch.setattr(Trainer, "_show", lambda self, samples, evaluation: None)
    longer = tiny(shapes, training={"steps": 42}, report={"checkpoint": 20, "samples": 20, "evaluate": 20})
    for run in runs:
        assert train(longer, run) == 0
    for name in ("model", "training"):
        old, new = (checkpoint.read(find(run), name).tensors for run in runs)
        assert old.keys() == new.keys() and all(torch.equal(old[key], value) for key, value in new.items())
    assert checkpoint.step_of(find(runs[0])) == 42
