"""The configurations that come with the package are found in a checkout and in an installed package."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from diffusion import config, shipped
from diffusion.config import ConfigError

ROOT = Path(__file__).parents[1]


def test_those_of_a_checkout_are_found() -> None:
    found = shipped.configurations()
    assert {"digits", "folder64", "swiss_roll"} <= found.keys() and set(found.values()) == {
        *ROOT.glob("configs/*.toml")
    }


def test_those_of_an_installed_package_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder called configs may lie beside an installed package."""
    for name, file in (("configs", "other"), ("diffusion/configs", "mine")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / f"{file}.toml").write_text("")
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "diffusion")
    assert shipped.configurations() == {"mine": tmp_path / "diffusion" / "configs" / "mine.toml"}


def test_a_wheel_holds_them_where_they_are_looked_for() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert build["wheel"]["force-include"] == {"configs": "diffusion/configs"}
    assert "/configs" in build["sdist"]["include"], "wheels are made of source distributions too"


@pytest.mark.parametrize("name", ["digits", "digits.toml"])
def test_a_name_means_the_shipped_one_unless_there_is_a_file_of_that_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()  # Images may lie in a folder of that name.
    assert config.locate(Path(name)) == ROOT / "configs" / "digits.toml"
    assert config.load(Path(name)) == config.load(ROOT / "configs" / "digits.toml")
    (tmp_path / "digits.toml").write_text("")
    assert config.locate(Path(name)) == Path("digits.toml")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("digit", "did you mean digits?"),
        ("Folder_64.toml", "did you mean folder64?"),
        ("photo", "did you mean photos.toml?"),
        ("configs/digits.toml", "did you mean digits?"),
        ("xyzzy", f"the shipped ones are {', '.join(sorted(path.stem for path in ROOT.glob('configs/*.toml')))}"),
    ],
)
def test_the_nearest_of_those_here_and_the_shipped_ones_is_offered(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos.toml").write_text("")
    with pytest.raises(ConfigError) as caught:
        config.load(Path(name))
    assert str(caught.value) == f"{name}: no such config file; {hint}"


def test_a_folder_is_no_configuration_and_the_error_says_how_to_train_on_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: is a folder, not a TOML file; to train on its images: diffusion train folder64 "
        f"data.path={tmp_path}"
    )
