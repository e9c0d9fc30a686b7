"""Mutation testing of the theory: do the tests notice when a formula is changed?

    python -m benchmarks.mutants [FILES...] [--limit N] [--seed S] [--seconds S] [--out FILE] [--check]

A mutant is a file of the package with one small change: + for -, * for /, another comparison, a dropped `not`, c + 1
for a constant c, `max` for `min`, an `if` that never holds, `exp` for `expm1`, a dropped `sqrt`, a shifted index.
Strings, annotations, decorators and `raise` statements are left alone, as no test of a formula can see them.

FILES are paths like diffusion/samplers.py; by default they are all files of the theory that have a test file of their
own. Mutants are drawn at random from all of them, up to `--limit` and within `--seconds`. Each is written to a copy of
the package outside of the checkout, and the test file of the mutated file runs there, without the fixtures of
tests/conftest.py. A mutant that passes it survives and is listed. Some survivors are equivalent to the original. The
tests miss the others.
"""

from __future__ import annotations

import ast
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import common
from benchmarks.common import Goal, Rows
from benchmarks.faults import forked, single_threaded

ROOT = Path(__file__).parents[1]
COPIED = ("diffusion", "tests", "benchmarks", "configs")
THEORY = (
    "schedules",
    "gaussian",
    "denoiser",
    "noise_levels",
    "objectives",
    "grids",
    "samplers",
    "guidance",
    "distillation",
    "likelihood/*",
    "restoration/*",
)
# A mutant counts as noticed if it takes PATIENCE times as long as the original, and at least LEAST_S seconds.
PATIENCE, LEAST_S = 4.0, 10.0
KILLED_SHARE = 0.9

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}
# The comparison that differs at equality alone, and the one that is its opposite.
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
EXTREMES = {"min": "max", "clamp_min": "clamp_max", "amin": "amax", "minimum": "maximum"}
RENAMED = {**EXTREMES, **{new: old for old, new in EXTREMES.items()}, "expm1": "exp", "log1p": "log"}
DROPPED = {"sqrt", "square", "abs"}


@dataclass(frozen=True)
class Mutant:
    """One change: the bytes from `begin` to `end` of a source are replaced by `text`. `old` and `new` are its lines."""

    kind: str
    line: int
    begin: int
    end: int
    text: str
    old: str
    new: str

    def apply(self, source: str) -> str:
        """Returns the mutated source."""
        data = source.encode()
        return (data[: self.begin] + self.text.encode() + data[self.end :]).decode()


