"""Experiments in seconds: their configurations, with values that make everything small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks import timed
from benchmarks.experiments.setting import Setting
from diffusion import config
from diffusion.config import Config

Shrink = Callable[..., None]


@pytest.fixture
def shrink(monkeypatch: pytest.MonkeyPatch) -> Shrink:
    """Adds overrides to every configuration that is loaded."""
    load = config.load

    def shrink(*small: str) -> None:
        def loaded(path: Path, overrides: Sequence[str] = ()) -> Config:
            return load(path, [*overrides, "training.precision=fp32", "sampling.precision=fp32", *small])

        monkeypatch.setattr(config, "load", loaded)
        monkeypatch.setattr(timed, "TRIAL", 4)

    return shrink


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path / "found", minutes=0.01)
