"""Writes the golden checkpoint of the present format: `python -m tests.golden.make`, once for each format.

It is a tiny run on the Swiss roll, with the samples of its model from when it was written. Checkpoints of released
formats are never written again: they are there to be loaded by all later versions.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from diffusion import checkpoint, config, load
from diffusion.training import train

HERE = Path(__file__).parent
EXPERIMENT = {
    "data": {"source": "swiss_roll", "count": 100, "noise": 0.02},
    "backbone": {"name": "mlp", "width": 8, "blocks": 1, "octaves": 2},
    "training": {"steps": 3, "batch": 8, "precision": "fp32"},
    "report": {"log": 1, "pictures": 4, "images": 4, "draws": 2, "keep_best": False},
    "sampling": {"steps": 3, "precision": "fp32"},
}


def main() -> None:
    """Trains, and keeps the files that a run goes on from."""
    golden = HERE / f"format-{checkpoint.FORMAT}"
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        assert train(config.from_dict(EXPERIMENT), run) == 0
        shutil.rmtree(golden, ignore_errors=True)
        shutil.copytree(run / "checkpoints", golden / "checkpoints")
        shutil.copy(run / "config.json", golden)
    said = {"samples": load(golden, device="cpu").sample(4, seed=0).tolist()}
    (golden / "expected.json").write_text(json.dumps(said, indent=1))


if __name__ == "__main__":
    main()
