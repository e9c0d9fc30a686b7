"""The direction of imports and the promises of the house, read from the source."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import diffusion
from diffusion import config, operators
from diffusion.evaluation import EVALUATORS
from diffusion.restoration import methods, posterior
from tests.conftest import QUICK_FILES, QUICK_FOLDERS, SLOW, quick

ROOT = Path(diffusion.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
THEORY = {
    "levels",
    "schedules",
    "gaussian",
    "denoiser",
    "objectives",
    "noise_levels",
    "grids",
    "samplers",
    "distillation",
    "guidance",
    "holes",
    "families",
    "conditioning",
    "operators",
    "restoration",
    "likelihood",
    "precision",
    "distances",
    "thermodynamics",
    "clocks",
    "propagation",
}
LEAVES = {
    "progress",
    "interrupt",
    "randomness",
    "errors",
    "files",
    "memory",
    "devices",
    "launched",
    "distributed",
    "registries",
    "draw",
    "transfers",
    "threads",
}
STANDARD = set(sys.stdlib_module_names)


TESTS = ROOT.parent / "tests"


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def module(path: Path) -> str:
    """Returns the name of a file's module within the package, such as data.stream."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(nodes: Iterator[ast.AST]) -> set[str]:
    """Returns the imported modules: outside ones by their first name, ours by their name within the package."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "diffusion":
                found |= {f"diffusion.{alias.name}" for alias in node.names}
            else:
                found.add(str(node.module))
    return {name if name.startswith("diffusion.") else name.partition(".")[0] for name in found}


def all_imports(path: Path) -> set[str]:
    return imports(ast.walk(parsed(path)))


def ours(path: Path) -> set[str]:
    """Returns the rooms or root files that a file imports."""
    return {name.split(".")[1] for name in all_imports(path) if name.startswith("diffusion.")}


def others(path: Path) -> set[str]:
    return {name for name in all_imports(path) if not name.startswith("diffusion.")} - STANDARD


def files(*rooms: str) -> list[Path]:
    return [path for path in FILES if module(path).split(".")[0] in rooms]


def ids(path: Path) -> str:
    return module(path)


@pytest.mark.parametrize("path", [path for path in FILES if not path.name.startswith("__")], ids=ids)
def test_every_module_has_a_file_of_tests_at_its_place(path: Path) -> None:
    """The tests of diffusion/likelihood/kl.py are in tests/likelihood/test_kl.py."""
    inside = path.relative_to(ROOT)
    tests = TESTS / inside.with_name(f"test_{inside.name}")
    assert tests.is_file(), f"{inside} has no {tests.relative_to(ROOT.parent)}"
    assert any(
        isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        for node in ast.parse(tests.read_text()).body
    )


def test_what_is_named_quick_or_slow_exists() -> None:
    assert all((TESTS / name).is_dir() for name in QUICK_FOLDERS)
    assert all((TESTS / f"test_{name}.py").is_file() for name in QUICK_FILES)
    for name, slow in SLOW.items():
        assert quick(TESTS / name)
        body = ast.parse((TESTS / name).read_text()).body
        assert slow <= {node.name for node in body if isinstance(node, ast.FunctionDef)}, name


@pytest.mark.parametrize("path", files(*THEORY, *LEAVES), ids=ids)
def test_theory_knows_torch_and_itself(path: Path) -> None:
    assert others(path) <= ({"tqdm"} if module(path) == "progress" else {"torch"})
    leaves = {"errors", "progress", "devices", "launched", "threads", "transfers"}
    assert used(path) <= (leaves if module(path) in LEAVES else THEORY | LEAVES)


@pytest.mark.parametrize("path", files("backbones"), ids=ids)
def test_backbones_know_torch_and_einops(path: Path) -> None:
    assert others(path) <= {"torch", "einops"}
    assert ours(path) <= {"backbones", "errors"}


@pytest.mark.parametrize("path", files("data"), ids=ids)
def test_data_know_nothing_of_theory_networks_or_experiments(path: Path) -> None:
    assert ours(path) <= {"data"} | LEAVES


@pytest.mark.parametrize("path", files("reporting"), ids=ids)
def test_reports_read_runs_without_torch(path: Path) -> None:
    assert others(path) <= {"numpy", "PIL", "safetensors"}
    assert ours(path) <= {"reporting", "errors", "files"}


# Floors from the ground up. A room or a root file imports those below it and its own.
FLOORS: tuple[set[str], ...] = (
    LEAVES,
    THEORY | {"backbones", "data", "figures", "plots"},
    {"shipped", "compilation"},
    {"config", "checkpoint"},
    {"model"},
    {"exchange"},
    {"evaluation"},
    {"reporting"},
    {"training"},
    {"commands"},
    {"page"},
    {"cli", "arguments"},
    {"__main__", ""},
)
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names}


def used(path: Path) -> set[str]:
    """Returns the rooms or root files that a file imports when it runs, without those for its annotations alone."""
    tree = parsed(path)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = imports(node for node in ast.walk(tree) if id(node) not in typing_only)
    return {name.split(".")[1] for name in found if name.startswith("diffusion.")}


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_nothing_looks_upwards(path: Path) -> None:
    room = module(path).split(".")[0]
    assert {name for name in used(path) if name != room and FLOOR[name] > FLOOR[room]} == set()


def modules_imported(path: Path) -> set[str]:
    """Returns the modules of the package that a file imports, typing-only imports included."""
    names = {module(other) for other in FILES}
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "diffusion":
            base = str(node.module).removeprefix("diffusion").removeprefix(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".removeprefix(".")
                found.add(full if full in names else base)
    return found - {module(path)}


def test_no_circle_of_imports() -> None:
    """Imports for annotations count too. A package's own list of names in its `__init__` does not."""
    packages = {module(path) for path in FILES if path.name == "__init__.py"}
    graph = {module(path): modules_imported(path) - packages for path in FILES if module(path) not in packages}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"a circle of imports: {' -> '.join([*trail[trail.index(name) :], name])}"
        if name in done:
            return
        for other in sorted(graph.get(name, ())):
            visit(other, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_only_training_imports_accelerate() -> None:
    assert {module(path).split(".")[0] for path in FILES if "accelerate" in all_imports(path)} == {"training"}


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_no_pickle_is_read_or_written(path: Path) -> None:
    assert not all_imports(path) & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"torch.load", "torch.save", "eval", "exec", "compile"}
            if called in {"np.load", "numpy.load"}:
                assert "allow_pickle=False" in ast.unparse(node)


