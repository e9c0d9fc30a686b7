"""`diffusion publish` without a hub: what it asks for, lists and writes; exchange/test_publishing.py has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

import diffusion
from diffusion import cli
from diffusion.exchange import publishing
from tests.conftest import fails


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be uploaded."""
    monkeypatch.setattr(publishing, "upload", None)


def test_the_folder_is_written_instead_of_uploaded(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["publish", str(trained), "jane/shapes", "--license", "MIT", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("/images is published as images") and lines[1] == "jane/shapes gets 5 files, under mit:"
    sizes = {line.split()[0]: int(line.split()[1].replace(",", "")) for line in lines[2:-1]}
    assert sizes == {path.name: path.stat().st_size for path in out.iterdir()}
    assert lines[-1] == f"{out}: written, and nothing was uploaded"
    assert diffusion.load(out, device="cpu").step == 40
    text = (out / "README.md").read_text()
    assert "- Data: images, 40 examples" in text and "| upper bound on -log p, bits/dim | bound |" in text
    assert "is there already" in fails(capsys, "publish", trained, "a/b", "--license", "mit", "--out", out)


def test_a_dry_run_leaves_nothing(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    assert cli.main(["publish", str(trained), "jane/shapes", "--license", "mit", "--dry-run"]) == 0
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before and not [*tmp_path.iterdir()]


def test_a_license_is_asked_for_and_never_guessed(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["publish", str(trained), "jane/shapes", "--dry-run"]
    message = fails(capsys, *arguments)
    assert message.startswith("error: --license: must be given, the license under which others may use the model, such")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or "cc-by-4.0")
    assert cli.main(arguments) == 0
    assert "under cc-by-4.0:" in capsys.readouterr().out and asked[0].startswith("License of the model")
    monkeypatch.setattr("builtins.input", lambda _: "")
    assert "--license: must be an identifier" in fails(capsys, *arguments)


@pytest.mark.parametrize("name", ["shapes", "a/b/c", "hf://a/b", "a b/c", "/a"])
def test_a_repository_has_an_owner_and_a_name(name: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(capsys, "publish", trained, name, "--license", "mit", "--dry-run")
    assert message == f"error: repo: must be OWNER/NAME, got {name}\n"
