"""The errors that a person can fix, and the form of their messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something given to the package cannot be used; the message names it and its value, and says what to do."""


def require(condition: object, field: str, rule: str, value: object) -> None:
    """Raises InputError with the message "`field`: must be `rule`, got `value`" unless the condition holds."""
    if not condition:
        raise InputError(f"{field}: must be {rule}, got {value}")


def require_one(value: object, field: str, valid: Iterable[str]) -> None:
    """Raises InputError, which names the nearest one, unless a value is one of the `valid` words."""
    words = [*valid]
    if not isinstance(value, str) or value not in words:
        raise InputError(f"{field}: must be one of {', '.join(words)}, got {value!r}{nearest(value, words)}")


def nearest(word: object, valid: Iterable[str], *, quoted: bool = False) -> str:
    """Returns "; did you mean NAME?" with the name of `valid` that is most like a word; empty where none is like it."""
    name = closest(word, valid)
    return f"; did you mean {name!r}?" if name and quoted else f"; did you mean {name}?" if name else ""


def closest(word: object, valid: Iterable[str]) -> str:
    """Returns the name of `valid` that is most like a word, empty where none is like it.

    Capitals do not matter, nor whether parts are joined by a dash or by an underscore.
    """
    plain = {_plain(name): name for name in valid}
    near = difflib.get_close_matches(_plain(str(word)), plain, 1)
    return plain[near[0]] if near else ""


def _plain(name: str) -> str:
    return name.strip().lstrip("-").casefold().replace("_", "-")


def range_hint(least: float, most: float) -> str:
    """Returns what values from `least` to `most`, which should lie in [0, 1], likely are and how to convert them.

    It begins with a semicolon, as the end of a message; it is empty where nothing is likely.
    """
    if least >= 0 and 1.5 < most <= 255:
        return "; divide values of 0 to 255 by 255"
    if least >= 0 and 255 < most <= 65535:
        return "; divide values of 0 to 65535 by 65535"
    if -1.25 <= least < -0.1 and most <= 1.25:  # Some rounding and ringing beyond [-1, 1] is usual.
        return "; values in [-1, 1] become (x + 1) / 2"
    return ""
