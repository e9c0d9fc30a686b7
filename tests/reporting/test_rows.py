"""Rows are read as a file grows, whatever else lies between them."""

from __future__ import annotations

from pathlib import Path

from diffusion.files import write_text
from diffusion.reporting.rows import TAIL, Rows


def steps(rows: Rows) -> list[int]:
    return [row["step"] for row in rows()]


def test_a_file_that_grows_is_read_as_far_as_its_lines_are_whole(tmp_path: Path) -> None:
    rows = Rows(path := tmp_path / "metrics.jsonl")
    assert rows() == ()
    with path.open("ab", buffering=0) as file:
        for text, known in ((b'{"step": 1}\n{"st', [1]), (b'ep": 2, "loss": 3}', [1]), (b"\n", [1, 2]), (b"", [1, 2])):
            file.write(text)
            assert steps(rows) == known
    assert rows()[1] == {"step": 2, "loss": 3}


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in range(1000)))
    rows = Rows(path)
    first = rows()
    with path.open("a") as file:
        file.write('{"step": 1000}\n')
    again = rows()
    assert len(again) == 1001 and all(a is b for a, b in zip(first, again, strict=False))
    assert rows() is rows()


def test_what_is_no_row_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    odd = [b"", b"{", b"3", b"null", b'{"loss": 3}', b'{"step": "x"}', b'{"step": true}', b"\xff\xfe", b"[" * 100_000]
    path.write_bytes(b'{"step": 1}\n' + b"\n".join(odd) + b'\n{"step": 2, "loss": NaN}\n')
    assert steps(Rows(path)) == [1, 2]


def test_a_file_that_was_cut_or_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [f'{{"step": {step}, "loss": 0.5}}\n' for step in range(20)]
    path.write_text("".join(lines))
    assert len("".join(lines[:5])) > TAIL
    rows = Rows(path)
    assert steps(rows) == [*range(20)]
    write_text(path, "".join(lines[:5]))
    assert steps(rows) == [*range(5)]
    write_text(path, "".join([*lines[:5], *(f'{{"step": {step}, "loss": 0.7}}\n' for step in range(5, 30))]))
    assert steps(rows) == [*range(30)] and rows()[10]["loss"] == 0.7
    path.unlink()
    assert rows() == ()
    path.write_text(lines[7])
    assert steps(rows) == [7]
