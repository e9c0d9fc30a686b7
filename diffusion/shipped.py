"""The configurations that come with the package: configs/ of a checkout, and its copy within an installed package."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent


def folder() -> Path:
    """Returns the folder of the shipped configurations."""
    copied = PACKAGE / "configs"
    return copied if copied.is_dir() else PACKAGE.with_name("configs")


def configurations() -> dict[str, Path]:
    """Returns the shipped TOML files by name, such as digits for digits.toml."""
    return {path.stem: path for path in sorted(folder().glob("*.toml"))}
