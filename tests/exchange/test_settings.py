"""Values of files of other programs: of their type, absent, or an error that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion.errors import InputError, require
from diffusion.exchange.settings import Settings


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_null_and_absent_keys_have_their_default(tmp_path: Path) -> None:
    settings = Settings.read(written(tmp_path / "a.json", '{"text": null, "list": [1, 2.5], "whole": 7}'))
    assert settings.text("text", "other") == settings.text("missing", "other") == "other"
    assert settings.numbers("list") == (1.0, 2.5) and settings.numbers("missing") is None
    assert settings.whole("whole", 1, least=7, most=7) == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "must be an object of keys and values"),
        ("{", "is not a JSON file"),
        ("[" * 100_000, "is not a JSON file"),
        (b"\xff\xfe{\0}\0", "is saved as UTF-16"),
        ("{}\0", "has zero bytes"),
    ],
)
def test_files_that_are_none_are_named(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = written(tmp_path / "config.json", text)
    with pytest.raises(InputError, match=rf"config\.json: .*{message}"):
        Settings.read(path)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("text", 1), ("flag", 0), ("number", "1"), ("number", float("inf")), ("number", True), ("numbers", [1, "2"])],
)
def test_values_of_another_type_are_refused(kind: str, value: object) -> None:
    settings = Settings({"key": value}, "file.json")
    with pytest.raises(InputError, match=r"file\.json: key: must be .*, got "):
        settings.numbers("key") if kind == "numbers" else getattr(settings, kind)("key", None)


@pytest.mark.parametrize("value", [0, 11, 2.0, True])
def test_whole_numbers_lie_within_their_limits(value: object) -> None:
    with pytest.raises(InputError, match="key: must be a whole number from 1 to 10"):
        Settings({"key": value}, "file.json").whole("key", 1, least=1, most=10)


def test_what_is_made_of_values_names_the_file() -> None:
    settings = Settings({}, "file.json")
    with pytest.raises(InputError, match=r"^file\.json: x: must be positive, got 0$"):
        settings.checked(lambda: require(False, "x", "positive", 0))
    assert str(settings.refused("key", "v", "is odd")) == "file.json: key: 'v' is odd"
