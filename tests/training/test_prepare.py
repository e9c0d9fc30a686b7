"""Run folders: what may go on in them, what is refused, and configurations of older versions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion import checkpoint
from diffusion.config import Config, ConfigError, to_dict
from diffusion.data import open_source
from diffusion.data.images.mask_law import read_masks
from diffusion.errors import InputError
from diffusion.training.prepare import CHANGEABLE, RESOLVED, difference, follow, prepare
from diffusion.training.trainer import Trainer
from tests.conftest import tiny

Tree = dict[str, dict[str, Any]]


def experiment(shapes: Path, **sections: dict[str, object]) -> Config:
    report = {"checkpoint": 20, "samples": 20, "evaluate": 20, **sections.pop("report", {})}
    return tiny(shapes, training={"steps": 40, **sections.pop("training", {})}, report=report, **sections)


def edit(run: Path, change: Callable[[Tree], object]) -> str:
    """Changes the configuration in a run folder; returns its text."""
    tree = json.loads((run / RESOLVED).read_text())
    change(tree)
    text = json.dumps(tree)
    (run / RESOLVED).write_text(text)
    return text


def test_the_configuration_is_written_resolved(shapes: Path, tmp_path: Path) -> None:
    prepare(experiment(shapes), tmp_path, strict=False)
    expected = json.loads(json.dumps(to_dict(experiment(shapes))))
    assert json.loads((tmp_path / RESOLVED).read_text()) == expected


def test_an_old_run_goes_on_under_the_new_names_of_its_keys(shapes: Path, run: Path) -> None:
    def older(tree: Tree) -> None:
        tree["report"]["grid"] = tree["report"].pop("pictures")
        tree["noise_levels"]["spread"] = tree["noise_levels"].pop("uniform")
        del tree["report"]["restored"]  # A key that came later.

    edit(run, older)
    prepare(experiment(shapes, report={"pictures": 9, "restored": 4}), run, strict=False)
    tree = json.loads((run / RESOLVED).read_text())
    assert tree["report"]["pictures"] == 9 and "grid" not in tree["report"]
    assert tree["noise_levels"]["uniform"] == 0.0 and "spread" not in tree["noise_levels"]


def test_an_old_run_of_another_experiment_is_refused_under_the_new_name(shapes: Path, run: Path) -> None:
    text = edit(run, lambda tree: tree["noise_levels"].update(spread=tree["noise_levels"].pop("uniform") + 0.5))
    with pytest.raises(ConfigError) as caught:
        prepare(experiment(shapes), run, strict=False)
    assert str(caught.value) == (
        f"{run}: holds a run of another configuration; choose another folder with --out, or undo:\n"
        "  noise_levels.uniform: 0.5 -> 0.0\n"
        f"To begin a new run from the weights of this one, choose another folder and set training.init={run}"
    )
    assert (run / RESOLVED).read_text() == text


def test_a_run_with_both_names_of_a_key_is_refused_by_name(shapes: Path, run: Path) -> None:
    edit(run, lambda tree: tree["report"].update(grid=4))
    with pytest.raises(ConfigError) as caught:
        prepare(experiment(shapes), run, strict=False)
    assert str(caught.value) == f"{run / RESOLVED}: report.grid: is called report.pictures now; give it once"


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("report", {"pictures": 9, "keep": 1}),
        ("sampling", {"steps": 3}),
        ("sampler", {"name": "ddim"}),
        ("grid", {"name": "time"}),
        ("training", {"steps": 50, "accumulate": 2, "precision": "bf16", "gradient_checkpointing": True}),
        ("training", {"em_steps": 20}),
        ("data", {"max_bad": 0.5}),
    ],
)
def test_how_long_a_run_is_and_what_it_shows_may_change(
    shapes: Path, run: Path, section: str, values: dict[str, object]
) -> None:
    changed = experiment(shapes, **{section: values})
    lines = difference(to_dict(experiment(shapes)), to_dict(changed))
    assert lines and all(line.startswith(CHANGEABLE) for line in lines)
    prepare(changed, run, strict=False)
    assert json.loads((run / RESOLVED).read_text()) == json.loads(json.dumps(to_dict(changed)))


def test_how_examples_are_observed_may_change_while_none_are(shapes: Path, run: Path) -> None:
    prepare(experiment(shapes, observed={"unseen": 0.3, "noisy": 0.5}), run, strict=False)
    assert json.loads((run / RESOLVED).read_text())["observed"]["unseen"] == 0.3
    with pytest.raises(ConfigError, match=r"(?s)observed\.noisy: 0\.5 -> 0\.25.*observed\.share: 0\.0 -> 0\.5"):
        prepare(experiment(shapes, observed={"share": 0.5}), run, strict=False)


def test_rounds_may_be_added_to_a_run_but_its_average_stays(shapes: Path) -> None:
    def lines(**training: object) -> list[str]:
        before, now = (experiment(shapes, training=each, observed={"share": 0.5}) for each in ({}, training))
        return difference(to_dict(before), to_dict(now))

    assert all(line.startswith(CHANGEABLE) for line in lines(em=2))
    assert lines(ema=0.1) and not any(line.startswith(CHANGEABLE) for line in [*lines(ema=0.1), *lines(em_draws=2)])


def test_the_grid_of_a_student_may_not_change(shapes: Path, run: Path) -> None:
    student = {"distillation": {"teacher": "teacher"}}
    edit(run, lambda tree: tree["distillation"].update(teacher="teacher"))
    prepare(experiment(shapes, sampler={"name": "ddim"}, **student), run, strict=False)
    with pytest.raises(ConfigError, match=r"sampling\.steps: 4 -> 5"):
        prepare(experiment(shapes, sampling={"steps": 5}, **student), run, strict=False)


def test_before_the_first_checkpoint_anything_may_change(shapes: Path, tmp_path: Path) -> None:
    prepare(experiment(shapes), tmp_path, strict=False)
    prepare(experiment(shapes, training={"lr": 0.5}), tmp_path, strict=True)
    assert json.loads((tmp_path / RESOLVED).read_text())["training"]["lr"] == 0.5
    assert checkpoint.folders(tmp_path) == []


def test_differences_are_lines_of_keys_in_order() -> None:
    old = {"a": {"x": 1, "gone": "s"}, "b": {"pair": (1, 2)}}
    new = {"a": {"x": 2}, "b": {"pair": [1, 2], "new": True}}
    assert difference(old, new) == ["a.gone: 's' -> 'unset'", "a.x: 1 -> 2", "b.new: 'unset' -> True"]


@pytest.mark.parametrize("weighting", ["exact", "sigmoid"])
def test_a_new_run_whose_objective_no_batch_estimates_is_refused_and_a_begun_one_goes_on(
    shapes: Path, run: Path, tmp_path: Path, weighting: str
) -> None:
    heavy = experiment(shapes, weighting={"name": weighting})
    with pytest.raises(ConfigError, match=f"where weighting.name is {weighting} and noise_levels.name is log_normal"):
        prepare(heavy, tmp_path / "new", strict=False)
    assert not (tmp_path / "new").exists()
    edit(run, lambda tree: tree.update(weighting=to_dict(heavy)["weighting"]))
    prepare(heavy, run, strict=False)
    assert json.loads((run / RESOLVED).read_text())["weighting"]["name"] == weighting


def test_a_teacher_may_move_and_is_known_by_its_weights(
    shapes: Path, run: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = Path(shutil.copytree(trained, run.with_name("teacher")))

    def student(path: Path | str) -> Config:
        return experiment(shapes, distillation={"teacher": str(path)})

    edit(run, lambda tree: tree["distillation"].update(teacher=str(teacher)))
    dataset = open_source(student(teacher).data, lambda line: None)
    follow(student(teacher), run, dataset)
    prepare(student(f"{teacher}/"), run, strict=False)
    moved = teacher.rename(run.with_name("moved"))
    prepare(student(moved), run, strict=False)
    assert json.loads((run / RESOLVED).read_text())["distillation"]["teacher"] == str(moved)
    other = trained / "checkpoints" / "step-00000020"
    with pytest.raises(ConfigError, match=r"distillation\.teacher: '.*moved' -> '.*step-00000020'"):
        prepare(student(other), run, strict=False)
    capsys.readouterr()
    follow(student(moved), run, dataset)
    assert capsys.readouterr().out == ""
    shutil.rmtree(moved / "checkpoints" / "step-00000040")
    follow(student(moved), run, dataset)
    expected = f"distillation.teacher: {moved} has other weights than at the last training\n"
    assert capsys.readouterr().out == expected


def test_examples_are_observed_through_the_masks_of_a_folder(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, run = tmp_path / "masks", tmp_path / "run"
    observed = {"share": 1.0, "noisy": 0.0, "unseen": 0.0, "masks": (), "folder": str(masks)}
    observing = tiny(shapes, observed=observed, training={"steps": 2})
    with pytest.raises(InputError, match=r"observed\.folder: must be a folder of masks"):
        prepare(observing, run, strict=False)
    masks.mkdir()
    known = np.zeros(observing.data.shape, np.uint8)
    known[:3] = 255
    Image.fromarray(known).save(masks / "mask.png")
    run.mkdir()
    prepare(observing, run, strict=False)
    dataset = open_source(observing.data, lambda line: None)
    trainer = Trainer(observing, dataset, dataset.subset([]), run)
    relative = trainer.maker(0).relative
    assert relative is not None and torch.equal(relative == 0, torch.from_numpy(known != 0).expand_as(relative))
    follow(observing, run, dataset)
    trainer.update(trainer.maker(0))
    trainer.save()
    follow(observing, run, dataset)
    assert "masks" not in capsys.readouterr().out
    Image.fromarray(known.T.copy()).save(masks / "mask.png")
    read_masks.cache_clear()
    follow(observing, run, dataset)
    assert "observed.folder: its masks are others than at the last training" in capsys.readouterr().out
