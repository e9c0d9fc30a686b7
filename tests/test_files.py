"""A file is replaced as a whole or not at all, and nothing temporary is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion.files import TEMPORARY, replacing, sync, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_old_contents_stay_until_the_new_ones_are_complete(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("ne")
        assert path.read_text() == "old"
        # In the same folder: only within a file system is a file replaced in one step.
        assert temporary.parent == tmp_path and temporary.name.startswith(TEMPORARY)
        temporary.write_text("new")
    assert path.read_text() == "new" and names(tmp_path) == ["log.txt"]


def test_after_an_error_the_old_contents_stay(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write()
    assert path.read_text() == "old" and names(tmp_path) == ["log.txt"]


def test_a_file_that_nobody_wrote_does_not_appear(tmp_path: Path) -> None:
    def skip() -> None:
        with replacing(tmp_path / "log.txt"):
            pass

    with pytest.raises(FileNotFoundError):
        skip()
    assert names(tmp_path) == []


def test_text_is_written_in_utf_8(tmp_path: Path) -> None:
    for text in ("first", "naïve “λ”\n"):
        write_text(tmp_path / "log.txt", text)
        assert (tmp_path / "log.txt").read_bytes() == text.encode("utf-8")
    assert names(tmp_path) == ["log.txt"]


def test_text_is_on_the_disk_before_it_replaces_and_its_name_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    path = tmp_path / "log.txt"
    monkeypatch.setattr("diffusion.files.sync", lambda at: seen.append((at.name, path.exists())))
    write_text(path, "text")
    (first, before), (second, after) = seen
    assert first.startswith(TEMPORARY) and not before
    assert second == tmp_path.name and after


def test_files_and_folders_can_be_synced_and_must_exist(tmp_path: Path) -> None:
    write_text(tmp_path / "log.txt", "text")
    sync(tmp_path / "log.txt")
    sync(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "missing")
