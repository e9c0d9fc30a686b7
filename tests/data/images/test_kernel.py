"""A kernel is read at its full depth, with odd sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.data.images.kernel import read_kernel
from diffusion.errors import InputError
from diffusion.operators import parse

VALUES = np.array([[0, 1, 300], [7, 65535, 2]], dtype=np.uint16)


@pytest.mark.parametrize("name", ["k.png", "k.tif", "k.npy"])
def test_sixteen_bits_are_kept_and_even_sides_get_zeros(tmp_path: Path, name: str) -> None:
    if name.endswith("npy"):
        np.save(tmp_path / name, VALUES)
    else:
        Image.fromarray(VALUES).save(tmp_path / name)
    expected = [*VALUES.astype(float).tolist(), [0, 0, 0]]
    assert read_kernel(str(tmp_path / name)).tolist() == expected


def test_floats_and_gray_in_colors_are_taken(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.array([[0.25, -0.5, 0.125]]))
    assert read_kernel(str(tmp_path / "f.npy")).tolist() == [[0.25, -0.5, 0.125]]
    Image.fromarray(np.array([[0.25, 0.5, 0.125]], dtype=np.float32)).save(tmp_path / "f.tif")
    assert read_kernel(str(tmp_path / "f.tif")).tolist() == [[0.25, 0.5, 0.125]]
    Image.fromarray(np.full((3, 3, 3), 9, np.uint8)).save(tmp_path / "c.png")
    assert read_kernel(str(tmp_path / "c.png")).tolist() == [[9.0] * 3] * 3


def test_a_text_names_its_file(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0, 0], [0, 0, 200], [0, 0, 0]], dtype=np.uint8)).save(tmp_path / "k.png")
    blur = parse(f"kernel:{tmp_path / 'k.png'},border=circular", read_kernel=read_kernel)
    import torch

    x = torch.arange(12.0, dtype=torch.float64).reshape(1, 1, 3, 4)
    # A convolution moves the image by the place of the weight in the kernel: one to the right.
    assert torch.allclose(blur(x), x.roll(1, -1), atol=1e-12)


@pytest.mark.parametrize("kind", ["colors", "zeros", "text", "none", "nan"])
def test_what_is_no_kernel_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "k.png"
    if kind == "colors":
        Image.new("RGB", (3, 3), (9, 1, 1)).save(path)
    elif kind == "zeros":
        Image.new("L", (3, 3)).save(path)
    elif kind == "text":
        path.write_text("text")
    elif kind == "nan":
        path = path.with_suffix(".npy")
        np.save(path, np.full((3, 3), np.nan))
    with pytest.raises(InputError, match=f"^operator kernel: .*{path.name} (must hold one channel|cannot be read)"):
        read_kernel(str(path))
