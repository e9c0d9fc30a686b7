"""Pages of stacks and frames of animations as images: their pixels, names, and the side they are held out on."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from diffusion import data
from diffusion.data import Dataset, PixelFormat, Scan, open_folder, table
from diffusion.data.images import cache, pages
from diffusion.data.images.duplicates import check_pixels
from diffusion.data.images.index import Index
from diffusion.data.images.pages import by_file, paged, runs
from tests.bad_images import solid
from tests.data.images.test_zips import write_zip


def stack(path: Path, count: int, start: int = 0) -> None:
    """Writes pages of one gray value each: start, start + 1, ..."""
    frames = [Image.new("L", (8, 8), start + i) for i in range(count)]
    # Different durations keep equal frames apart, and GIF keeps gray values as they are.
    options = {} if path.suffix == ".tif" else {"duration": [10 * (i + 1) for i in range(count)]}
    if path.suffix == ".webp":
        options |= {"lossless": True}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)


def scan(path: Path, choice: str = "all") -> Scan:
    return data.scan(path, labels=False, pages=choice, progress=False)


def opened(path: Path, place: Path, choice: str = "all", **options: object) -> Dataset:
    return open_folder(
        path,
        size=(8, 8),
        pixel_format=PixelFormat(1),
        pages=choice,
        cache=place / "cache",
        min_images=1,
        log=lambda line: None,
        progress=False,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".webp", ".png"])
def test_every_page_is_an_image_with_its_own_pixels(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "x").mkdir()
    stack(tmp_path / "x" / f"b{suffix}", 12, start=40)
    Image.new("L", (8, 8), 7).save(tmp_path / "x" / "a.png")
    dataset = opened(tmp_path / "x", tmp_path)
    assert dataset.names == ("a.png", *(f"b{suffix}#{i + 1}" for i in range(12)))
    assert dataset.batch(range(13))[0][:, 0, 0, 0].tolist() == [7, *range(40, 52)]
    first = opened(tmp_path / "x", tmp_path, "first")
    assert first.names == ("a.png", f"b{suffix}")
    assert first.batch([0, 1])[0][:, 0, 0, 0].tolist() == [7, 40]


def test_pages_within_an_archive_and_of_deep_files(tmp_path: Path) -> None:
    values = np.arange(5, dtype=np.uint16)[:, None, None] * np.ones((8, 8), np.uint16) * 700
    file = BytesIO()
    tifffile.imwrite(file, values, photometric="minisblack", metadata=None)
    path = write_zip(tmp_path / "x.zip", {"s.tif": file.getvalue()})
    dataset = opened(path, tmp_path, value_range=(0.0, 2800.0))
    assert dataset.names == tuple(f"x.zip/s.tif#{i + 1}" for i in range(5))
    assert dataset.batch(range(5))[0][:, 0, 0, 0].tolist() == [0, 700, 1400, 2100, 2800]
    measured = opened(path, tmp_path, value_range="measured")
    assert measured.spec.value_range == (0, 2800)  # that of the last page


def test_all_pages_of_a_file_are_on_one_side(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for i in range(6):
        stack(tmp_path / "x" / f"{i}.tif", 4, start=20 * i)
    for i in range(6):
        solid((i, i, 200)).save(tmp_path / "x" / f"photo{i}.png")
    dataset = opened(tmp_path / "x", tmp_path)
    for seed in range(5):
        training, held_out = dataset.split(0.4, seed)
        sides = [{name.partition("#")[0] for name in part.names} for part in (training, held_out)]
        assert not sides[0] & sides[1] and len(held_out) > 1


def test_a_copy_of_a_stack_is_on_its_side(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for i in range(4):
        stack(tmp_path / "x" / f"{i}.tif", 3, start=20 * i)
        (tmp_path / "x" / f"copy{i}.tif").write_bytes((tmp_path / "x" / f"{i}.tif").read_bytes())
    dataset = opened(tmp_path / "x", tmp_path)
    for seed in range(5):
        _, held_out = dataset.split(0.3, seed)
        files = {name.partition("#")[0].removeprefix("copy") for name in held_out.names}
        assert len(held_out) == 6 * len(files)


def test_one_stack_alone_is_said_to_have_none_held_out(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    stack(tmp_path / "x" / "a.tif", 20)
    assert "pages     20 of 1 file, held out by file: as there is one file, none is" in table(scan(tmp_path / "x"))
    training, held_out = opened(tmp_path / "x", tmp_path).split(0.1, 0)
    assert (len(training), len(held_out)) == (20, 0)


def test_frames_are_counted_where_the_first_is_used(tmp_path: Path) -> None:
    stack(tmp_path / "a.tif", 20)
    solid((1, 2, 3)).save(tmp_path / "b.png")
    line = 'frames    1 files hold several, 20 in all; the first of each is used; data.pages="all" takes all'
    assert line in table(scan(tmp_path, "first"))
    assert "\nframes " not in table(scan(tmp_path))
    assert paged(scan(tmp_path, "first").entries) is not scan(tmp_path, "first").entries


def test_without_several_pages_the_index_stays_as_it_is(tmp_path: Path) -> None:
    solid((1, 2, 3)).save(tmp_path / "b.png")
    index = scan(tmp_path, "first").entries
    assert paged(index) is index
    contents = np.array([5], np.uint64)
    assert by_file(index, np.array([0]), contents) is contents


def test_a_damaged_page_is_named_and_the_others_are_used(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    stack(tmp_path / "x" / "a.tif", 6)
    content = (tmp_path / "x" / "a.tif").read_bytes()
    with Image.open(tmp_path / "x" / "a.tif") as image:
        image.seek(2)
        entry = image.tag_v2._tagdata if hasattr(image.tag_v2, "_tagdata") else None  # type: ignore[attr-defined]
        assert entry is not None
        offsets = image.tag_v2[273]
    # The third page claims to lie behind the end of the file.
    place = content.index(int(offsets[0]).to_bytes(4, "little"), 8)
    (tmp_path / "x" / "a.tif").write_bytes(content[:place] + (10**6).to_bytes(4, "little") + content[place + 4 :])
    lines: list[str] = []
    dataset = open_folder(
        tmp_path / "x", size=(8, 8), pages="all", cache=tmp_path / "c", min_images=1, log=lines.append, progress=False
    )
    assert dataset.names == tuple(f"a.tif#{i}" for i in (1, 2, 4, 5, 6))
    assert any(line.startswith("left out  a.tif#3: ") for line in lines)


def test_a_file_is_opened_once_for_all_its_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").mkdir()
    for name in ("a.tif", "b.gif"):
        stack(tmp_path / "x" / name, 30)
    decode, calls = cache.decode_frames_at, []

    def noted(path: str, *rest: object) -> object:
        calls.append(Path(path).name)
        return decode(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "decode_frames_at", noted)
    assert len(opened(tmp_path / "x", tmp_path)) == 60
    assert sorted(calls) == ["a.tif", "b.gif"]
    # With little memory, a file is opened for every part of its pages.
    entries = scan(tmp_path / "x").entries
    monkeypatch.setattr(pages, "MAX_BYTES", 64 * 10)
    assert [len(run) for run in runs(entries, 64)] == [10] * 6
    assert [page.frame for run in runs(entries, 64) for page in run] == [*range(30)] * 2


def test_packed_pages_are_not_taken_for_whole_files(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    stack(tmp_path / "x" / "a.tif", 5, start=10)
    for choice, values in (("first", [10]), ("all", [10, 11, 12, 13, 14]), ("first", [10])):
        dataset = opened(tmp_path / "x", tmp_path, choice)
        assert dataset.batch(range(len(dataset)))[0][:, 0, 0, 0].tolist() == values
    index: Index = scan(tmp_path / "x").entries
    assert len({*index.rows["digest"].tolist()}) == 5
    assert str(index.located(3)) == "a.tif#4"


def test_pages_do_not_count_as_near_duplicates(tmp_path: Path) -> None:
    stack(tmp_path / "a.tif", 5)
    check = check_pixels(scan(tmp_path), progress=False)
    assert (check.near, check.damaged) == ((), ())
