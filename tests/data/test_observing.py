"""Laws of masks: what they show, what they hide, and that they are functions of a seed."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion import levels as theory
from diffusion.data.observing import MASKS, UNSEEN, Given, Observing, Pixels
from diffusion.errors import InputError

LAWS = pytest.mark.parametrize("name", MASKS)
SIZES = [(28, 28), (9, 40), (1, 7), (3, 3)]


@LAWS
@pytest.mark.parametrize("size", SIZES)
def test_every_mask_hides_something_and_shows_something(name: str, size: tuple[int, int]) -> None:
    for seed in range(200):
        known = MASKS[name]()(size, np.random.default_rng(seed))
        assert known.shape == size and known.dtype == bool
        assert known.any() and not known.all()


def test_a_single_value_is_hidden() -> None:
    assert not Pixels()((1,), np.random.default_rng(0)).any()


def shares(name: str, size: tuple[int, int] = (64, 64), count: int = 400) -> np.ndarray:
    masks = [MASKS[name]()(size, np.random.default_rng(seed)) for seed in range(count)]
    return np.array([mask.mean() for mask in masks])


@pytest.mark.parametrize(
    ("name", "low", "high", "mean"),
    [
        # A rectangle of sides u and v, uniform in [0.2, 0.8], hides uv: 0.25 on average, between 0.04 and 0.64.
        ("box", 0.36, 0.96, 0.75),
        ("half", 0.0, 1.0, 0.5),
        # The mean of a log-uniform share from a to b is (b - a) / log(b / a).
        ("pixels", 0.0, 1.0, 0.89 / np.log(90)),
        # Sides from 0.3 to 0.8: 0.55² on average.
        ("frame", 0.09, 0.64, 0.3025),
        ("blocks", 0.0, 1.0, 0.5),
    ],
)
def test_the_share_that_is_seen_is_that_of_the_law(name: str, low: float, high: float, mean: float) -> None:
    found = shares(name)
    assert low - 0.03 <= found.min() and found.max() <= high + 0.03
    assert abs(found.mean() - mean) < 4 * found.std() / len(found) ** 0.5 + 0.01


def test_strokes_are_thin_and_connected_to_their_pieces() -> None:
    found = shares("strokes")
    assert found.min() > 0.3 and 0.6 < found.mean() < 0.97


def test_halves_have_every_direction() -> None:
    """The side that is hidden is above, below, left and right about as often."""
    masks = np.array([MASKS["half"]()((32, 32), np.random.default_rng(seed)) for seed in range(400)])
    edges = [(~masks[:, 0]).mean(), (~masks[:, -1]).mean(), (~masks[..., 0]).mean(), (~masks[..., -1]).mean()]
    assert max(edges) - min(edges) < 0.12 and min(edges) > 0.4


def test_levels_are_those_of_the_shares() -> None:
    observing = Observing(share=0.6, noisy=0.5, unseen=0.0)
    drawn = [observing((16, 16), seed) for seed in range(2000)]
    observed = np.array([bool((levels < 1).any()) for levels in drawn])
    noisy = np.array([bool(((levels > 0) & (levels < 1)).any()) for levels in drawn])
    uneven = np.array([len(np.unique(levels[(levels > 0) & (levels < 1)])) > 1 for levels in drawn])
    assert abs(observed.mean() - 0.6) < 4 * (0.24 / 2000) ** 0.5
    assert abs(noisy[observed].mean() - 0.5) < 4 * (0.25 / 1200) ** 0.5
    assert abs(uneven[noisy].mean() - 0.25) < 4 * (0.19 / 600) ** 0.5
    assert all(levels.dtype == np.float32 and levels.min() >= 0 and (levels == 1).any() for levels in drawn)


def test_levels_are_a_function_of_the_seed() -> None:
    observing = Observing(share=0.9)
    first, again = ([observing((16, 16), seed) for seed in range(20)] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({levels.tobytes() for levels in first}) > 15


def test_of_points_any_coordinates_are_observed() -> None:
    drawn = np.array([Observing(share=1.0, noisy=0.0, unseen=0.0)((3,), seed) for seed in range(500)])
    assert set(map(tuple, drawn.tolist())) == {
        (a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1) if 0 < a + b + c < 3
    }


def test_half_of_what_is_observed_of_completed_examples_goes_by_the_masks_of_the_data() -> None:
    seen = (np.random.default_rng(0).random((5, 1, 12, 12)) < 0.5).astype(np.uint8)
    observing = Observing(share=0.8, noisy=0.0, unseen=0.0, masks=("box",))
    drawn = [observing((12, 12), seed, Given(seen)) == 0 for seed in range(2000)]
    counts = np.array([sum(np.array_equal(known, mask[0] != 0) for known in drawn) for mask in seen])
    assert abs(counts.sum() / 2000 - 0.4) < 4 * (0.24 / 2000) ** 0.5
    assert np.abs(counts / counts.sum() - 0.2).max() < 4 * (0.16 / counts.sum()) ** 0.5, "each of them as often"
    assert abs(sum(bool(known.any()) for known in drawn) / 2000 - 0.8) < 4 * (0.16 / 2000) ** 0.5


def test_of_a_share_of_what_is_observed_nobody_has_seen_the_rest() -> None:
    """What is observed is then at the level of the trajectory, where the law shows it; other examples do not change."""
    assert theory.UNSEEN == UNSEEN
    share, some, none = 0.7, Observing(share=0.7, unseen=0.3), Observing(share=0.7, unseen=0.0)
    drawn = [(some((12, 12), seed), none((12, 12), seed)) for seed in range(2000)]
    chosen = np.array([bool((levels == UNSEEN).any()) for levels, _ in drawn])
    assert abs(chosen.mean() - 0.3 * share) < 4 * (0.21 * 0.79 / 2000) ** 0.5
    for unseen, (found, plain) in zip(chosen, drawn, strict=True):
        assert found.dtype == np.float32
        assert np.array_equal(found, np.where(plain < 1, np.float32(1), UNSEEN) if unseen else plain)


def test_without_such_a_share_every_draw_is_that_of_earlier_versions() -> None:
    """The counts are those of the version before there was one."""
    counts = [int((Observing(share=0.66, unseen=0.0)((9, 12), seed) < 1).sum()) for seed in range(24)]
    before = [85, 27, 90, 18, 0, 0, 85, 30, 83, 0, 0, 20, 82, 0, 0, 0, 18, 0, 93, 2, 47, 0, 101, 0]
    assert counts == before


def test_of_points_nobody_has_seen_the_rest_either() -> None:
    drawn = {tuple(Observing(share=1.0, unseen=1.0)((2,), seed).tolist()) for seed in range(50)}
    assert drawn == {(1.0, float(UNSEEN)), (float(UNSEEN), 1.0)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 1.5}, r"share: must be in \[0, 1\], got 1.5"),
        ({"noisy": -0.1}, r"noisy: must be in \[0, 1\], got -0.1"),
        ({"unseen": 2.0}, r"unseen: must be in \[0, 1\], got 2.0"),
        ({"masks": ()}, r"masks: must be some of box, half, pixels, strokes, frame, blocks, got \(\)"),
        ({"masks": ("boxes",)}, r"masks: must be one of .*, got 'boxes'; did you mean box\?"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Observing(**options)  # type: ignore[arg-type]
