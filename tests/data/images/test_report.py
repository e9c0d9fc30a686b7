"""What is said of a scan: its table, and what a crop does to its images."""

from __future__ import annotations

from pathlib import Path

from diffusion.data import Scan, scan, table
from diffusion.data.images.report import crop_line, enlarged_line, listing
from tests.bad_images import RED, solid


def scanned(folder: Path, *, labels: bool = False) -> Scan:
    return scan(folder, labels=labels, progress=False)


def test_table(tmp_path: Path) -> None:
    for i, size in enumerate([(8, 6), (8, 6), (40, 30), (100, 50)]):
        (tmp_path / "cat").mkdir(exist_ok=True)
        solid(RED, size).save(tmp_path / "cat" / f"{i}.png")
    solid(RED, (8, 6)).convert("L").save(tmp_path / "cat" / "gray.jpg")
    for i in range(12):
        (tmp_path / "cat" / f"bad{i}.jpg").touch()
    (tmp_path / "notes.txt").touch()
    assert table(scanned(tmp_path, labels=True)).splitlines() == [
        f"folder    {tmp_path}",
        "images    5",
        "sizes     smallest 8x6, median 8x6, largest 100x50 (width x height)",
        "          commonest: 8x6 (3), 40x30 (1), 100x50 (1)",
        "modes     RGB (4), L (1)",
        "formats   PNG (4), JPEG (1)",
        "classes   1: cat (5)",
        "left out  cat/bad0.jpg: the file is empty",
        *(f"          cat/bad{i}.jpg: the file is empty" for i in range(1, 10)),
        "          and 2 more",
        "ignored   .txt (1)",
    ]


def test_table_can_be_printed_whatever_the_names(zoo: Path) -> None:
    text = table(scanned(zoo))
    assert text.encode("utf-8")
    assert "2 files hold several" in text


def test_names_with_line_ends_stay_on_their_line(tmp_path: Path) -> None:
    (tmp_path / "a\nb").mkdir()
    solid(RED).save(tmp_path / "a\nb" / "1.png")
    (tmp_path / "a\nb" / "\x1b[31m.png").touch()
    lines = table(scanned(tmp_path, labels=True)).splitlines()
    assert "classes   1: a\\nb (1)" in lines
    assert "left out  a\\nb/\\x1b[31m.png: the file is empty" in lines


def of_sizes(folder: Path, *sizes: tuple[int, int]) -> Scan:
    for i, size in enumerate(sizes):
        solid(RED, size).save(folder / f"{i}.png")
    return scanned(folder)


def test_what_a_crop_cuts_off_is_said(tmp_path: Path) -> None:
    found = of_sizes(tmp_path, (40, 40), (80, 40), (160, 40), (160, 40))
    # A square keeps all, a half and a quarter of them: the mean loss is (0 + 1/2 + 3/4 + 3/4) / 4.
    assert crop_line(found, (16, 16)) == [
        "crop      16x16 (height x width) from the middle cuts off 50% of the area, more than half of 2 images"
    ]
    assert crop_line(found, (10, 20)) == ["crop      10x20 (height x width) from the middle cuts off 38% of the area"]


def test_a_crop_that_cuts_off_next_to_nothing_is_not_said(tmp_path: Path) -> None:
    assert crop_line(of_sizes(tmp_path, (160, 40), (401, 100)), (40, 160)) == []


def test_what_is_enlarged_is_said(tmp_path: Path) -> None:
    found = of_sizes(tmp_path, (40, 40), (80, 40), (30, 90))
    assert enlarged_line(found, (40, 40)) == ["enlarged  1 images, smaller than 40x40"]
    assert enlarged_line(found, (30, 30)) == []


def test_long_lists_are_cut() -> None:
    assert listing(range(3)) == ["0", "1", "2"]
    assert listing(range(12))[-2:] == ["9", "and 2 more"]
    assert listing(["a"], 100) == ["a", "and 90 more"]
