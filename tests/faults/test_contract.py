"""Every line of the contract names tests that exist."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [line for line in TEXT.splitlines() if re.match(r"\| *\d* *\| ", line) and "held by" not in line]


def test_the_table_has_all_ten_promises() -> None:
    assert [int(n) for n in re.findall(r"^\| *(\d+) *\|", TEXT, re.MULTILINE)] == list(range(1, 11))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[2].strip()[:40])
def test_a_promise_names_tests_that_exist(row: str) -> None:
    named, path = re.findall(r"`((?:[\w/]+\.py)?(?:::\w+)?)`", row.rstrip(" |").rpartition(" | ")[2]), ""
    assert named
    for name in named:
        file, _, function = name.partition("::")
        path = file or path
        source = (ROOT / "tests" / path).read_text(encoding="utf-8")
        assert not function or f"\ndef {function}(" in source, name
