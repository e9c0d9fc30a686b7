"""A folder that cannot be used is named by the option or key that gave it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import fails


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["inspect", "{none}"], "PATH"),
        (["distance", "{none}", "{shapes}"], "SAMPLES"),
        (["distance", "{shapes}", "{none}"], "REAL"),
        (["evaluate", "{run}", "--data", "{none}"], "--data"),
        (["evaluate", "{run}", "--data-path", "{none}"], "data.path"),
        (["evaluate", "{run}", "--method", "memorization:images={none}"], "memorization.images"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_it_is_named_by_what_gave_it(
    trained: Path,
    shapes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    field: str,
    kind: str,
) -> None:
    none = tmp_path / "none"
    if kind == "empty":
        none.mkdir()
    message = fails(capsys, *(text.format(none=none, shapes=shapes, run=trained) for text in arguments))
    assert message.startswith(f"error: {field}: ") and "none" in message
