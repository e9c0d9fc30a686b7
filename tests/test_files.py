"""Files are replaced as a whole or not at all; paths and encodings are taken as people have them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from diffusion.errors import InputError
from diffusion.files import (
    TEMPORARY,
    expanded,
    is_address,
    new_folder,
    numbered,
    read_text,
    refuse_taken,
    replacing,
    sync,
    write_text,
)


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


def test_a_folder_is_there_when_it_is_whole_and_not_after_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "made"
    with new_folder(folder) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a.txt").write_text("a")
        assert not folder.exists() and temporary.parent == folder.parent
    assert (folder / "inner" / "a.txt").read_text() == "a" and names(folder.parent) == ["made"]
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "broken") as temporary:
        temporary.joinpath("a.txt").write_text("a" * (1 // 0))
    assert names(tmp_path) == ["deep"]


def test_a_folder_is_never_written_over_another_but_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with new_folder(Path("empty")) as temporary:
        (temporary / "a.txt").write_text("a")
    for taken in (Path("empty"), Path("file"), Path("link")):
        if taken.name == "file":
            taken.write_text("")
        if taken.name == "link":
            taken.symlink_to("nowhere")
        message = f"^{taken}: is there already, and nothing is overwritten; choose another folder with --out$"
        with pytest.raises(InputError, match=message), new_folder(taken):
            raise AssertionError
    Path("parent").write_text("")
    with pytest.raises(InputError, match=r"^parent/inner: cannot be written"), new_folder(Path("parent/inner")):
        raise AssertionError
    assert names(tmp_path) == ["empty", "file", "link", "parent"] and names(Path("empty")) == ["a.txt"]


def test_a_path_is_numbered_from_its_second_on() -> None:
    first = itertools.islice(numbered(Path("out/x.y")), 3)
    assert [*first] == [Path("out/x.y"), Path("out/x.y-2"), Path("out/x.y-3")]
    assert [*itertools.islice(numbered(Path("x.y.png"), suffix=True), 2)] == [Path("x.y.png"), Path("x.y-2.png")]


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


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~/photos", "/home/me/photos"),
        ("~", "/home/me"),
        ("$DATA/photos", "/data/photos"),
        ("${DATA}/a/$NAME", "/data/a/flowers"),
        ("a~", "a~"),
        ("~x.png", "~x.png"),
        ("a$", "a$"),
        ("./a/", "a"),
    ],
)
def test_home_and_variables_in_a_path_are_what_a_shell_makes_of_them(
    monkeypatch: pytest.MonkeyPatch, written: str, meant: str
) -> None:
    for name, value in {"HOME": "/home/me", "DATA": "/data", "NAME": "flowers"}.items():
        monkeypatch.setenv(name, value)
    assert expanded(written) == expanded(Path(written)) == Path(meant)


def test_a_path_that_exists_is_left_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("~", "$RECYCLE.BIN"):
        (tmp_path / name).mkdir()
        assert expanded(name) == Path(name)


def test_a_variable_that_is_not_set_and_a_user_who_does_not_exist_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    for written in ("$NOWHERE/a", "x/${NOWHERE}/a"):
        with pytest.raises(InputError, match=r"the variable \$\{?NOWHERE\}? is not set$"):
            expanded(written)
    with pytest.raises(InputError, match=r"^~nobody-of-this-name/a: there is no user 'nobody-of-this-name' whose"):
        expanded("~nobody-of-this-name/a")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_text_is_read_with_and_without_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("naïve\r\nλ".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "naïve\r\nλ"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a".encode("utf-16"), "is saved as UTF-16, as PowerShell and Notepad write it; save it as UTF-8"),
        (b"\xfe\xff\x00a", "is saved as UTF-16; save it as UTF-8"),
        ("a".encode("utf-32"), "is saved as UTF-32; save it as UTF-8"),
        ("ab".encode("utf-16-le"), "is no text in UTF-8, as it has zero bytes; if it is UTF-16, save it as UTF-8"),
        (
            "a = 1\nb = 'größe'".encode("cp1252"),
            "line 2 is not UTF-8 (byte 0xF6): it is saved in another encoding, such as Windows-1252; save it as UTF-8",
        ),
    ],
)
def test_another_encoding_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_text(path)
    assert str(caught.value) == f"{path}: {message}"


def test_addresses_on_the_hub_are_known_from_paths() -> None:
    for address in ("hf://owner/name", Path("hf://owner/name@v1")):
        assert is_address(address)
    for path in ("hf", "hf/owner/name", Path("runs/hf:")):
        assert not is_address(path)


def test_a_place_is_taken_by_anything_but_an_empty_folder(tmp_path: Path) -> None:
    refuse_taken(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    refuse_taken(tmp_path / "empty")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(InputError, match="is there already, and nothing is overwritten"):
            refuse_taken(path)
