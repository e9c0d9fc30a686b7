"""Errors that a person can fix name the field, the rule and the value."""

from __future__ import annotations

import pytest

from diffusion.errors import InputError, closest, nearest, range_hint, require


def test_a_broken_rule_is_stated_with_its_field_and_value() -> None:
    with pytest.raises(InputError, match=r"^sampler\.steps: must be at least 1, got 0$"):
        require(False, "sampler.steps", "at least 1", 0)


@pytest.mark.parametrize("condition", [True, 3, "text", [0]])
def test_whatever_counts_as_true_is_a_condition_that_holds(condition: object) -> None:
    require(condition, "field", "rule", None)


@pytest.mark.parametrize("condition", [False, 0, "", [], None])
def test_whatever_counts_as_false_is_a_condition_that_does_not_hold(condition: object) -> None:
    with pytest.raises(ValueError, match=r"^field: must be rule, got None$"):
        require(condition, "field", "rule", None)


@pytest.mark.parametrize(
    ("word", "name"),
    [("cosin", "cosine"), ("COSINE", "cosine"), ("low_discrepancy", "low-discrepancy"), ("--batch", "batch"), (3, "")],
)
def test_the_nearest_name_is_offered_whatever_its_capitals_and_dashes(word: object, name: str) -> None:
    valid = ["cosine", "low-discrepancy", "batch"]
    assert closest(word, valid) == name
    assert nearest(word, valid) == (f"; did you mean {name}?" if name else "")
    assert nearest(word, valid, quoted=True) == (f"; did you mean {name!r}?" if name else "")


def test_values_out_of_range_are_told_by_what_they_likely_are() -> None:
    assert range_hint(0, 255) == "; divide values of 0 to 255 by 255"
    assert range_hint(0, 4095) == range_hint(0, 65535) == "; divide values of 0 to 65535 by 65535"
    assert range_hint(-1, 1) == "; values in [-1, 1] become (x + 1) / 2"
    assert range_hint(0, 1.02) == range_hint(-0.05, 1) == range_hint(-100, 3000) == ""
