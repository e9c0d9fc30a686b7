"""Image files that are not read are counted, said, and count as unusable, wherever they lie."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from diffusion.data import FolderError, Scan, open_folder, scan, table
from diffusion.data.images.container import Unread
from diffusion.data.images.formats import HEAD, SUFFIXES, UNREAD
from diffusion.data.images.unread import NAMELESS, advice, advice_on, content_suffix, unread_content
from tests.bad_images import RED, solid

PSD = b"8BPS\0\1" + bytes(200)
JXL = b"\xff\x0a" + bytes(200)


def jpeg() -> bytes:
    file = BytesIO()
    solid(RED).save(file, "JPEG")
    return file.getvalue()


def files() -> dict[str, bytes]:
    return {
        "0.jpg": jpeg(),
        "1.psd": PSD,
        "2.NEF": b"MM\0*" + bytes(9),
        "IMG_0001": jpeg(),
        "3.JPG_large": jpeg(),
        "4.jpg!d": jpeg(),
        "5.jpg": JXL,  # under a false name
        "6.txt": jpeg(),
        "notes": b"text",
        "7.dat": b"text",
    }


EXPECTED = {
    ".psd": 1,
    ".nef": 1,
    NAMELESS: 1,
    ".jpg_large": 1,
    ".jpg!d": 1,
    ".jxl": 1,
}


def scanned(path: Path) -> Scan:
    return scan(path, labels=False, progress=False)


def in_folder(path: Path) -> Path:
    (path / "folder").mkdir()
    for name, content in files().items():
        (path / "folder" / name).write_bytes(content)
    return path / "folder"


def in_tar(path: Path) -> Path:
    with tarfile.open(path / "x.tar", "w") as tar:
        for name, content in files().items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return path / "x.tar"


def in_zip(path: Path) -> Path:
    with zipfile.ZipFile(path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files().items():
            archive.writestr(name, content)
    return path / "x.zip"


@pytest.mark.parametrize("place", [in_folder, in_tar, in_zip])
def test_they_are_counted_by_suffix_wherever_they_lie(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    found = scanned(place(tmp_path))
    assert [Path(name).name for name in found.entries.names] == ["0.jpg"]
    assert {suffix: each.count for suffix, each in found.unread.items()} == EXPECTED
    assert found.others == {".txt": 1, "without suffix": 1, ".dat": 1}
    assert found.unusable == 6
    lines = table(found).splitlines()
    at = lines.index("NOT READ  6 image files, 86% of all")
    assert any("1 without suffix" in line and "give them a usual suffix" in line for line in lines[at:])


def test_rows_of_a_dataset_are_counted_by_their_bytes(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"bytes": content, "path": None} for content in (jpeg(), PSD, JXL)]
    features = datasets.Features({"image": datasets.Image(decode=False)})
    made = datasets.Dataset.from_dict({"image": rows}, features=features).cast_column("image", datasets.Image())
    made.save_to_disk(tmp_path / "saved")
    found = scanned(tmp_path / "saved")
    assert len(found.entries) == 1
    assert found.unread == {".psd": Unread(1, "row 1"), ".jxl": Unread(1, "row 2")}


def test_most_photographs_unread_stop_a_run_and_the_line_says_what_to_do(tmp_path: Path) -> None:
    for i in range(10):
        solid((i, 0, 0)).save(tmp_path / f"{i}.jpg")
    for i in range(300):
        (tmp_path / f"IMG_{i}.CR2").write_bytes(b"II*\0")
    lines: list[str] = []
    options = {"size": (8, 8), "cache": tmp_path.parent / "c", "log": lines.append, "progress": False}
    with pytest.raises(FolderError, match=r"300 of 310 files .* cannot be used"):
        open_folder(tmp_path, **options)  # type: ignore[arg-type]
    text = "\n".join(lines)
    assert "NOT READ  300 image files, 97% of all" in text
    assert "300 .cr2, such as IMG_0.CR2: develop them" in text
    assert len(open_folder(tmp_path, max_bad=1.0, **options)) == 10  # type: ignore[arg-type]


def test_none_that_is_read_says_the_advice_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "a.psd").write_bytes(PSD)
    with pytest.raises(FolderError, match=r"0 readable images .*1 \.psd are not read: convert them"):
        scanned(tmp_path)


def test_videos_and_archives_beside_images_are_said_but_are_no_images(tmp_path: Path) -> None:
    solid(RED).save(tmp_path / "a.png")
    for name in ("a.mov", "b.MP4", "more.zip"):
        (tmp_path / name).write_bytes(b"\0\0\0\x14ftypqt  ")
    found = scanned(tmp_path)
    assert found.unusable == 0
    text = table(found)
    assert "videos    .mov (1), .mp4 (1) are not read" in text or "videos    .mp4 (1), .mov (1) are not read" in text
    assert "archives  .zip (1) beside images are not read; unpack them" in text


def test_kinds_are_told_by_first_bytes() -> None:
    assert content_suffix(jpeg()[:HEAD]) == ".jpg"
    assert content_suffix(b"%PDF-1.4") is None
    assert unread_content(PSD[:HEAD]) == ".psd"
    assert unread_content(jpeg()[:HEAD]) is None


def test_every_suffix_has_advice_and_none_is_read_and_unread() -> None:
    assert not UNREAD.keys() & SUFFIXES
    assert all(advice(suffix) for suffix in UNREAD)
    assert advice(NAMELESS).endswith("give them a usual suffix")
    assert advice_on({".psd": 1, ".jxl": 5, ".cr2": 2}) == [
        (UNREAD[".jxl"], [".jxl", ".psd"]),
        (UNREAD[".cr2"], [".cr2"]),
    ]
