"""What is found in the images of a run is what `diffusion inspect` says."""

from __future__ import annotations

from pathlib import Path

from diffusion.page import worker
from tests.conftest import PER_CLASS, SIDE
from tests.page.bench import Bench


def test_it_counts_what_is_there(bench: Bench, shapes: Path) -> None:
    assert worker.PROGRAM == "diffusion.page.carrying_out"
    job = bench.do("inspect")
    found = job.numbers
    assert found["images"] == 2 * PER_CLASS and found["classes"] == {"disk": PER_CLASS, "square": PER_CLASS}
    assert found["sizes"] == [{"width": SIDE, "height": SIDE, "count": 2 * PER_CLASS}]
    assert found["modes"] == {"RGB": 2 * PER_CLASS} and found["formats"] == {"PNG": 2 * PER_CLASS}
    assert found["copies"] == found["damaged"] == found["left_out"] == {"count": 0, "rows": []}
    assert found["alike"]["count"] >= len(found["alike"]["rows"]) >= 0
    assert str(shapes) not in " ".join(job.lines) and any("PNG" in line for line in job.lines)
