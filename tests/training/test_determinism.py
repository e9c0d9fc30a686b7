"""What keeps a GPU from taking another step the next time, and what it leaves behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion.errors import InputError
from diffusion.training import run
from diffusion.training.determinism import TELLING, VARIABLE, WORKSPACE, chosen
from diffusion.training.trainer import Trainer
from tests.conftest import tiny


def settings() -> tuple[object, ...]:
    cudnn, on = torch.backends.cudnn, torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    return on, warns, cudnn.benchmark, cudnn.deterministic, fill, os.getenv(VARIABLE)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("variable", [None, ":16:8"])
def test_settings_are_chosen_and_given_back(
    deterministic: bool, variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if variable:
        monkeypatch.setenv(VARIABLE, variable)
    before = settings()
    try:
        with chosen(deterministic):
            found = settings()
            raise KeyError
    except KeyError:
        pass
    assert found == (
        (True, False, False, True, False, WORKSPACE) if deterministic else (*before[:2], True, *before[3:])
    )
    assert settings() == before


def test_cuda_that_has_started_in_another_mode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.delenv(VARIABLE, raising=False)
    with (
        pytest.raises(InputError, match=f"^training.deterministic: true, but .* without {VARIABLE}={WORKSPACE}"),
        chosen(True),
    ):
        pass
    monkeypatch.setenv(VARIABLE, WORKSPACE)
    with chosen(True):
        pass


def test_an_operation_without_a_deterministic_form_names_the_key() -> None:
    def operation() -> None:
        raise RuntimeError(
            f"put_ does not have a deterministic implementation, but you set 'torch.{TELLING}(True)'. You"
        )

    with (
        pytest.raises(
            InputError, match=r"^training.deterministic: true, but put_ does not .*implementation; set it to"
        ),
        chosen(True),
    ):
        operation()
    with pytest.raises(RuntimeError, match=r"^put_"), chosen(False):
        operation()
    with pytest.raises(RuntimeError, match=r"^another"), chosen(True):
        raise RuntimeError("another")


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_run_trains_in_it(shapes: Path, tmp_path: Path, deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    real = Trainer.update

    def noting(self: Trainer, batch: object) -> Tensor:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return real(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "update", noting)
    before = settings()
    experiment = tiny(shapes, training={"deterministic": deterministic, "steps": 2})
    assert run.train(experiment, tmp_path / "run") == 0
    assert seen == [deterministic] * 2 and settings() == before
