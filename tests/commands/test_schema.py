"""The JSON Schema of configurations: that it is made of them, holds for those shipped, and refuses what they refuse."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from diffusion import cli, config
from diffusion.commands import schema
from diffusion.config import Config

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = CONFIGS / "diffusion.schema.json"


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return schema.whole()


@pytest.fixture(scope="module")
def checker(whole: dict[str, Any]) -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(whole)
    return jsonschema.Draft202012Validator(whole)


def test_the_shipped_schema_is_up_to_date() -> None:
    up_to_date = SHIPPED.read_text(encoding="utf-8") == schema.as_text()
    assert up_to_date, "write it again: python -m diffusion schema --out configs/diffusion.schema.json"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_names_it_and_is_valid(
    path: Path, checker: jsonschema.Draft202012Validator
) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"#:schema ./{SHIPPED.name}\n")
    checker.validate(tomllib.loads(text))


def resolved(path: Path) -> dict[str, Any]:
    """The tree of a configuration with every key, without those that are unset."""
    tree = json.loads(json.dumps(config.to_dict(config.load(path))))
    return {name: {key: v for key, v in values.items() if v is not None} for name, values in tree.items()}


@pytest.mark.parametrize("name", ["digits", "swiss_roll_2015", "texture"])
def test_every_key_of_a_resolved_configuration_is_in_it(name: str, checker: jsonschema.Draft202012Validator) -> None:
    checker.validate(resolved(CONFIGS / f"{name}.toml"))


@pytest.mark.parametrize(
    ("section", "name"), [(section, name) for section, registry in config.REGISTRIES.items() for name in registry]
)
def test_every_component_is_an_alternative_with_its_own_keys(
    section: str, name: str, whole: dict[str, Any], checker: jsonschema.Draft202012Validator
) -> None:
    kind = config.REGISTRIES[section][name]
    alternatives = whole["properties"][section]["anyOf"]
    (own,) = (each for each in alternatives if each["properties"]["name"]["const"] == name)
    assert set(own["properties"]) == {"name", *(field.name for field in fields(kind))}
    assert checker.is_valid({section: {"name": name}})
    assert not checker.is_valid({section: {"name": name, "no_such_key": 1}})


@pytest.mark.parametrize(
    "tree",
    [
        {"trainign": {}},
        {"training": {"bacth": 3}},
        {"training": {"batch": 0}},
        {"training": {"batch": "many"}},
        {"training": {"precision": "fp8"}},
        {"data": {"source": "floder"}},
        {"backbone": {"design": "group"}},
        {"schedule": {"name": "cosin"}},
        {"schedule": {"name": "edm", "beta_min": 0.1}},
        {"grid": {"rho": "seven"}},
    ],
)
def test_what_a_configuration_may_not_hold_is_not_valid(
    tree: dict[str, Any], checker: jsonschema.Draft202012Validator
) -> None:
    assert not checker.is_valid(tree)
    with pytest.raises(config.ConfigError):
        config.from_dict(tree)


def test_keys_of_the_default_component_need_no_name_and_those_of_others_do(
    checker: jsonschema.Draft202012Validator,
) -> None:
    for tree, valid in (({"grid": {"rho": 5.0}}, True), ({"schedule": {"shift": 1.0}}, False)):
        assert checker.is_valid(tree) == valid
        if valid:
            config.from_dict(tree)
        else:
            with pytest.raises(config.ConfigError):
                config.from_dict(tree)


@dataclass(frozen=True)
class Told:
    """A thing.

    `first` is one, `second` another. Both are numbers. `third` is a third, unlike `first`.

    Raises ValueError for a `third` that is none.
    """

    first: int = 1
    second: int = 2
    third: int = 3
    fourth: int = 4
    """The fourth, told
    below it."""
    fifth: int = 5


def test_fields_are_described_by_the_string_below_them_or_by_sentences_about_them() -> None:
    both = "`first` is one, `second` another. Both are numbers."
    assert schema.descriptions(Told) == {
        "first": both,
        "second": both,
        "third": "`third` is a third, unlike `first`.",
        "fourth": "The fourth, told below it.",
        "fifth": "A thing.",
    }


def test_nothing_is_without_a_description(whole: dict[str, Any]) -> None:
    for section in fields(Config):
        found = whole["properties"][section.name]
        for alternative in found.get("anyOf", [found]):
            assert alternative["description"]
            assert all(key["description"] for key in alternative["properties"].values())


def test_the_command_prints_it_or_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    assert capsys.readouterr().out == schema.as_text()
    out = tmp_path / "a.json"
    assert cli.main(["schema", "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == schema.as_text()
    assert capsys.readouterr().out == (
        f"{out}: written; name it in the first line of a configuration: #:schema ./a.json\n"
    )
