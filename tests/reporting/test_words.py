"""Numbers as reports write them."""

from __future__ import annotations

import pytest

from diffusion.reporting.words import duration, examples, interval, moment, value


@pytest.mark.parametrize(
    ("number", "half", "text"),
    [(4.38143, 0.0785, "4.381 ± 0.079"), (12345.6, 42.0, "12,346 ± 42"), (3.14159, None, "3.142"), (2.0, 0.0, "2")],
)
def test_an_interval_has_the_digits_that_it_warrants(number: float, half: float | None, text: str) -> None:
    assert interval({"value": number, "half": half, "unit": "bits/dim"}) == (text, "bits/dim")
    assert interval(None) == ("—", "")


def test_times() -> None:
    found = [duration(seconds) for seconds in (None, 12, 86, 15_120, 200_000)]
    assert found == ["—", "12 s", "1 min 26 s", "4 h 12 min", "2 d 7 h"]
    assert moment(1_796_021_040) == "30 Nov 2026, 06:44 UTC"


def test_what_examples_are() -> None:
    assert examples([3, 24, 32], 10) == "images of 32 × 24 pixels, RGB, in 10 classes"
    assert examples([5, 8, 8], 0) == "images of 8 × 8 pixels, 5 bands"
    assert examples([2], 0) == "points in 2 dimensions"
    assert examples([], 0) == "examples of a size that is not known yet"


def test_values_are_written_as_configurations_have_them() -> None:
    assert [value(of) for of in (True, [1, 0.5], None, "", "a", 1e-9, {"torch": "2.1", "python": 3})] == [
        "true",
        "[1, 0.5]",
        "not set",
        '""',
        "a",
        "1e-09",
        "torch 2.1, python 3",
    ]