def mutants(source: str) -> list[Mutant]:
    """Returns every mutant of a module's source, in the order of its lines."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    lines = source.splitlines()
    found: dict[tuple[int, int, str], Mutant] = {}
    for kind, node, changed in _changes(ast.parse(source)):
        first, last = node.lineno, node.end_lineno or node.lineno
        begin, end = starts[first - 1] + node.col_offset, starts[last - 1] + (node.end_col_offset or 0)
        text = ast.unparse(changed)
        # An operand in place of an operation or a call may bind less tightly.
        if kind in ("not", "sign", "call") and isinstance(changed, ast.BinOp | ast.BoolOp | ast.Compare | ast.IfExp):
            text = f"({text})"
        head = lines[first - 1].encode()[: node.col_offset].decode()
        tail = lines[last - 1].encode()[node.end_col_offset or 0 :].decode()
        old = " ".join(line.strip() for line in lines[first - 1 : last])
        found[begin, end, text] = Mutant(kind, first, begin, end, text, old, (head + text + tail).strip())
    return sorted(found.values(), key=lambda mutant: (mutant.begin, mutant.end, mutant.text))


def _changes(tree: ast.AST) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    """Yields the kind of each change, the expression that it replaces, and what it is replaced by."""
    for node, in_index in _expressions(tree, in_index=False):
        if isinstance(node, ast.If | ast.IfExp):
            yield "branch", node.test, ast.Constant(value=False)
        elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            yield "operator", node, ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
        elif isinstance(node, ast.Compare):
            for i, operation in enumerate(node.ops):
                for other in COMPARISONS.get(type(operation), ()):
                    yield "comparison", node, ast.Compare(node.left, _with(node.ops, i, other()), node.comparators)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield "not", node, node.operand
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not in_index:
            yield "sign", node, node.operand
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield "constant", node, ast.Constant(value=not node.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            value = 1.0 if node.value == 0.5 else node.value + 1
            yield "index" if in_index else "constant", node, ast.Constant(value=value)
        elif isinstance(node, ast.Slice):
            for bound in (node.lower, node.upper):
                if isinstance(bound, ast.Name):
                    yield "index", bound, ast.BinOp(bound, ast.Add(), ast.Constant(value=1))
        elif isinstance(node, ast.Call):
            yield from _calls(node)


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in RENAMED:
        called = deepcopy(node.func)
        if isinstance(called, ast.Attribute):
            called.attr = RENAMED[name]
        else:
            called = ast.Name(id=RENAMED[name])
        yield "call", node, ast.Call(called, node.args, node.keywords)
    if name in DROPPED and node.args:
        yield "call", node, node.args[0]
    elif name in DROPPED and isinstance(node.func, ast.Attribute):
        yield "call", node, node.func.value


def _with(operations: Sequence[ast.cmpop], i: int, other: ast.cmpop) -> list[ast.cmpop]:
    return [other if j == i else operation for j, operation in enumerate(operations)]


def _expressions(node: ast.AST, *, in_index: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Yields each node that a test can see, and whether it is a part of an index."""
    if isinstance(node, ast.JoinedStr | ast.Raise | ast.Import | ast.ImportFrom | ast.arg):
        return
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return  # zip(strict=True) guards against what never happens.
    yield node, in_index
    hidden = {"annotation", "returns", "decorator_list", "bases", "type_params"}
    for name, value in ast.iter_fields(node):
        if name not in hidden:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    inside = isinstance(node, ast.Subscript) and name == "slice"
                    yield from _expressions(child, in_index=in_index or inside)


def mirrored(path: Path) -> Path:
    """Returns the test file of a file of the package: diffusion/likelihood/kl.py -> tests/likelihood/test_kl.py."""
    inside = path.relative_to("diffusion")
    return Path("tests") / inside.with_name(f"test_{inside.name}")


def theory(root: Path) -> list[Path]:
    """Returns the files of the theory that have a test file of their own, relative to the root."""
    paths = [path.relative_to(root) for name in THEORY for path in sorted((root / "diffusion").glob(f"{name}.py"))]
    return [path for path in paths if (root / mirrored(path)).is_file()]


