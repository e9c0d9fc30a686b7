"""The masks of conditional likelihoods, by name and from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.errors import InputError
from diffusion.evaluation.known import MASKS, Known


def draw(path: Path, known: np.ndarray) -> Path:
    Image.fromarray(np.where(known, 255, 0).astype(np.uint8)).save(path)
    return path


def test_a_box_in_the_middle_and_the_right_half_are_hidden() -> None:
    box, half = (Known(name).pixels((3, 8, 10))[0, 0] for name in ("box", "half"))
    rows, columns = torch.arange(8)[:, None], torch.arange(10)
    assert torch.equal(~box, (rows >= 2) & (rows < 6) & (columns >= 2) & (columns < 8))
    assert torch.equal(half, (columns < 5).expand(8, 10))
    assert Known("half").pixels((3,)).tolist() == [[True, False, False]]
    assert Known("box").pixels((1, 5, 5)).shape == (1, 1, 5, 5)


def test_random_pixels_are_those_of_the_seed() -> None:
    known = Known("random").pixels((3, 100, 100))
    assert float(known.double().mean()) == pytest.approx(0.08, abs=0.01)
    expected = torch.rand(1, 100, 100, generator=torch.Generator().manual_seed(0)) < 0.08
    assert torch.equal(known[0], expected)
    assert not torch.equal(Known("random", 1).pixels((3, 100, 100)), known)


def test_a_file_has_a_name_that_says_what_is_in_it(tmp_path: Path) -> None:
    some = np.zeros((8, 8), dtype=bool)
    some[:, :5] = True
    first = draw(tmp_path / "mask.png", some)
    known = Known(str(first))
    assert torch.equal(known.pixels((3, 8, 8)), torch.from_numpy(some)[None, None])
    name = known.name
    assert name.startswith("mask-") and len(name) == len("mask-") + 6
    draw(first, ~some)
    assert Known(str(first)).name != name
    (tmp_path / "other").mkdir()
    draw(tmp_path / "other" / "mask.png", some)
    assert Known(str(tmp_path / "other" / "mask.png")).name == name
    assert [Known(each).name for each in MASKS] == [*MASKS]


def test_masks_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="known: must be one of box, half, random, or the file of a mask, got 'boxx'; did"
    ):
        Known("boxx").pixels((3, 8, 8))
    with pytest.raises(InputError, match=r"known: random shows nothing of 2 x 2 values; give a mask"):
        Known("random").pixels((3, 2, 2))
    with pytest.raises(InputError, match=r"known: box shows nothing of 2 values"):
        Known("box").pixels((2,))
    wide = draw(tmp_path / "wide.png", np.arange(30).reshape(3, 10) % 2 == 0)
    with pytest.raises(InputError, match=r"wide.png: must be of the shape \(3, 8, 8\) of the data, .*got \(1, 3, 10\)"):
        Known(str(wide)).pixels((3, 8, 8))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"known: .*text.png"):
        Known(str(tmp_path / "text.png")).pixels((3, 8, 8))
