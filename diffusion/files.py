"""Paths as people write them, text files as editors save them, and writing that is atomic: a reader sees a whole file
or none.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusion.errors import InputError

TEMPORARY = ".tmp-"
# The bytes with which files of other encodings than UTF-8 begin; the marks of UTF-32 begin as those of UTF-16 do.
MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16, as PowerShell and Notepad write it",
    b"\xfe\xff": "UTF-16",
}


def expanded(path: str | os.PathLike[str]) -> Path:
    """Returns a path with the home folder in place of a leading ~, and the values of variables such as $DATA.

    A path that exists as it is written is returned as it is.

    Raises InputError for a variable that is not set and for the home of a user who does not exist.
    """
    written = os.fspath(path)
    if os.path.lexists(written):
        return Path(written)
    found = os.path.expandvars(os.path.expanduser(written))
    if unset := re.search(r"\$(\w+|\{[^}]*\})", found):
        raise InputError(f"{written}: the variable {unset[0]} is not set")
    user, separator, _ = found.partition("/")
    if user.startswith("~") and separator and not os.path.lexists(user):
        raise InputError(f"{written}: there is no user {user[1:]!r} whose home this could be")
    return Path(found)


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an address on the Hugging Face hub, hf://OWNER/NAME, which as a `Path` has lost a slash."""
    return os.fspath(path).startswith("hf:/")


def read_text(path: Path) -> str:
    """Returns the text of a file in UTF-8, with or without the byte order mark that programs of Windows write.

    Raises InputError that names another encoding or the first line that is not UTF-8, and OSError.
    """
    content = path.read_bytes()
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            raise InputError(f"{path}: is saved as {encoding}; save it as UTF-8")
    if b"\0" in content:
        raise InputError(f"{path}: is no text in UTF-8, as it has zero bytes; if it is UTF-16, save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise InputError(
            f"{path}: line {line} is not UTF-8 (byte 0x{byte:02X}): it is saved in another encoding, such as "
            "Windows-1252; save it as UTF-8"
        ) from None


def numbered(path: Path, *, suffix: bool = False) -> Iterator[Path]:
    """Yields a path, then the same with -2, -3, ... after its name; with `suffix` before the suffix of the name."""
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}" if suffix else f"{path.name}-{number}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to. In one step it then replaces `path`, or after an error it is deleted."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def refuse_taken(path: Path) -> None:
    """Raises InputError where something but an empty folder lies at the path of a new folder."""
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path}: is there already, and nothing is overwritten; choose another folder with --out")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder to write to. In one step it then becomes `path`, or after an error it is deleted.

    Raises InputError as `refuse_taken` does, and where it cannot be written.
    """
    refuse_taken(path)
    temporary = path.absolute().with_name(f"{TEMPORARY}{path.absolute().name}-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for inner in (*temporary.rglob("*"), temporary):
            sync(inner)
        temporary.rename(path)
        sync(path.absolute().parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file in one step: a reader sees the old contents or the new, never a part of them."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
    sync(path.parent)


def sync(path: Path) -> None:
    """Waits until the contents of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
