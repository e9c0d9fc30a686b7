"""Other packages called diffusion are told from this one by what lies on the path."""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import diffusion
from diffusion.commands.foreign import AGAIN, Foreign, foreign

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Writes the metadata of a distribution that has files, into a folder that is the path of modules alone."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.chdir(Path(diffusion.__file__).parents[1])

    def written(name: str, *files: str, command: str = "", top_level: str = "") -> None:
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "top_level.txt").write_text(top_level)
        (info / "entry_points.txt").write_text(f"[console_scripts]\nx = {command}\n" if command else "")
        rows = []
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(name)
            digest = base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest()).decode().rstrip("=")
            rows.append(f"{file},sha256={digest},{len(name)}")
        (info / "RECORD").write_text("\n".join(rows))

    return written


def packages() -> list[Foreign]:
    """The findings without those about files on the path."""
    return [found for found in foreign() if "another package of this name" not in found.text]


def test_nothing_foreign_is_found_beside_others(install: Install) -> None:
    install("diffusers", "diffusers/__init__.py", top_level="diffusers")
    install("denoising-diffusion-pytorch", "denoising_diffusion_pytorch/__init__.py")
    install("reverse-diffusion", "reverse_diffusion.pth")
    assert [*foreign()] == []


@pytest.mark.parametrize(
    ("name", "files", "top_level"),
    [
        ("diffusion", (), ""),
        ("Diffusion", (), ""),
        ("other-firm", ("diffusion/client/__init__.py",), ""),
        ("other-firm", ("diffusion.py",), ""),
        ("other-firm", (), "diffusion"),
    ],
)
def test_a_distribution_that_installs_a_package_of_this_name_is_named(
    install: Install, name: str, files: tuple[str, ...], top_level: str
) -> None:
    install(name, *files, top_level=top_level)
    (found,) = packages()
    assert found.text == f"{name.lower()} 1.0 installs another package diffusion into the place of this one"
    assert found.cure.startswith(f"pip uninstall {name.lower()}, then: {AGAIN}") and not found.broken


def test_the_former_name_of_this_package_is_known(install: Install) -> None:
    install("diffusion", "diffusion/schedules.py", command="diffusion.cli:main")
    (found,) = packages()
    assert found.text == "diffusion 1.0 is this package under its former name" and "pip uninstall" in found.cure


def test_files_that_were_replaced_are_counted(install: Install, tmp_path: Path) -> None:
    install("reverse-diffusion", "diffusion/__init__.py", "diffusion/cli.py", "diffusion/files.py")
    assert packages() == []
    install("diffusion", "diffusion/__init__.py", "diffusion/client.py")
    (tmp_path / "diffusion" / "files.py").unlink()
    other, damage = sorted(packages(), key=lambda found: found.broken)
    assert other.text.startswith("diffusion 1.0 installs another")
    assert damage.broken and damage.cure == AGAIN
    assert damage.text == "diffusion/__init__.py and 1 more files not as reverse-diffusion 1.0 installed it"


@pytest.mark.parametrize("file", ["diffusion/__init__.py", "diffusion.py"])
@pytest.mark.parametrize("here", [True, False])
def test_a_package_of_this_name_on_the_path_or_where_programs_run_is_named(
    file: str, here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("")
    monkeypatch.setattr(sys, "path", [] if here else [str(tmp_path)])
    monkeypatch.chdir(tmp_path if here else Path(diffusion.__file__).parents[1])
    (found,) = foreign()
    assert found.text.startswith(f"{tmp_path / file} is another package") and found.cure.startswith("rename it")
