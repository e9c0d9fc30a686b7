"""What a run is trained on is recorded in its folder."""

from __future__ import annotations

from pathlib import Path

import torch

from diffusion.reporting.run_folder import RunFolder
from diffusion.training import machine


def test_the_record_names_device_precision_and_versions(tmp_path: Path) -> None:
    machine.record(tmp_path, torch.device("cpu"), torch.bfloat16)
    found = RunFolder(tmp_path).machine
    assert (found["device"], found["precision"], found["processes"]) == ("cpu", "bf16", 1)
    assert found["versions"]["torch"] == torch.__version__ and "cuda" not in found["versions"]
    assert found["threads"] == torch.get_num_threads() and found["cores"] >= 1
