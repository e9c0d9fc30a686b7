"""Where samples go: one folder for one model and one set of settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffusion.commands.samples.places import Record, choose, differences, opened, read
from diffusion.errors import InputError

SETTINGS = {
    "step": 40,
    "model": "a",
    "label": None,
    "guidance": 1.0,
    "steps": 15,
    "sampler": {"name": "ddim", "eta": 0.0},
}


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = Record({**SETTINGS, "grid": (1.0, 2.0)}, 7, 6, {"name": "karras"})
    record.write(tmp_path / "a")
    found = read(tmp_path / "a")
    assert found is not None and (found.batch, found.width, found.grid) == (7, 6, {"name": "karras"})
    assert differences(found.settings, record.settings) == [], "a list of JSON is the tuple that it was"
    assert read(tmp_path) is None
    (tmp_path / "samples.json").write_text(json.dumps({"other": 1}))
    with pytest.raises(InputError, match=r"samples\.json: is damaged .* remove the folder, or name another with --out"):
        read(tmp_path)


def test_the_first_command_decides_how_a_folder_goes_on(tmp_path: Path) -> None:
    made = opened(tmp_path, SETTINGS, range(99_000, 100_001), lambda: 7)
    assert (made.batch, made.width) == (7, 6)
    again = opened(tmp_path, SETTINGS, range(3), lambda: 9)
    assert again == made


def place(tmp_path: Path, **changed: object) -> str:
    """The name of the folder that settings get beside samples of SETTINGS, whose record it then holds."""
    default = tmp_path / "samples-0"
    if not default.exists():
        Record(SETTINGS, 1).write(default)
    folder, line = choose(default, None, {**SETTINGS, **changed})
    assert bool(line) == (folder != default) and (not line or line.endswith(f"these go to {folder}"))
    Record({**SETTINGS, **changed}, 1).write(folder)
    return folder.name


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({}, "samples-0"),
        ({"label": "cat"}, "samples-0-label-cat"),
        ({"label": "a/b: c"}, "samples-0-label-a-b-c"),
        ({"guidance": 2.5, "steps": 30}, "samples-0-guidance-2.5-steps-30"),
        ({"sampler": {"name": "heun"}}, "samples-0-sampler-heun"),
        ({"step": 50, "model": "b"}, "samples-0-step-50"),
        ({"model": "b"}, "samples-0-2"),
        ({"sampler": {"name": "ddim", "eta": 1.0}}, "samples-0-sampler-ddim"),
    ],
)
def test_a_folder_is_named_by_what_differs(tmp_path: Path, changed: dict[str, object], name: str) -> None:
    assert place(tmp_path, **changed) == name
    assert place(tmp_path, **changed) == name, "the same command finds it again"


def test_names_that_are_taken_get_a_number(tmp_path: Path) -> None:
    assert place(tmp_path, step=50, model="b") == "samples-0-step-50"
    assert place(tmp_path, step=50, model="c") == "samples-0-step-50-2"
    assert place(tmp_path, step=50, model="d") == "samples-0-step-50-3"


def test_a_folder_that_was_named_must_hold_the_same_samples(tmp_path: Path) -> None:
    Record(SETTINGS, 1).write(tmp_path / "out")
    assert choose(tmp_path / "default", tmp_path / "out", SETTINGS) == (tmp_path / "out", "")
    with pytest.raises(InputError, match=r"--out: .*out holds samples of label none, not cat, steps 15, not 3; name"):
        choose(tmp_path / "default", tmp_path / "out", {**SETTINGS, "label": "cat", "steps": 3})
    with pytest.raises(InputError, match="holds samples of another model; name another folder"):
        choose(tmp_path / "default", tmp_path / "out", {**SETTINGS, "model": "b"})
