"""The errors that a person can fix, and the form of their messages."""

from __future__ import annotations


class InputError(ValueError):
    """Something given to the package cannot be used; the message names it and its value, and says what to do."""


def require(condition: object, field: str, rule: str, value: object) -> None:
    """Raises InputError with the message "`field`: must be `rule`, got `value`" unless the condition holds."""
    if not condition:
        raise InputError(f"{field}: must be {rule}, got {value}")