def copy(root: Path, place: Path) -> Path:
    """Copies the package and its tests into a folder, without compiled files, and returns that folder."""
    for name in COPIED:
        shutil.copytree(root / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", place)
    return place


def passes(place: Path, tests: Path, log: Path, limit: float) -> bool:
    """Whether a test file of a copy passes within a time limit, in a child process that imports the copy afresh."""

    def work() -> int:
        for name in list(sys.modules):
            if name.partition(".")[0] in ("diffusion", "tests"):
                del sys.modules[name]
        sys.path.insert(0, str(place))
        # A mutant of the same size and time stamp would be taken for the module compiled before.
        sys.dont_write_bytecode = True
        os.chdir(place)
        # Plugins, and the options of pyproject.toml that ask for them, would take longer to load than most tests take.
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        options = ["-x", "-q", "-o", "addopts=", "--import-mode=importlib", "--noconftest", "-p", "no:cacheprovider"]
        code = pytest.main([*options, str(tests)])
        package = sys.modules.get("diffusion")
        if package is not None and not str(package.__file__).startswith(str(place)):
            raise RuntimeError(f"the tests ran on {package.__file__} instead of the copy")
        return int(code)

    return forked(work, log, after=limit, number=signal.SIGKILL) == 0


@dataclass(frozen=True)
class Tried:
    """A mutant of a file, and whether the tests noticed it."""

    path: Path
    mutant: Mutant
    killed: bool


def survey(
    place: Path, paths: Sequence[Path], *, limit: int, seed: int, seconds: float, log: Path
) -> tuple[list[Tried], list[Path]]:
    """Tries mutants of files of a copy, drawn at random, until the limit or the time is reached.

    Returns them, and the files whose tests fail without any change, of which no mutant is tried.
    """
    begin = time.monotonic()
    limits, failing = {}, []
    for path in paths:
        start = time.monotonic()
        if passes(place, mirrored(path), log, 600.0):
            limits[path] = max(LEAST_S, PATIENCE * (time.monotonic() - start))
        else:
            failing.append(path)
    sources = {path: (place / path).read_text(encoding="utf-8") for path in limits}
    drawn = [(path, mutant) for path in limits for mutant in mutants(sources[path])]
    random.Random(seed).shuffle(drawn)
    tried: list[Tried] = []
    for path, mutant in drawn[:limit]:
        if time.monotonic() - begin > seconds:
            break
        (place / path).write_text(mutant.apply(sources[path]), encoding="utf-8")
        killed = not passes(place, mirrored(path), log, limits[path])
        (place / path).write_text(sources[path], encoding="utf-8")
        tried.append(Tried(path, mutant, killed))
        if not killed:
            print(f"{path}:{mutant.line} {mutant.kind}\n  - {mutant.old}\n  + {mutant.new}", flush=True)
    return tried, failing


def rows(tried: Sequence[Tried]) -> tuple[Rows, Rows]:
    """Returns the counts of each file, and the survivors."""
    counts: Rows = []
    for path in dict.fromkeys(each.path for each in tried):
        mine = [each for each in tried if each.path == path]
        killed = sum(each.killed for each in mine)
        counts.append({"file": str(path), "mutants": len(mine), "killed": killed, "survived": len(mine) - killed})
    survivors: Rows = [
        {"place": f"{each.path}:{each.mutant.line}", "old": each.mutant.old, "new": each.mutant.new}
        for each in sorted(tried, key=lambda each: (str(each.path), each.mutant.begin))
        if not each.killed
    ]
    return sorted(counts, key=lambda row: str(row["file"])), survivors


def main() -> None:
    """Tries mutants and prints the survivors."""
    options = common.parser(__doc__, "mutants")
    options.add_argument("files", nargs="*", type=Path, help="files of the package; all of the theory by default")
    options.add_argument("--limit", type=int, default=1000, help="mutants at most")
    options.add_argument("--seed", type=int, default=0, help="seed of the order in which mutants are drawn")
    options.add_argument("--seconds", type=float, default=600.0, help="time limit, after which the last mutant ends")
    chosen = options.parse_args()
    single_threaded()
    paths = [path.resolve().relative_to(ROOT) for path in chosen.files] or theory(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        place = copy(ROOT, Path(folder).resolve() / "copy")
        log = Path(folder) / "log"
        tried, failing = survey(place, paths, limit=chosen.limit, seed=chosen.seed, seconds=chosen.seconds, log=log)
    for path in failing:
        print(f"{path}: {mirrored(path)} fails without a mutant")
    counts, survivors = rows(tried)
    share = sum(each.killed for each in tried) / len(tried) if tried else float("nan")
    goals = [
        Goal("share of mutants killed", share, KILLED_SHARE),
        Goal("test files that fail without a mutant", len(failing), 0, "at most"),
    ]
    tables = {"Mutants": counts, "Survivors": survivors}
    shown = {name: table for name, table in tables.items() if table}
    common.finish(goals, shown, chosen.out, check=chosen.check, values="counts, and lines of the source")


if __name__ == "__main__":
    main()
