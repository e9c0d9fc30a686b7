"""Places of a machine are taken out of what is published, and whatever still has one is refused."""

from __future__ import annotations

import pytest

from diffusion import config
from diffusion.config import Config
from diffusion.errors import InputError
from diffusion.exchange.private_paths import last_part, refuse_paths, without_paths


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/jane/photos", "photos"),
        ("/home/jane/photos/", "photos"),
        ("photos", "photos"),
        ("./../photos/.", "photos"),
        ("~/photos", "photos"),
        ("C:\\Users\\Jane\\my photos", "my photos"),
        ("D:/", "data"),
        ("\\\\server\\share\\x.zip", "x.zip"),
        ("/", "data"),
        ("~", "data"),
        ("hf://owner/name:train", "hf://owner/name:train"),
    ],
)
def test_a_path_becomes_its_last_part(path: str, name: str) -> None:
    assert last_part(path) == name


def test_values_of_all_depths_are_gone_through_and_named() -> None:
    tree = {"a": {"path": "/x/y", "n": 3, "on": True, "none": None}, "b": ["~/z", 0.5, ("p", "/q/r")], "c": "bits"}
    found, lines = without_paths(tree)
    assert found == {"a": {"path": "y", "n": 3, "on": True, "none": None}, "b": ["z", 0.5, ["p", "r"]], "c": "bits"}
    assert lines == ["a.path: /x/y is published as y", "b: ~/z is published as z", "b: /q/r is published as r"]


def test_a_configuration_without_places_stays_as_it_is() -> None:
    tree = config.to_dict(Config())
    found, lines = without_paths(tree)
    assert lines == [] and config.from_dict(found) == Config()


@pytest.mark.parametrize(
    "text",
    [
        '{"path": "/home/jane/x"}',
        "made in /tmp/x of it",
        '{"path": "C:\\\\Users"}',
        "see ~/runs/a",
        "(~jane/x)",
        "at D:/photos",
        "\\\\server\\share",
    ],
)
def test_a_text_with_a_place_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^a\.json: would publish a path of this machine, '.*'; nothing was written$"):
        refuse_paths("a.json", text)


@pytest.mark.parametrize(
    "text",
    [
        "bits/dim",
        "a / b",
        "https://pypi.org/project/x/",
        "hf://owner/name",
        "[x](https://a/b)",
        "1 ~ 2",
        "±0.1/√2",
        "a: /",
    ],
)
def test_other_texts_are_not(text: str) -> None:
    refuse_paths("a.json", text)
