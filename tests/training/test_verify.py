"""The proof of exact resumption: it holds for what the package does, and fails for what would break it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from diffusion import cli
from diffusion.errors import InputError
from diffusion.objectives import Batch
from diffusion.training.batches import BatchMaker, HostBatch
from diffusion.training.verify import verify_resume
from tests.conftest import tiny


@pytest.mark.parametrize("more", [[], ["observed.share=0.7", "observed.noisy=0.5"]], ids=["plain", "observed"])
def test_the_command_proves_it_for_a_configuration(
    more: list[str], shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.toml").write_text(f"[data]\npath = '{shapes}'\nsize = 8\n")
    network = ["backbone.channels=[8, 16]", "backbone.blocks=1", "backbone.attention=[]", "backbone.dropout=0.2"]
    monkeypatch.chdir(tmp_path)
    command = ["verify-resume", str(tmp_path / "x.toml"), *network, "training.batch=8", "training.precision=fp32"]
    command += more
    assert cli.main([*command, "--steps", "4"]) == 0
    assert "from step 2 of 4, with training.deterministic = true: the same" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["x.toml"]


def test_what_depends_on_the_past_is_found(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = BatchMaker.on_device, [0]

    def drifting(self: BatchMaker, host: HostBatch) -> Batch:
        calls[0] += 1
        batch = real(self, host)
        return replace(batch, x=batch.x * (1 + 1e-3 * calls[0]))

    monkeypatch.setattr(BatchMaker, "on_device", drifting)
    found = verify_resume(tiny(shapes), 4)
    assert any(line.startswith("model/") and "differs by up to" in line for line in found)
    assert any(line.startswith("training/optimizer/") for line in found)
    assert any(line.startswith("step 3: loss ") for line in found)
    assert not any(line.startswith(("step 1:", "step 2:")) for line in found)


def test_one_step_has_no_middle(shapes: Path) -> None:
    with pytest.raises(InputError, match="steps: must be at least 2, got 1"):
        verify_resume(tiny(shapes), 1)
