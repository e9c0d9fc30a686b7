"""The clocks of datasets: the units, the names, what a run keeps, and what it costs to ask for more than there is."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffusion.data import Dataset, DataSpec
from diffusion.data.dataset import standardized
from diffusion.data.synthetic.points import mixture
from diffusion.errors import InputError
from diffusion.model import clocks
from diffusion.model.clocks import BRIEF, CLOCKS


def noise_images(n: int, side: int = 10, std: float = 30.0, seed: int = 0) -> Dataset:
    """Gray images of independent normal pixels, n of them, whose collapse has a closed form."""
    values = np.random.default_rng(seed).normal(128, std, (n, 1, side, side)).round().clip(0, 255).astype(np.uint8)
    return standardized(Dataset(values, DataSpec((1, side, side), 256), None, [f"{i}.png" for i in range(n)]))


def classed(n: int = 300) -> Dataset:
    """Images of three classes, of which b and c differ by a tenth of what a differs by."""
    dataset = noise_images(n, std=10.0)
    labels = np.arange(n) % 3
    values = np.asarray(dataset.values).copy()
    values[labels == 0, :, :5] += 60
    values[labels == 1, :, :, :5] += 6
    return standardized(
        replace(dataset, values=values, labels=labels, spec=replace(dataset.spec, classes=("a", "b", "c")))
    )


def test_images_have_the_clocks_of_their_distribution() -> None:
    """White noise of unit variance: collapse by the closed form, and speciation by the edge of the spectrum."""
    found = clocks.measure(noise_images(1000), effort=BRIEF)
    predicted = math.log(1000 ** (2 / 100) - 1)
    assert found.collapse is not None and found.collapse[0] == pytest.approx(predicted, abs=0.15)
    assert found.collapse[1] < found.collapse[0] < found.collapse[2]
    assert found.speciation[0] == pytest.approx(-2 * math.log(1 + math.sqrt(100 / 1000)), abs=0.05)
    assert found.noise == pytest.approx(30, rel=0.02) and found.shape == (1, 10, 10)
    tenfold = math.log(10000 ** (2 / 100) - 1)
    assert found.tenfold == pytest.approx(tenfold, abs=0.25) and found.factor is not None
    wanted = [50 * math.log(1 + math.exp(predicted + unit)) for unit in (-1, 0)]
    assert math.log(found.factor) == pytest.approx(wanted[1] - wanted[0], rel=0.15)


def test_a_part_stands_for_all() -> None:
    whole, part = (clocks.measure(noise_images(1500), limit=limit, effort=BRIEF) for limit in (1500, 300))
    assert (part.measured, part.count) == (300, 1500)
    assert whole.collapse is not None and part.collapse is not None
    assert part.collapse[0] == pytest.approx(whole.collapse[0], abs=0.12)


def test_classes_have_their_names_and_levels() -> None:
    """Half the distance of a from the others is 30 in 50 pixels; that of b from c 3 in 50."""
    dataset = classed()
    found = clocks.measure(dataset)
    assert found.first is not None and found.last is not None and found.classes is not None
    assert "a" in found.first.names and found.last.names == ("b", "c")
    std = dataset.spec.std
    assert found.last.level == pytest.approx(-math.log(50 * (3 / std) ** 2), abs=0.3)
    assert found.first.level == pytest.approx(-math.log(50 * (30 / std) ** 2), abs=0.05)
    assert found.first.decided == pytest.approx(1, abs=1e-3) and found.last.decided is not None
    assert 0.5 < found.last.decided < 1 and set(found.marks) == {"speciation", "classes", "collapse"}
    one = replace(dataset, labels=np.zeros(len(dataset), np.int64))
    assert clocks.measure(one).classes is None


def test_copies_and_isolated_images_are_named() -> None:
    dataset = noise_images(100)
    values = np.asarray(dataset.values).copy()
    values[7], values[8] = values[3], 255 * (np.arange(100).reshape(1, 10, 10) % 2)
    found = clocks.measure(replace(dataset, values=values))
    assert found.copies == 2 and found.earliest[0][0] == "8.png"
    assert not {"3.png", "7.png"} & {name for name, _ in found.latest}
    assert found.latest[0][1] >= found.latest[1][1] and found.recognized[0] is not None


def test_points_have_clocks_in_their_own_units() -> None:
    found = clocks.measure(mixture(1000, 0, labels=True), limit=300)
    assert found.noise == 1 and found.collapse is not None and found.collapse[0] > found.speciation[0]


def test_what_has_no_clocks_is_refused() -> None:
    few = noise_images(100).subset([0, 1])
    with pytest.raises(InputError, match="at least 3"):
        clocks.measure(few)
    seen = replace(noise_images(10), seen=np.ones((10, 1, 10, 10), np.uint8))
    with pytest.raises(InputError, match="seen as a whole"):
        clocks.measure(seen)


@pytest.mark.parametrize(
    "broken", [{"speciation": []}, {"collapse": ["a", "b", "c"]}, {"count": None}, {"last": {"names": ["a"]}}]
)
def test_clocks_that_cannot_be_read_are_as_none(broken: dict[str, object], tmp_path: Path) -> None:
    clocks.record(tmp_path, classed())
    written = json.loads((tmp_path / CLOCKS).read_text())
    (tmp_path / CLOCKS).write_text(json.dumps(written | broken))
    assert clocks.read(tmp_path) is None and clocks.marks(tmp_path) == {}


def test_few_of_many_large_examples_are_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = classed()
    monkeypatch.setattr(clocks, "AT_BEGINNING", 50 * dataset.spec.dim)
    assert clocks.record(tmp_path, dataset).endswith("so few of such large images, 50, say little of all")
    assert clocks.read(tmp_path) is None


def test_a_run_keeps_its_clocks(tmp_path: Path) -> None:
    assert clocks.read(tmp_path) is None and clocks.marks(tmp_path) == {}
    dataset = classed()
    assert clocks.record(tmp_path, dataset) == ""
    found = clocks.read(tmp_path)
    assert found is not None and found.last is not None
    assert found == clocks.from_json((tmp_path / CLOCKS).read_text()) and found.count == 300
    assert clocks.marks(tmp_path) == found.marks
    again = tmp_path / "again"
    again.mkdir()
    clocks.record(again, dataset)
    assert (again / CLOCKS).read_bytes() == (tmp_path / CLOCKS).read_bytes()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"count": 1}'])
def test_a_file_that_is_no_record_marks_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / CLOCKS).write_text(text)
    assert clocks.marks(tmp_path) == {}


def test_what_keeps_the_clocks_from_a_run_is_said_and_ends_nothing(tmp_path: Path) -> None:
    equal = replace(noise_images(20), values=np.full((20, 1, 10, 10), 7, np.uint8))
    assert "different from each other" in clocks.record(tmp_path, equal)
    assert "not written" in clocks.record(tmp_path / "none", noise_images(20))
    seen = replace(noise_images(10), seen=np.ones((10, 1, 10, 10), np.uint8))
    assert clocks.record(tmp_path, seen) == "" and not (tmp_path / CLOCKS).exists()
