"""What is shown of a restoration while it is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.data import DataSpec
from diffusion.model import Model, load
from diffusion.model import showing as module
from diffusion.model.showing import Showing
from diffusion.operators import Mask
from diffusion.progress import told
from diffusion.restoration import Problem
from diffusion.restoration.parts import split, unsettled


def test_what_is_known_is_shown_as_it_is_and_what_is_not_estimated_yet_is_gray(monkeypatch: pytest.MonkeyPatch) -> None:
    known = torch.ones(1, 6, 40, dtype=torch.bool)
    known[:, 2:4, 2:4] = False
    known[:, 2:4, 34:36] = False
    image = torch.rand(1, 6, 40, generator=torch.Generator().manual_seed(0))
    problem = Problem(Mask(known), image[None], 0.0, (1, 6, 40))
    parts = split(problem, (6, 6))
    assert [part.count for part in parts] == [4, 4]
    values = torch.full((3, 8), torch.nan)
    showing = Showing(problem, unsettled(problem), values)
    shown = showing(slice(1, 3), parts[1:], [torch.full((2, 4), 0.25)])
    assert shown.shape == (2, 1, 6, 40) and values.isnan().all()
    assert torch.equal(shown[:, known], image[known].expand(2, -1))
    assert (shown[:, 0, 2:4, 2:4] == module.NOTHING).all() and (shown[:, 0, 2:4, 34:36] == 0.25).all()
    monkeypatch.setattr(module, "SHOWN", 300)
    assert len(showing(slice(0, 3), parts, [torch.zeros(3, 4)] * 2)) == 1, "one large image at a time"


def looks(model: Model, work: Any) -> tuple[list[Tensor], Tensor]:  # noqa: ANN401
    """What a listener sees while a model works, and the result."""
    seen: list[Tensor] = []
    with told(lambda *what: None, lambda make: seen.append(make())):
        return seen, work(model)


@pytest.mark.parametrize("method", ["learned", "mmps", "particles", "resampling", "repaint", "ddnm"])
def test_restorations_are_seen_at_every_evaluation_and_become_the_result(restorer: Path, method: str) -> None:
    model = load(restorer)
    image = torch.rand(model.spec.shape, generator=torch.Generator().manual_seed(1))
    known = torch.ones(1, 8, 8, dtype=torch.bool)
    known[:, 3:6, 2:6] = False
    seen, found = looks(model, lambda model: model.inpaint(image, known, n=2, steps=4, method=method))
    assert len(seen) >= 4 and all(x.shape == (2, 3, 8, 8) and x.isfinite().all() for x in seen)
    assert all(torch.equal(x[:, known.expand(3, -1, -1)], found.samples[:, known.expand(3, -1, -1)]) for x in seen)
    if method == "learned":
        assert torch.equal(seen[-1], found.samples)
    alone = model.inpaint(image, known, n=2, steps=4, method=method)
    assert torch.equal(alone.samples, found.samples), "looking changes nothing"


def test_samples_are_seen_at_every_step_and_become_the_result(restorer: Path) -> None:
    model = load(restorer)
    assert isinstance(model.spec, DataSpec)
    seen, found = looks(model, lambda model: model.sample(3, steps=5, seed=1))
    assert len(seen) == 5 and torch.equal(seen[-1].cpu(), found)
    assert all(float(x.min()) >= 0 and float(x.max()) <= 1 for x in seen)
