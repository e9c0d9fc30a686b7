"""Progress by what a network is asked, where the work tells of none until its end."""

from __future__ import annotations

from pathlib import Path

import torch

from diffusion.model import load
from diffusion.page.work.watching import watched
from diffusion.progress import told
from tests.page.bench import Bench, give
from tests.page.work.images import photograph


def test_it_tells_how_many_examples_the_network_saw_and_leaves_it_as_it_was(trained: Path) -> None:
    model, moved = load(trained), []
    x, t = torch.zeros(3, 3, 8, 8), torch.tensor(0.5)
    with told(lambda *now: moved.append(now)):
        with watched(model, "measuring", "draw", 8):
            model.denoiser(x, t)
            model.denoiser(x[:2], t)
        model.denoiser(x, t)
    assert moved == [("measuring", n, 8, "draw") for n in (0, 3, 5)]


def test_jobs_tell_how_far_they_are_before_their_end(bench: Bench, tmp_path: Path) -> None:
    image = {"upload": give(bench.run, photograph(tmp_path / "a.png", (8, 8)))}
    bench.do("likelihood", **image, draws=4096)
    bench.do("interpolate", a=image, b=image, n=2)
    for kind, title, total in (("likelihood", "measuring", 4096), ("interpolate", "following the flow", None)):
        between = {job["done"] for job in bench.told if job["kind"] == kind and job["title"] == title}
        assert any(0 < done < (total or float("inf")) for done in between), between
