"""An archive of torch.save is read entry by entry; any other file is refused with what it is and what to do."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest
import torch

from diffusion.errors import InputError
from diffusion.exchange import torch_archive
from diffusion.exchange.torch_archive import opened


def saved(path: Path, **options: object) -> Path:
    torch.save({"x": torch.arange(6.0), "y": torch.ones(3, dtype=torch.int16)}, path, **options)  # type: ignore[arg-type]
    return path


def rewritten(path: Path, *, method: int = zipfile.ZIP_STORED, **changed: bytes | None) -> Path:
    """The archive again with entries of other bytes, or, for None, without them; _ stands for / and . in names."""
    new = path.with_name("new.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new, "w", method) as archive:
        for info in old.infolist():
            key = info.filename.partition("/")[2].replace("/", "_").replace(".", "_")
            data = changed.get(key, old.read(info))
            if data is not None:
                archive.writestr(info.filename, data)
    return new


def refusal(path: Path, name: str = "data/0") -> str:
    with pytest.raises(InputError) as caught, opened(path) as archive:
        archive.read(name)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_the_bytes_of_entries_are_those_that_zipfile_reads(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt")
    with zipfile.ZipFile(path) as archive, opened(path) as ours:
        names = [name.partition("/")[2] for name in archive.namelist()]
        assert list(ours.entries) == names and {"data.pkl", "data/0", "data/1", "byteorder"} <= set(names)
        for name in names:
            assert ours.read(name).numpy().tobytes() == archive.read(f"x/{name}"), name


def test_archives_without_checksums_are_read_and_wrong_checksums_are_not(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    with opened(path) as archive:
        assert archive.entries["data/0"].checksum == 0
        assert archive.read("data/0").view(torch.float32).tolist() == [0, 1, 2, 3, 4, 5]
    data = bytearray(saved(path).read_bytes())
    data[data.index(torch.arange(6.0).numpy().tobytes()) + 5] ^= 4
    path.write_bytes(data)
    assert "data/0 does not have its checksum" in refusal(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "torch 1.6"),
        (b"\x80\x04\x95", "torch 1.6"),
        (b"x" * 257 + b"ustar\x0000", "torch 1.6"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"\x10\0\0\0\0\0\0\0{}", "safetensors"),
        (b"GIF89a..", "no file of torch.save"),
        (b"PK\x03\x04" + b"\0" * 100, "cut short"),
    ],
)
def test_other_files_are_refused_with_what_they_are(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    assert said in refusal(tmp_path / "x.pt")


def test_files_of_older_torch_come_with_a_line_that_converts_them(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert "weights_only=True" in refusal(path) and "torch.save(" in refusal(path)
    assert "No such file" in refusal(tmp_path / "none.pt")
    assert "Is a directory" in refusal(tmp_path)


@pytest.mark.parametrize("cut", [1, 30, 200, 500])
def test_an_archive_that_is_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    path = saved(tmp_path / "x.pt")
    path.write_bytes(path.read_bytes()[:-cut])
    assert "cut short" in refusal(path)


def test_compressed_repeated_and_missing_entries_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt")
    assert "compressed, as torch.save never does" in refusal(rewritten(path, method=zipfile.ZIP_DEFLATED))
    assert "has no entry data/0" in refusal(rewritten(path, data_0=None))
    assert "of no tensors" in refusal(rewritten(path, data_pkl=None))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x/data/0", b"\0" * 24)
    assert "several entries of the same name" in refusal(path)


def test_scripts_two_archives_in_one_and_other_byte_orders_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y/data.pkl", b".")
    assert "of no tensors" in refusal(path)
    with zipfile.ZipFile(saved(path), "a") as archive:
        archive.writestr("x/constants.pkl", b".")
    assert "TorchScript" in refusal(path)
    assert "byteorder: must be little, as on this machine, got 'big'" in refusal(
        rewritten(saved(path), byteorder=b"big")
    )
    assert "a longer text" in refusal(rewritten(saved(path), byteorder=b"little" * 9))


def test_sizes_that_are_claimed_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    path = rewritten(saved(tmp_path / "x.pt"))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"x/data/0"))
    data[at + 20 : at + 28] = struct.pack("<II", 4_000_000_000, 4_000_000_000)
    path.write_bytes(data)
    assert f"at most the {len(data):,} bytes of the file, got 4,000,0" in refusal(path)
    data[at + 24 : at + 28] = struct.pack("<I", 24)
    path.write_bytes(data)
    assert "is compressed" in refusal(path)


def test_a_list_of_absurdly_many_entries_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "x.pt")
    monkeypatch.setattr(torch_archive, "MOST_AT_ONCE", 400)
    assert "claims a list of" in refusal(path)


def test_an_entry_whose_header_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    path = rewritten(saved(tmp_path / "x.pt"))
    data = bytearray(path.read_bytes())
    data[data.index(b"x/data/0") - 30] = 0
    path.write_bytes(data)
    assert "lies elsewhere" in refusal(path)
