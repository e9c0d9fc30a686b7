"""Which files are the same."""

from __future__ import annotations

from pathlib import Path

from diffusion.commands.photographs.pairing import same


def test_files_are_the_same_by_place_or_contents(tmp_path: Path) -> None:
    for name, data in (("a", b"12"), ("b", b"12"), ("c", b"13"), ("d", b"1")):
        (tmp_path / name).write_bytes(data)
    pairs = {(x, y): same(tmp_path / x, tmp_path / y) for x in "abcde" for y in "abcde"}
    assert {pair for pair, equal in pairs.items() if equal} == {
        *((x, x) for x in "abcd"), ("a", "b"), ("b", "a")
    }  # fmt: skip
