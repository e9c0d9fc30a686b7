"""Files of weights: one or shards, variants, and safetensors before torch's format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from diffusion.errors import InputError
from diffusion.exchange import weights
from tests.public_models import network

STEM = weights.STEM
TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}


def one(folder: Path, name: str, value: float = 0.0) -> Path:
    save_file({"a": torch.full((1,), value)}, folder / name)
    return folder / name


@pytest.mark.parametrize("variant", ["", "fp16"])
def test_shards_as_diffusers_writes_them_are_read_whole(tmp_path: Path, variant: str) -> None:
    made = network()
    made.save_pretrained(tmp_path, max_shard_size="20KB", variant=variant or None)
    files = weights.find(tmp_path, variant)
    assert len(files) > 2
    read, expected = weights.read(files), made.state_dict()
    assert read.keys() == expected.keys() and all(torch.equal(read[name], expected[name]) for name in expected)


def test_safetensors_come_before_the_format_of_torch(tmp_path: Path) -> None:
    (tmp_path / f"{STEM}.bin").write_bytes(b"never opened")
    assert weights.find(tmp_path) == [tmp_path / f"{STEM}.bin"]
    path = one(tmp_path, f"{STEM}.safetensors")
    assert weights.find(tmp_path) == [path]
    one(tmp_path, f"{STEM}.fp16.safetensors", 1.0)
    assert weights.find(tmp_path) == [path]
    assert weights.read(weights.find(tmp_path, "fp16"))["a"] == 1


def test_the_format_of_torch_is_read_without_its_pickle(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / f"{STEM}.bin")
    read = weights.read(weights.find(tmp_path))
    assert read.keys() == TENSORS.keys() and all(torch.equal(read[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize(
    ("names", "variant", "message"),
    [
        ([], "", r"no weights; a file diffusion_pytorch_model\.safetensors or \.bin is looked for"),
        (["model.safetensors"], "", "no weights; a file"),
        ([f"{STEM}.fp16.safetensors"], "", "no weights; there are --variant fp16"),
        ([f"{STEM}.bin", f"{STEM}.ema.bin"], "fp16", "no weights of the variant fp16; there are weights without a"),
        ([f"{STEM}-00001-of-00002.safetensors"], "", "is a shard, but no index lists all of them"),
    ],
)
def test_what_there_is_instead_is_said(tmp_path: Path, names: list[str], variant: str, message: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=message):
        weights.find(tmp_path, variant)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({"a": f"{STEM}-00001-of-00001.safetensors"}, "00001-of-00001.safetensors is missing, one of 1 shards"),
        ({"a": "../../etc/passwd"}, r"'\.\./\.\./etc/passwd' is not a name of a file of weights"),
        ({"a": f"../{STEM}.safetensors"}, "is not a name of a file of weights"),
        ({"a": 3}, "weight_map: must have a file for each tensor"),
        ({}, "weight_map: must have a file for each tensor"),
        (None, "weight_map: must have a file for each tensor"),
    ],
)
def test_an_index_names_files_beside_it(tmp_path: Path, listed: object, message: str) -> None:
    (tmp_path / f"{STEM}.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(InputError, match=message):
        weights.find(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, (1 << 62).to_bytes(8, "little"), b"version https://git-lfs"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"{STEM}.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{STEM}\.safetensors: is not a safetensors file or is not whole"):
        weights.read([path])


def test_names_of_variants() -> None:
    names = [f"{STEM}{middle}" for middle in (".bin", ".fp16.safetensors", "-00001-of-00002.bf16.safetensors")]
    names += [f"{STEM}.non_ema-00001-of-00002.bin", f"{STEM}.safetensors.index.old.json", "x.safetensors", f"{STEM}.py"]
    assert weights.variants(names) == ["", "bf16", "fp16", "non_ema", "old"]
