from __future__ import annotations

import json

import pytest
import torch

from diffusion.data import DataSpec

IMAGE = DataSpec((3, 4, 5), 256, ("cat", "dog"))
POINT = DataSpec((2,), None)


def test_levels_map_onto_minus_one_to_one_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    x = IMAGE.encode(levels)
    assert x.dtype == torch.float32
    assert (x[0], x[255]) == (-1, 1)
    assert torch.equal(IMAGE.quantize(x), levels)


def test_quantize_rounds_to_the_nearest_level_and_clamps() -> None:
    step = 1 / 127.5
    x = IMAGE.encode(torch.tensor([100.0])) + torch.tensor([-0.51, -0.49, 0.49, 0.51]) * step
    assert IMAGE.quantize(x).tolist() == [99, 100, 100, 101]
    assert IMAGE.quantize(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]


def test_decode_clamps_images_and_leaves_points() -> None:
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0])
    assert IMAGE.decode(x).tolist() == [0, 0, 0.5, 1, 1]
    assert POINT.decode(x) is x
    assert torch.equal(POINT.encode(x), x)


def test_kind_and_number_of_scalars() -> None:
    assert (IMAGE.is_image, IMAGE.dim) == (True, 60)
    assert (POINT.is_image, POINT.dim) == (False, 2)


@pytest.mark.parametrize("spec", [IMAGE, POINT])
def test_json_gives_the_same_spec(spec: DataSpec) -> None:
    assert DataSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_errors_name_the_field() -> None:
    with pytest.raises(ValueError, match=r"spec\.shape: .*\(3, 4\)"):
        DataSpec((3, 4), 256)
    with pytest.raises(ValueError, match=r"spec\.levels: .*1000"):
        DataSpec((1, 4, 4), 1000)
    with pytest.raises(ValueError, match=r"spec\.levels: continuous"):
        POINT.quantize(torch.zeros(2))
