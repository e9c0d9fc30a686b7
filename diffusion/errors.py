"""The errors that a person can fix, and the form of their messages."""

from __future__ import annotations


class InputError(ValueError):
    """Something given to the package cannot be used; the message names it and its value, and says what to do."""


def require(condition: object, field: str, rule: str, value: object) -> None:
    """Raises InputError with the message "`field`: must be `rule`, got `value`" unless the condition holds."""
    if not condition:
        raise InputError(f"{field}: must be {rule}, got {value}")


def range_hint(least: float, most: float) -> str:
    """Returns what values from `least` to `most`, which should lie in [0, 1], likely are and how to convert them.

    It begins with a semicolon, as the end of a message; it is empty where nothing is likely.
    """
    if least >= 0 and 1.5 < most <= 255:
        return "; divide values of 0 to 255 by 255"
    if least >= 0 and 255 < most <= 65535:
        return "; divide values of 0 to 65535 by 65535"
    if -1 <= least < -0.1 and most <= 1:
        return "; values in [-1, 1] become (x + 1) / 2"
    return ""
