"""A bar that moves within a step, never back, and reaches its total at the end."""

from __future__ import annotations

import torch
from tqdm import tqdm

from diffusion.model.progress import ALMOST, FIRST_PASSES, Progress

TIMES = torch.linspace(1, 0, 5, dtype=torch.float64)


def test_the_bar_moves_within_a_step_by_passes_and_by_windows() -> None:
    with tqdm(total=4 * (100 + 60), disable=False, file=open("/dev/null", "w")) as bar:
        moving = Progress(bar, TIMES)
        moving.begin(100)
        places = []
        for t in TIMES[:-1]:
            moving.evaluation(t.float())
            for _ in range(4):
                moving.part(0.25)
            moving.backward()
            places.append(bar.n)
        # The first step was taken to have four passes; then two are known: an evaluation and a backward pass.
        assert places == [100 // FIRST_PASSES, 150, 250, 350]
        moving.part(0.5)
        assert bar.n == 375
        moving.part(1.0)
        assert bar.n == 300 + int(100 * (1 + ALMOST) / 2), "a step does not end before the next one begins"
        moving.begin(60)
        assert bar.n == 400
        moving.evaluation(TIMES[:2])
        assert bar.n == 400, "the earliest step of a batch counts"
        moving.evaluation(TIMES[2].expand(3))
        assert bar.n == 400 + 2 * 60
        moving.end()
        assert bar.n == bar.total == 640


def test_an_evaluation_of_an_earlier_time_never_moves_the_bar_back() -> None:
    """Repeats of a step go back in time."""
    with tqdm(total=400, disable=False, file=open("/dev/null", "w")) as bar:
        moving = Progress(bar, TIMES)
        moving.begin(100)
        moving.evaluation(TIMES[2])
        before = bar.n
        moving.evaluation(TIMES[1])
        assert bar.n >= before == 200


def test_steps_are_counted_where_pixels_have_times_of_their_own() -> None:
    for per_step in (1, 2):
        with tqdm(total=400, disable=False, file=open("/dev/null", "w")) as bar:
            moving = Progress(bar, TIMES, per_step)
            moving.begin(100)
            places = []
            for _ in range(4 * per_step):
                moving.evaluation(None)
                places.append(bar.n)
            assert places == ([0, 100, 200, 300] if per_step == 1 else [0, 25, 100, 150, 200, 250, 300, 350])
            moving.end()
            assert bar.n == bar.total
