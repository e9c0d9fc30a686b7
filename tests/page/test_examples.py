from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion import config
from diffusion.data import decode, open_source
from diffusion.data.images.decoding import PixelFormat
from diffusion.errors import InputError
from diffusion.page.answers import Refusal
from diffusion.page.examples import held_out
from diffusion.reporting.run_folder import RunFolder
from tests.conftest import tiny
from tests.page.calls import make_run


@pytest.fixture
def opened(shapes: Path, tmp_path: Path) -> RunFolder:
    """A run that would learn from the shapes."""
    return RunFolder(make_run(tmp_path / "a", **config.to_dict(tiny(shapes))))


def test_they_are_those_that_the_training_does_not_see(opened: RunFolder, shapes: Path) -> None:
    experiment = tiny(shapes)
    _, expected = open_source(experiment.data, lambda line: None).split(0.2, experiment.data.seed)
    found = held_out(opened)
    assert len(found) == len(expected) > 0
    assert all(torch.equal(found.stored(i), expected.batch([i])[0][0]) for i in range(len(found)))
    assert [found.label(i) for i in range(len(found))] == [Path(name).parent.name for name in expected.names]
    assert held_out(opened) is found


def test_an_example_is_written_as_a_file_of_the_same_values(opened: RunFolder, tmp_path: Path) -> None:
    found = held_out(opened)
    path = found.write(2, tmp_path)
    assert path.name == "example-2.png"
    assert np.array_equal(decode(path, PixelFormat(3)), found.stored(2).permute(1, 2, 0).numpy())


def test_numbers_have_an_end(opened: RunFolder) -> None:
    for number in (-1, len(held_out(opened))):
        with pytest.raises(Refusal, match="from 0"):
            held_out(opened).stored(number)


def test_data_that_are_gone_are_named(tmp_path: Path) -> None:
    run = RunFolder(make_run(tmp_path / "a", **config.to_dict(tiny(tmp_path / "gone"))))
    with pytest.raises(InputError, match="gone"):
        held_out(run)


def test_points_have_no_pictures(tmp_path: Path) -> None:
    data, backbone = {"source": "swiss_roll", "count": 50}, {"name": "mlp"}
    run = RunFolder(make_run(tmp_path / "a", data=data, backbone=backbone, training={"steps": 1}))
    with pytest.raises(Refusal, match="points"):
        held_out(run)
