"""Whatever a file holds, reading it ends in what was asked for or in one of the package's own errors."""

from __future__ import annotations

import io
import json
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from diffusion import checkpoint, config, load
from diffusion.checkpoint import CheckpointError, Part, Retention
from diffusion.config import Config, ConfigError
from diffusion.data import ImageError, PixelFormat, decode, read_header
from diffusion.data.images.decoding import FORMATS
from diffusion.errors import InputError
from tests.dicom import write_dicom

GOLDEN = Path(__file__).parents[1] / "golden" / f"format-{checkpoint.FORMAT}" / "checkpoints" / "step-00000003"
KEYS = [(section, key) for section, values in config.to_dict(Config()).items() for key in values]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=6,
)
DEEP = '{"a":' * 100_000


def examples(count: int) -> settings:
    """Always the same examples, and folders that they may share."""
    shared = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=shared)


@examples(150)
@given(st.sampled_from(KEYS), VALUES)
@example(("backbone", "channels"), [10**30])
@example(("backbone", "blocks"), 10**9)
@example(("training", "lr"), 10**400)
@example(("data", "size"), [3, 4, 5])
@example(("sampler", "name"), {"_target_": "os.system"})
def test_any_value_of_any_key_is_taken_or_named(place: tuple[str, str], value: object) -> None:
    section, key = place
    tree = config.to_dict(Config())
    tree[section][key] = value
    try:
        experiment = config.from_dict(tree)
    except ConfigError as error:
        assert section in str(error)
    else:
        assert repr(config.from_dict(json.loads(json.dumps(config.to_dict(experiment))))) == repr(experiment)


@examples(60)
@given(st.dictionaries(st.sampled_from([section for section, _ in KEYS]) | st.text(max_size=10), VALUES, max_size=3))
def test_any_tree_is_a_configuration_or_an_error(tree: dict[str, Any]) -> None:
    with suppress(ConfigError):
        assert isinstance(config.from_dict(tree), Config)


@examples(80)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.lists(st.text(max_size=30), max_size=2))
@example(b"a = " + b"[" * 100_000, [])
@example(b"[training]\nsteps = 3", ["training.lr=" + "[" * 100_000])
@example(b"[training]\nsteps = 1e400", [])
def test_any_file_and_overrides_are_a_configuration_or_an_error(
    tmp_path: Path, data: bytes, overrides: list[str]
) -> None:
    (tmp_path / "x.toml").write_bytes(data)
    with suppress(ConfigError):
        assert isinstance(config.load(tmp_path / "x.toml", overrides), Config)


@examples(80)
@given(st.fixed_dictionaries({}, optional={"format": VALUES, "step": VALUES, "files": VALUES}).map(json.dumps))
@example(DEEP)
@example('{"format": 1, "step": 1e999, "files": {}}')
@example('{"format": 1, "step": 1, "files": {"\\ud800.safetensors": {"size": 1, "sha256": ""}}}')
def test_any_manifest_is_right_or_named(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "step-00000001"
    folder.mkdir(exist_ok=True)
    (folder / checkpoint.MANIFEST).write_text(text)
    try:
        assert isinstance(checkpoint.verify(folder), int)
    except CheckpointError as error:
        str(error).encode()


@cache
def golden() -> Part:
    return checkpoint.read(GOLDEN, "model")


@examples(60)
@given(st.sampled_from([("spec", key) for key in golden().description["spec"]]) | st.sampled_from(KEYS), VALUES)
@example(("spec", "shape"), [2**40])
@example(("backbone", "width"), 2**14)
@example(("backbone", "name"), "unet")
def test_any_description_is_a_model_or_an_error(tmp_path: Path, place: tuple[str, str], value: object) -> None:
    described = json.loads(json.dumps(golden().description))
    tree = described if place[0] == "spec" else described["config"]
    tree.setdefault(place[0], {})[place[1]] = value  # The golden run is older than some sections.
    checkpoint.write(tmp_path, 3, {"model": Part(golden().tensors, described)}, keep=Retention(1))
    with suppress(InputError):
        assert load(tmp_path, device="cpu").step == 3


@examples(80)
@given(st.integers(0, 3000), st.binary(max_size=20), st.booleans())
def test_any_bytes_of_a_checkpoint_that_its_manifest_vouches_for_are_tensors_or_an_error(
    tmp_path: Path, start: int, new: bytes, cut: bool
) -> None:
    folder = tmp_path / "step-00000003"
    folder.mkdir(exist_ok=True)
    data = (GOLDEN / "model.safetensors").read_bytes()
    path = folder / "model.safetensors"
    path.write_bytes(data[:start] + new + (b"" if cut else data[start + len(new) :]))
    files = {path.name: {"size": path.stat().st_size, "sha256": checkpoint.file_hash(path)}}
    (folder / checkpoint.MANIFEST).write_text(json.dumps({"format": 1, "step": 3, "files": files}))
    checkpoint.verify(folder)
    try:
        part = checkpoint.read(folder, "model")
        assert all(isinstance(name, str) for name in part.tensors)
    except CheckpointError as error:
        assert "model.safetensors" in str(error)


def photometric(mode: str) -> str:
    return "RGB" if mode == "RGB" else "MONOCHROME2"


@cache
def encoded(kind: str, mode: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(pixels).convert(mode)
    if kind == "NPY":
        np.save(file, np.asarray(image))
    elif kind == "DICOM":
        with tempfile.TemporaryDirectory() as folder:
            return write_dicom(Path(folder) / "x.dcm", np.asarray(image), photometric=photometric(mode)).read_bytes()
    else:
        image.save(file, format=kind)
    return file.getvalue()


@examples(250)
@given(
    st.sampled_from([(kind, mode) for kind in FORMATS for mode in ("RGB", "L")]),
    st.floats(0, 1),
    st.binary(max_size=8),
    st.sampled_from(["replace", "insert", "cut"]),
    st.sampled_from([1, 3, 4]),
)
def test_any_bytes_are_an_image_or_an_error_that_names_the_file(
    tmp_path: Path, kind: tuple[str, str], place: float, new: bytes, how: str, channels: int
) -> None:
    data = encoded(*kind)
    # Half of the changes hit the header.
    start = int(place * 2 * 40) if place < 0.5 else int((place - 0.5) * 2 * len(data))
    rest = {"replace": data[start + len(new) :], "insert": data[start:], "cut": b""}[how]
    path = tmp_path / "image"
    path.write_bytes(data[:start] + new + rest)
    try:
        header = read_header(path)
        pixels = decode(path, PixelFormat(channels))
    except ImageError as error:
        assert str(path) in str(error) and error.reason
    else:
        assert pixels.dtype == np.uint8 and pixels.shape == (header.height, header.width, channels)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_cut_short_anywhere_is_an_image_or_an_error(tmp_path: Path, kind: str) -> None:
    data = encoded(kind, "RGB")
    whole = decode(tmp_path / "x", PixelFormat(3, (0, 0, 0)), io.BytesIO(data))
    for length in range(0, len(data), 1 + len(data) // 60):
        try:
            pixels = decode(tmp_path / "x", PixelFormat(3, (0, 0, 0)), io.BytesIO(data[:length]))
        except ImageError:
            continue
        assert np.array_equal(pixels, whole)  # What was cut off is not pixels.
