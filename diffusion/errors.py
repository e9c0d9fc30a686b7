"""The errors that a person can mend, and their form."""

from __future__ import annotations


class InputError(ValueError):
    """Something given to the package cannot be used; the message names it, its value and what to do."""


def require(condition: object, field: str, rule: str, value: object) -> None:
    """Raises InputError "field: must be rule, got value" unless the condition holds."""
    if not condition:
        raise InputError(f"{field}: must be {rule}, got {value}")
