"""The ways of making images: what tells samples apart, and what is refused before a folder is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion.commands.measured import data_options, open_own
from diffusion.commands.options import DrawArguments, Evaluate, Sample
from diffusion.commands.samples.ways import (
    file_suffix,
    given,
    holes_of,
    identity,
    read_latents,
    rows,
    settings_of,
    way_of,
)
from diffusion.data import DataSpec
from diffusion.errors import InputError
from diffusion.model import Model, load
from diffusion.model.completing import known_of


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return load(trained, device="cpu")


def options(**changed: object) -> Sample:
    draw = {name: changed.pop(name) for name in list(changed) if hasattr(DrawArguments(), name)}
    return Sample(Path("run"), DrawArguments(**draw), **changed)  # type: ignore[arg-type]


def test_labels_by_name_and_number_are_the_same_settings(model: Model) -> None:
    assert settings_of(options(label="1"), model) == settings_of(options(label="square"), model)
    assert settings_of(options(label="1"), model)["label"] == "square"
    assert settings_of(options(), model)["label"] == "in turn"
    plain = replace(model, spec=replace(model.spec, classes=()))
    assert settings_of(options(), plain)["label"] is None


def test_defaults_and_the_same_values_stated_are_the_same_settings(model: Model) -> None:
    stated = options(steps=model.config.sampling.steps, guidance=model.config.sampling.guidance, batch=3, n=100)
    assert settings_of(stated, model) == settings_of(options(), model)
    assert settings_of(options(seed=1), model) != settings_of(options(), model)


def test_a_model_is_known_by_its_weights(model: Model, trained: Path) -> None:
    assert identity(load(trained)) == identity(model) and identity(model)["step"] == 40
    other = load(trained / "checkpoints" / "step-00000020")
    assert identity(other)["model"] != identity(model)["model"]


def test_the_classes_take_turns_by_the_number_of_a_sample(model: Model) -> None:
    assert given(options(), model, range(3, 6))["label"] == [1, 0, 1]
    assert given(options(label="disk"), model, range(3, 6))["label"] == "disk"
    assert given(options(vary=Path("x.png")), model, range(3, 6))["label"] is None, "the image has a class already"


def test_samples_of_a_range_are_those_of_the_whole(model: Model) -> None:
    way = way_of(options(steps=2), model)
    whole = way.draw(model, range(6), 6)
    torch.testing.assert_close(way.draw(model, range(3, 6), 6), whole[3:], rtol=0, atol=1e-5)
    assert way.name == "samples-0" and way.n == 16 and way.settings == {}


def test_suffixes_are_those_that_hold_the_data() -> None:
    assert (
        file_suffix(None, DataSpec((3, 2, 2), 256)) == ".png" and file_suffix("tif", DataSpec((3, 2, 2), 256)) == ".tif"
    )
    assert file_suffix(None, DataSpec((5, 2, 2), 256)) != ".png"
    assert file_suffix(None, DataSpec((2,), None)) == file_suffix("npy", DataSpec((2,), None)) == ".npy"
    with pytest.raises(InputError, match="--format: must be npy for points, got png"):
        file_suffix("png", DataSpec((2,), None))


def test_latents_are_read_by_rows_and_other_files_are_named(tmp_path: Path) -> None:
    spec, path = DataSpec((2,), None), tmp_path / "z.npy"
    np.save(path, z := np.arange(10.0).reshape(5, 2))
    assert torch.equal(rows(read_latents(path, spec), range(1, 3)), torch.from_numpy(z[1:3]))
    for wrong, found in (
        (z[:, :1], r"float64 \(5, 1\)"),
        (z.astype(int), r"int64 \(5, 2\)"),
        (z[:0], r"float64 \(0, 2\)"),
    ):
        np.save(path, wrong)
        with pytest.raises(InputError, match=rf"z\.npy: must hold floats \(N, 2\), got {found}"):
            read_latents(path, spec)
    path.write_text("no array")
    with pytest.raises(InputError, match=r"z\.npy: cannot be read as a \.npy file of latents"):
        read_latents(path, spec)
    np.savez(tmp_path / "z.npz", z)
    with pytest.raises(InputError, match="got several arrays"):
        read_latents(tmp_path / "z.npz", spec)


def test_samples_are_drawn_through_the_holes_of_images_by_number(learned: Path) -> None:
    model = load(learned, device="cpu")
    asked = replace(options(steps=2, seed=3), run=learned, through_holes=True)
    images = open_own(model, data_options(Evaluate(learned), model), others="")
    there = known_of(images, range(len(images)))
    holes = holes_of(asked, model)
    seen = holes(range(30))
    assert seen is not None and seen.shape == (30, 1, 8, 8)
    assert all(any(torch.equal(mask, other) for other in there) for mask in seen)
    assert len({mask.numpy().tobytes() for mask in seen}) > 8, "they are those of different images"
    later = holes(range(7, 30))
    assert later is not None and torch.equal(later, seen[7:])
    other = holes_of(replace(asked, draw=replace(asked.draw, seed=4)), model)(range(30))
    assert other is not None and not torch.equal(other, seen)
    way = way_of(asked, model)
    drawn = way.draw(model, range(2, 6), 4)
    expected = model.sample(4, first=2, through=seen[2:6], **given(asked, model, range(2, 6)))
    assert torch.equal(drawn, expected) and way.settings == {"through_holes": True}
    assert not torch.equal(drawn, model.sample(4, first=2, **given(asked, model, range(2, 6))))


def test_holes_of_a_run_without_any_are_refused(trained: Path) -> None:
    asked = replace(options(), run=trained, through_holes=True)
    with pytest.raises(InputError, match=r"^--through-holes: must be left out for a run on images without holes \("):
        holes_of(asked, load(trained))