def test_the_command_line_imports_nothing_heavy_before_it_has_parsed() -> None:
    light = {"diffusion", "diffusion.arguments", "diffusion.commands", "diffusion.cli", "diffusion.draw"}
    light |= {"diffusion.errors", "diffusion.files", "diffusion.launched", "diffusion.registries"}
    options = sorted((ROOT / "commands" / "options").glob("*.py"))
    light |= {"diffusion.commands.options", *(f"diffusion.{module(path)}" for path in options)}
    for name in (
        *(str(path.relative_to(ROOT).with_suffix("")) for path in options),
        "cli",
        "arguments",
        "errors",
        "files",
        "launched",
        "draw",
        "registries",
        "commands/__init__",
        "__init__",
        "__main__",
    ):
        body = ast.parse((ROOT / f"{name}.py").read_text()).body
        assert imports(iter(body)) - STANDARD <= {"tyro", *light}, name


def registries() -> list[tuple[str, str, type]]:
    found = [
        *config.REGISTRIES.items(),
        ("covariance", {kind.__name__: kind for kind in posterior.Covariance.__subclasses__()}),
        ("operator", operators.OPERATORS),
        ("method", methods.METHODS),
        ("evaluator", EVALUATORS),
    ]
    return [(section, name, cls) for section, registry in found for name, cls in registry.items()]


@pytest.mark.parametrize(("section", "name", "cls"), registries())
def test_every_registered_component_is_a_frozen_dataclass_with_defaults(section: str, name: str, cls: type) -> None:
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert cls() == cls() and hash(cls()) == hash(cls())


def test_experiments_are_frozen_to_the_last_section() -> None:
    assert config.Config.__dataclass_params__.frozen  # type: ignore[attr-defined]
    for field in dataclasses.fields(config.Config):
        assert type(field.default).__dataclass_params__.frozen


def documented(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield f"{node.name}.{inner.name}", inner


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_whatever_is_public_says_what_it_is(path: Path) -> None:
    tree = parsed(path)
    assert ast.get_docstring(tree)
    silent = [name for name, node in documented(tree) if not ast.get_docstring(node)]  # type: ignore[arg-type]
    assert silent == []


@pytest.mark.parametrize("name", sorted({module(path) for path in FILES} - {"__main__"}))
def test_every_module_can_be_imported_and_exports_what_it_lists(name: str) -> None:
    loaded = importlib.import_module(f"diffusion.{name}" if name else "diffusion")
    for exported in getattr(loaded, "__all__", ()):
        assert hasattr(loaded, exported)
