from __future__ import annotations

import json

import pytest
import torch

from diffusion.data import DataSpec, dead_leaves
from diffusion.data.spec import Label
from diffusion.errors import InputError

IMAGE = DataSpec((3, 4, 5), 256, ("cat", "dog"), mean=100.0, std=50.0)
POINT = DataSpec((2,), None)


def test_levels_are_standardized_and_come_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    x = IMAGE.encode(levels)
    assert x.dtype == torch.float32
    assert (x[0], x[100], x[150]) == (-2, 0, 1)
    assert torch.equal(IMAGE.quantize(IMAGE.decode(x)), levels)


def test_neighboring_levels_are_the_spacing_apart() -> None:
    spec = DataSpec((1, 2, 2), 256, mean=117.0, std=61.5)
    assert spec.encode(torch.tensor([3.0, 4.0])).diff().item() == pytest.approx(spec.spacing, rel=1e-5)
    assert DataSpec((2,), None, std=3.0).spacing is None


def test_units_run_from_zero_to_one_and_back() -> None:
    units = torch.tensor([0.0, 0.25, 1.0])
    assert torch.allclose(IMAGE.standardize(units), (255 * units - 100) / 50)
    assert torch.allclose(IMAGE.decode(IMAGE.standardize(units)), units, atol=1e-6)


def test_levels_of_16_bits_come_back_exactly() -> None:
    levels = torch.arange(65_536, dtype=torch.int32)
    for mean, std in [(32_767.5, 18_918.0), (7.3, 21.0), (60_000.0, 900.0)]:
        spec = DataSpec((1, 4, 4), 65_536, mean=mean, std=std, value_range=(-1024.0, 64_511.0))
        back = spec.quantize(spec.decode(spec.encode(levels)))
        assert torch.equal(back, levels)
        assert DataSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_specs_from_before_ranges_are_read() -> None:
    fields = IMAGE.to_dict()
    del fields["value_range"]
    assert DataSpec.from_dict(fields) == IMAGE


def test_quantize_rounds_to_the_nearest_level_and_clamps() -> None:
    units = (100 + torch.tensor([-0.51, -0.49, 0.49, 0.51])) / 255
    assert IMAGE.quantize(units).tolist() == [99, 100, 100, 101]
    assert IMAGE.quantize(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]


def test_decode_clamps_quantized_data_and_leaves_points() -> None:
    assert IMAGE.decode(torch.tensor([-9.0, -2.0, 9.0])).tolist() == [0, 0, 1]
    coarse = DataSpec((1, 2, 2), 8, mean=3.0, std=2.0)
    assert coarse.decode(torch.tensor([-9.0, -1.5, 0.0, 2.0, 9.0])).tolist() == pytest.approx([0, 0, 3 / 7, 1, 1])
    x = torch.tensor([-3.0, 3.0])
    assert torch.equal(POINT.decode(x), x)
    assert torch.equal(POINT.encode(x), x)
    assert torch.equal(POINT.standardize(x), x)


def test_continuous_images_come_back_beyond_zero_and_one() -> None:
    leaves = dead_leaves(64, 0, (32, 32))
    values, _ = leaves.batch(range(64))
    assert float((values < 0).float().mean()) > 0.02
    x = leaves.spec.encode(values)
    assert torch.allclose(leaves.spec.decode(x), values, rtol=0, atol=1e-5)
    assert torch.allclose(leaves.spec.standardize(leaves.spec.decode(x)), x, rtol=0, atol=1e-5)
    wide = DataSpec((1, 1, 3), None, mean=0.1, std=2.0)
    assert wide.decode(torch.tensor([-4.0, 0.0, 4.0])).tolist() == pytest.approx([-7.9, 0.1, 8.1])


def test_kind_and_number_of_scalars() -> None:
    assert (IMAGE.is_image, IMAGE.dim) == (True, 60)
    assert (POINT.is_image, POINT.dim) == (False, 2)


@pytest.mark.parametrize("spec", [IMAGE, POINT])
def test_json_gives_the_same_spec(spec: DataSpec) -> None:
    assert DataSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_errors_name_the_field() -> None:
    with pytest.raises(ValueError, match=r"spec\.shape: .*\(3, 4\)"):
        DataSpec((3, 4), 256)
    with pytest.raises(ValueError, match=r"spec\.levels: .*70000"):
        DataSpec((1, 4, 4), 70000)
    with pytest.raises(ValueError, match=r"spec\.value_range: .*\(5, 5\)"):
        DataSpec((1, 4, 4), 256, value_range=(5, 5))
    with pytest.raises(ValueError, match=r"spec\.levels: continuous"):
        POINT.quantize(torch.zeros(2))
    with pytest.raises(ValueError, match=r"spec\.std: must be positive, got 0"):
        DataSpec((2,), None, std=0)


NUMBERED = DataSpec((1, 2, 2), 256, ("1", "2", "10"))
NAMED = DataSpec((1, 2, 2), 256, ("cat", "dog"))


@pytest.mark.parametrize(
    ("spec", "label", "numbers"),
    [
        (NUMBERED, "1", [0, 0]),
        (NUMBERED, "10", [2, 2]),
        (NUMBERED, 1, [1, 1]),
        (NUMBERED, ["2", 2], [1, 2]),
        (NAMED, "1", [1, 1]),
        (NAMED, ["dog", "0"], [1, 0]),
        (DataSpec((1, 2, 2), 256, ("1.5", "cat")), "cat", [1, 1]),
    ],
)
def test_a_text_is_a_name_where_names_are_numbers_and_a_number_is_always_one(
    spec: DataSpec, label: Label, numbers: list[int]
) -> None:
    assert spec.label_numbers(label, 2).tolist() == numbers


@pytest.mark.parametrize(
    ("spec", "label", "message"),
    [
        (
            NUMBERED,
            "0",
            "label: must be one of 1, 2, 10, which are names and not counted from 0, got '0'",
        ),
        (
            DataSpec((1, 2, 2), 256, ("1.5", "2.5")),
            "1",
            "label: must be one of 1.5, 2.5, which are names and not counted from 0, got '1'",
        ),
        (DataSpec((1, 2, 2), 256, ("-1", "x")), "0", "one of -1, x, which are names and not counted from 0, got '0'"),
        (DataSpec((1, 2, 2), 256, ("one", "2")), "onne", "label: must be one of one, 2, got 'onne'; did you mean one?"),
        (NUMBERED, 3, "label: must be 0 to 2 or one of 1, 2, 10, got 3"),
        (NAMED, "2", "label: must be 0 to 1 or one of cat, dog, got 2"),
        (NAMED, "Cat", "label: must be 0 to 1 or one of cat, dog, got 'Cat'; did you mean cat?"),
    ],
)
def test_a_label_that_is_none_names_the_classes(spec: DataSpec, label: Label, message: str) -> None:
    with pytest.raises(InputError) as caught:
        spec.label_numbers(label, 2)
    assert message in str(caught.value)
