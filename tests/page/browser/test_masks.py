"""Masks as the editor computes them, against the distance of every pixel, and as PNG files."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page
from scipy import ndimage

from tests.page.browser.conftest import Opening

WIDTH, HEIGHT = 37, 23
Bits = NDArray[np.bool_]
START = """
    const m = await import("/static/editor/mask.js"), { encode, decode } = await import("/static/editor/png.js");
    const mask = m.blank(37, 23), history = new m.History(mask);
"""


@pytest.fixture
def page(window: Opening) -> Page:
    return window()


def carried_out(page: Page, script: str, given: object = None) -> Any:  # noqa: ANN401, whatever a script returns
    return page.evaluate(f"async (given) => {{ {START} {script} }}", given)


def bits(page: Page, script: str, given: object = None) -> Bits:
    """The mask that a script leaves."""
    return np.array(carried_out(page, f"{script}; return [...mask.hidden]", given), bool).reshape(HEIGHT, WIDTH)


def centers() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return x, y


def distance(p: tuple[float, float], q: tuple[float, float]) -> NDArray[np.float64]:
    """The distance of the middle of each pixel from the line between two points."""
    (x, y), (dx, dy) = centers(), (q[0] - p[0], q[1] - p[1])
    length = dx * dx + dy * dy
    along = np.clip(((x - p[0]) * dx + (y - p[1]) * dy) / length, 0, 1) if length else 0
    return np.hypot(x - p[0] - along * dx, y - p[1] - along * dy)


def test_a_stroke_hides_the_pixels_whose_middle_the_brush_covers(page: Page) -> None:
    rng = np.random.default_rng(0)
    for size in (2.5, 6, 13.3):
        ends = rng.uniform((-4, -4), (WIDTH + 4, HEIGHT + 4), (8, 2, 2))
        ends[0, 1], ends[1, 1, 0], ends[2, 1, 1] = (
            ends[0, 0],
            ends[1, 0, 0],
            ends[2, 0, 1],
        )  # A point, and straight lines.
        for p, q in ends.tolist():
            found = bits(page, "m.stroke(mask, given[0], given[1], given[2], 1)", [*_points(p, q), size])
            np.testing.assert_array_equal(found, distance(p, q) <= size / 2)


def _points(*points: list[float]) -> list[dict[str, float]]:
    return [{"x": x, "y": y} for x, y in points]


def test_a_brush_of_one_pixel_draws_lines_without_gaps(page: Page) -> None:
    rng = np.random.default_rng(1)
    for p, q in rng.uniform((0, 0), (WIDTH, HEIGHT), (10, 2, 2)).tolist():
        found = bits(page, "m.stroke(mask, given[0], given[1], 1, 1)", _points(p, q))
        assert ndimage.label(found, np.ones((3, 3)))[1] == 1
        assert found[int(p[1]), int(p[0])]
        assert found[int(q[1]), int(q[0])]
        assert found.sum() <= abs(int(p[0]) - int(q[0])) + abs(int(p[1]) - int(q[1])) + 1


def test_the_eraser_shows_again_what_it_covers(page: Page) -> None:
    script = "m.invert(mask); m.stroke(mask, {x: 5, y: 5}, {x: 30, y: 12}, 7, 0)"
    np.testing.assert_array_equal(bits(page, script), distance((5, 5), (30, 12)) > 3.5)


def test_rectangles_take_the_pixels_of_both_corners_and_stay_within_the_image(page: Page) -> None:
    found = bits(page, "m.rectangle(mask, m.spanned({x: 40.2, y: 5.9}, {x: 30.5, y: 2.1}), 1)")
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[2:6, 30:] = True
    np.testing.assert_array_equal(found, expected)


def test_a_lasso_takes_what_lies_within_by_the_even_odd_rule(page: Page) -> None:
    outer = _points([4, 3], [30, 3], [30, 20], [4, 20])
    inner = _points([4, 3], [10, 8], [20, 8], [20, 15], [10, 15], [10, 8])  # Goes around a hole, and back.
    found = bits(page, "m.lasso(mask, given, 1)", [*outer, *inner])
    x, y = centers()
    inside = (x > 4) & (x < 30) & (y > 3) & (y < 20)
    hole = (x > 10) & (x < 20) & (y > 8) & (y < 15)
    np.testing.assert_array_equal(found, inside & ~hole)


def test_growing_hides_what_lies_within_a_distance(page: Page) -> None:
    before = np.random.default_rng(2).random((HEIGHT, WIDTH)) < 0.01
    for reach in (1, 3, 6):
        given = [before.astype(int).ravel().tolist(), reach]
        found = bits(page, "mask.hidden.set(given[0]); m.grow(mask, given[1])", given)
        np.testing.assert_array_equal(found, ndimage.distance_transform_edt(~before) <= reach)


def test_forty_steps_are_undone_and_done_again(page: Page) -> None:
    script = """
        const states = [[...mask.hidden]];
        const step = (action) => {
            history.keep(m.whole(mask));
            action();
            history.end();
            states.push([...mask.hidden]);
        };
        const line = (i) => m.stroke(mask, { x: i, y: i / 2 }, { x: 37 - i, y: 9 }, 3, i % 3 ? 1 : 0);
        for (let i = 0; i < 38; i++) step(() => line(i));
        step(() => m.invert(mask));
        step(() => mask.hidden.fill(0));
        const same = (i) => JSON.stringify([...mask.hidden]) === JSON.stringify(states[i]);
        const found = [];
        for (let i = 39; i >= 0; i--) { history.undo(); found.push(same(i)); }
        found.push(history.undo() === null);
        for (let i = 1; i <= 40; i++) { history.redo(); found.push(same(i)); }
        return [...found, history.redo() === null];
    """
    assert carried_out(page, script) == [True] * 82


def test_a_step_of_twelve_megapixels_is_kept_in_a_bit_per_pixel(page: Page) -> None:
    script = """
        const large = m.blank(4000, 3000), steps = new m.History(large);
        for (let i = 0; i < 50; i++) { steps.keep({ x0: i, y0: 0, x1: i + 1, y1: 1 }); steps.end(); }
        steps.keep(m.whole(large));
        const bytes = [...steps.open.values()].reduce((sum, bits) => sum + bits.length, 0);
        steps.end();
        return [steps.steps.length, bytes];
    """
    steps, size = carried_out(page, script)
    assert steps == 40
    assert size < 1.6e6


def test_a_mask_becomes_a_png_of_one_bit_white_where_known_and_is_read_back(page: Page) -> None:
    script = """
        m.stroke(mask, { x: 5, y: 5 }, { x: 30, y: 12 }, 7, 1);
        const blob = await encode(mask), bytes = new Uint8Array(await blob.arrayBuffer());
        const back = await decode(blob, 37, 23), same = back.every((bit, i) => bit === mask.hidden[i]);
        const refused = await decode(blob, 23, 37).catch((error) => error.message);
        return [btoa(String.fromCharCode(...bytes)), same, refused, m.count(mask)];
    """
    text, same, refused, count = carried_out(page, script)
    picture = Image.open(io.BytesIO(base64.b64decode(text)))
    assert picture.mode == "1"
    hidden = distance((5, 5), (30, 12)) <= 3.5
    np.testing.assert_array_equal(np.array(picture), ~hidden)
    assert same
    assert count == hidden.sum()
    assert refused == "The mask has 37 x 23 pixels, and the image 23 x 37."
