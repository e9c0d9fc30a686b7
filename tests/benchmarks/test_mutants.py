"""The mutation tester: each kind of change is the one that it claims, and survivors are told from what tests notice."""

from __future__ import annotations

import ast
import gc
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import mutants
from benchmarks.mutants import ROOT, Mutant, mirrored, passes, rows, survey, theory

TOY = '''
"""A module with 2 constants in its docstring."""

from __future__ import annotations

TABLE: dict[str, tuple[int, float]] = {}


def excess(x: float, low: float = 2.5) -> float:
    """Returns x - low, and 0 below it."""
    if not x > low:
        return 0.0
    return x - low


def unseen(x: float) -> float:
    return x * 3
'''
TEST = """
from diffusion.toy import excess

def test_excess():
    assert excess(4.0) == 1.5 and excess(2.5) == 0 and excess(1.0) == 0
"""


def made(statement: str) -> set[tuple[str, str]]:
    return {(mutant.kind, mutant.new) for mutant in mutants.mutants(statement)}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("y = a + b", {("operator", "y = a - b")}),
        ("y = a - (b - c)", {("operator", "y = a + (b - c)"), ("operator", "y = a - (b + c)")}),
        ("y = σ / (α * b)", {("operator", "y = σ * (α * b)"), ("operator", "y = σ / (α / b)")}),
        ("y = a < b", {("comparison", "y = a <= b"), ("comparison", "y = a >= b")}),
        ("y = a >= b", {("comparison", "y = a > b"), ("comparison", "y = a < b")}),
        ("y = a == b", {("comparison", "y = a != b")}),
        ("y = a is None", {("comparison", "y = a is not None")}),
        (
            "y = a <= b < c",
            {("comparison", f"y = {new}") for new in ("a < b < c", "a > b < c", "a <= b <= c", "a <= b >= c")},
        ),
        ("y = not (a or b)", {("not", "y = (a or b)")}),
        ("y = -(a ** b) * c", {("sign", "y = (a ** b) * c"), ("operator", "y = -a ** b / c")}),
        ("y = f(3)", {("constant", "y = f(4)")}),
        ("y = f(0.5, dim=True)", {("constant", "y = f(1.0, dim=True)"), ("constant", "y = f(0.5, dim=False)")}),
        ("y = min(a, b)", {("call", "y = max(a, b)")}),
        ("y = x.clamp_min(a)", {("call", "y = x.clamp_max(a)")}),
        ("y = torch.maximum(a, b)", {("call", "y = torch.minimum(a, b)")}),
        ("y = math.expm1(h)", {("call", "y = math.exp(h)")}),
        ("y = x.log1p()", {("call", "y = x.log()")}),
        ("y = math.sqrt(h)", {("call", "y = h")}),
        ("y = (a ** b).sqrt()", {("call", "y = (a ** b)")}),
        ("y = x[0]", {("index", "y = x[1]")}),
        ("y = x[:-1]", {("index", "y = x[:-2]")}),
        ("y = x[1:k]", {("index", "y = x[2:k]"), ("index", "y = x[1:k + 1]")}),
        ("if a:\n    b()", {("branch", "if False:")}),
        ("y = b if a else c", {("branch", "y = b if False else c")}),
    ],
)
def test_each_kind_makes_the_change_it_claims(statement: str, expected: set[tuple[str, str]]) -> None:
    assert made(statement) == expected


@pytest.mark.parametrize(
    "statement",
    [
        '"""Equation 3."""',
        'y = "2 + 2"',
        'y = f"{a + 1}"',
        'raise ValueError("at most", 3 + n)',
        "x: tuple[int, Literal[3]]",
        "def f(x: Literal[3]) -> Literal[4]: ...",
        "@cache(3)\ndef f(): ...",
        "class A(B[3]): ...",
        "from a import b",
        "y = a ** b",
        "y = zip(a, b, strict=True)",
    ],
)
def test_what_no_test_can_see_is_left_alone(statement: str) -> None:
    assert made(statement) == set()


def test_a_mutant_changes_its_own_place_alone() -> None:
    source = "x = 1\nα = (\n    b  +  c,\n    d + e,\n)  # a + b\n"
    found = [mutant for mutant in mutants.mutants(source) if mutant.kind == "operator"]
    assert [mutant.line for mutant in found] == [3, 4]
    assert found[0].apply(source) == source.replace("b  +  c", "b - c") and found[0].old == "b  +  c,"
    spread = "y = f(\n    a\n    + b\n)\n"
    (only,) = mutants.mutants(spread)
    assert (only.line, only.old, only.new) == (2, "a + b", "a - b") and only.apply(spread) == "y = f(\n    a - b\n)\n"


@pytest.mark.parametrize("path", theory(ROOT), ids=str)
def test_every_mutant_of_the_theory_is_a_program(path: Path) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    found = mutants.mutants(source)
    assert found and len({mutant.apply(source) for mutant in found}) == len(found)
    for mutant in found[:: max(1, len(found) // 10)]:
        changed = mutant.apply(source)
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))


def test_the_theory_is_what_has_tests_of_its_own() -> None:
    found = theory(ROOT)
    assert Path("diffusion/samplers.py") in found and Path("diffusion/likelihood/kl.py") in found
    assert Path("diffusion/restoration/__init__.py") not in found and Path("diffusion/config.py") not in found
    assert mirrored(Path("diffusion/likelihood/kl.py")) == Path("tests/likelihood/test_kl.py")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A package of one module and its test."""
    for folder in ("diffusion", "tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "diffusion" / "__init__.py").write_text("")
    (tmp_path / "diffusion" / "toy.py").write_text(TOY)
    (tmp_path / "tests" / "test_toy.py").write_text(TEST)
    # Pytest collects garbage at its end. In a fork that would copy all objects of this process.
    gc.freeze()
    yield tmp_path
    gc.unfreeze()


def test_survivors_are_told_from_what_tests_notice(place: Path) -> None:
    path = Path("diffusion/toy.py")
    tried, failing = survey(place, [path], limit=100, seed=0, seconds=100, log=place / "log")
    assert failing == [] and (place / path).read_text() == TOY, "the source is put back"
    survived = {each.mutant.new for each in tried if not each.killed}
    # At equality the excess is 0 on either side, and nobody looks at the other function.
    assert survived == {"if not x >= low:", "return x / 3", "return x * 4"}
    assert {each.mutant.new for each in tried if each.killed} == {
        "def excess(x: float, low: float = 3.5) -> float:",
        "if False:",
        "if (x > low):",
        "if not x <= low:",
        "return 1.0",
        "return x + low",
    }
    counts, listed = rows(tried)
    assert counts == [{"file": "diffusion/toy.py", "mutants": 9, "killed": 6, "survived": 3}]
    assert listed[0] == {"place": "diffusion/toy.py:11", "old": "if not x > low:", "new": "if not x >= low:"}


def test_a_limit_a_seed_and_a_budget_choose_the_mutants(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "passes", lambda *_: True)

    def drawn(**options: float) -> list[Mutant]:
        chosen = {"limit": 3, "seed": 0, "seconds": 100.0, **options}
        return [each.mutant for each in survey(place, [Path("diffusion/toy.py")], log=place / "log", **chosen)[0]]

    assert len(drawn()) == 3 and drawn() == drawn() != drawn(seed=1)
    assert len(drawn(limit=50)) == 9 and drawn(seconds=-1.0) == []


def test_what_does_not_end_is_noticed_and_what_fails_by_itself_is_named(place: Path) -> None:
    slow = place / "tests" / "test_slow.py"
    slow.write_text("import time\n\ndef test_slow():\n    time.sleep(30)\n")
    assert not passes(place, Path("tests/test_slow.py"), place / "log", 1.0)
    (place / "tests" / "test_toy.py").write_text("def test_toy():\n    assert False\n")
    tried, failing = survey(place, [Path("diffusion/toy.py")], limit=9, seed=0, seconds=9, log=place / "log")
    assert tried == [] and failing == [Path("diffusion/toy.py")]


def test_the_command_works_on_a_copy(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("benchmarks", "configs"):
        (place / name).mkdir()
    (place / "pyproject.toml").write_text("")
    monkeypatch.setattr(mutants, "ROOT", place)
    out = place / "found.json"
    command = ["mutants", str(place / "diffusion" / "toy.py"), "--limit", "2", "--seed", "3", "--out", str(out)]
    monkeypatch.setattr("sys.argv", command)
    before = sorted(path for path in place.rglob("*"))
    mutants.main()
    record = json.loads(out.read_text())
    assert record["tables"]["Mutants"][0]["mutants"] == 2
    assert [goal["name"] for goal in record["goals"]] == [
        "share of mutants killed",
        "test files that fail without a mutant",
    ]
    assert (place / "diffusion" / "toy.py").read_text() == TOY
    assert sorted(path for path in place.rglob("*")) == sorted([*before, out])
