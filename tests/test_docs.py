"""The documentation names only what exists: files, modules, commands, options and keys of a configuration."""

from __future__ import annotations

import ast
import importlib
import math
import re
import shlex
import sys
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch
import tyro

from diffusion import cli, config, operators, samplers
from diffusion.commands import evaluate
from diffusion.commands.options import Evaluate, Restore
from diffusion.data import Dataset, DataSpec, sources
from diffusion.denoiser import Denoiser, V
from diffusion.evaluation import Evaluation, Evaluator, Setting
from diffusion.model import Model
from diffusion.operators import Linear, Operator
from diffusion.samplers import Sampler, sample
from diffusion.schedules import EDM, Cosine
from tests.conftest import ROOT
from tests.oracles import GaussianOracle, OracleNetwork, correlated

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted((ROOT / "docs").glob("*.md"))
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
EACH = pytest.mark.parametrize("page", TEXTS)
SHOWN = ("tests", "benchmarks", "configs", "docs")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def spans(text: str) -> list[str]:
    """Returns the inline code of a page."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", prose)]


def file_map() -> list[tuple[str, str]]:
    """Returns the paths of the file map in order, each with its clause; a folder ends with a slash.

    A line begins with a path from the root, or is indented below the last folder that does. The bare line `diffusion/`,
    which has no clause, is left out.
    """
    section = TEXTS["docs/architecture.md"].partition("\n## File map\n")[2].partition("\n## ")[0]
    found, folder = [], ""
    for line in "".join(blocks(section, "")).splitlines():
        name, _, clause = line.strip().partition(" ")
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
        if line != "diffusion/":
            found.append((f"{folder}{name}" if line.startswith(" ") else name, clause.strip()))
    return found


def test_the_file_map_has_every_file_of_the_package_once() -> None:
    """The line of a folder stands for its `__init__.py`."""
    files = [path.relative_to(ROOT) for path in (ROOT / "diffusion").rglob("*.py")]
    expected = {f"{path.parent}/" if path.name == "__init__.py" else str(path) for path in files}
    listed = [path for path, _ in file_map() if path.startswith("diffusion/")]
    assert len(listed) == len(set(listed))
    assert sorted(expected - set(listed)) == [], "add a line for each to the file map of docs/architecture.md"
    assert sorted(set(listed) - expected) == [], "these are gone"


def test_the_file_map_has_every_folder_beside_the_package() -> None:
    listed = [path for path, _ in file_map() if not path.startswith("diffusion/")]
    assert len(listed) == len(set(listed)) and all((ROOT / path).exists() for path in listed)
    for name in SHOWN:
        inner = [path for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".toml", ".md", ".png", ".yaml")]
        # Golden checkpoints are data, a folder for each format.
        folders = {f"{path.parent.relative_to(ROOT)}/" for path in inner}
        assert folders <= set(listed)


def test_every_line_of_the_file_map_has_a_clause() -> None:
    assert [path for path, clause in file_map() if len(clause.split()) < 2] == []


@EACH
def test_python_imports_what_exists(page: str) -> None:
    for block in blocks(TEXTS[page], "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Returns the commands of this package in the shell blocks of a page: the name and the arguments of each."""
    for line in "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines():
        for command in re.split(r"&&|\||;", line.partition(" # ")[0]):
            words = shlex.split(command)
            for i, word in enumerate(words):
                if word in ("diffusion", ".venv/bin/diffusion") and len(words) > i + 1:
                    yield words[i + 1], words[i + 2 :]
                    break
                if Path(word).name in ("train.py", "sample.py"):
                    yield Path(word).stem, words[i + 1 :]
                    break


@EACH
def test_commands_are_understood(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of a shell block is parsed as by a shell, and not run."""
    chosen: list[object] = []
    monkeypatch.setattr(cli, "run", lambda options: chosen.append(options) or 0)
    for name, arguments in commands(TEXTS[page]):
        assert cli.main([name, *arguments]) == 0, (name, arguments)
    for options in chosen:
        if isinstance(options, Evaluate):
            evaluate.chosen(options)
        if isinstance(options, Restore):
            operators.parse(options.operator)
        for override in getattr(options, "overrides", ()):
            assert known(override.partition("=")[0]), override


def test_there_are_commands_to_check() -> None:
    assert len(list(commands(TEXTS["README.md"]))) >= 8
    assert {name for page in TEXTS for name, _ in commands(TEXTS[page])} >= {
        "train",
        "sample",
        "inpaint",
        "restore",
        "evaluate",
        "distill",
    }


def options_of(kind: type) -> set[str]:
    """Returns the options of a command as a user writes them."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found: set[str] = set()
    for field in fields(kind):
        bare = typing.get_type_hints(kind)[field.name]
        if is_dataclass(bare):
            found |= options_of(bare)  # type: ignore[arg-type]
        elif tyro.conf.Positional not in getattr(hints[field.name], "__metadata__", ()):
            name = field.name.replace("_", "-")
            found |= {f"--{name}", f"--no-{name}"} if bare is bool else {f"--{name}"}
    return found


OPTIONS = {name: options_of(command.options) for name, command in cli.COMMANDS.items()}
SCRIPTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").rglob("*.py"))
# Options of programs that are not of this package.
FOREIGN = {"--help", "--check", "--nproc-per-node", "--num_processes", "--config_file", "--standalone"}
FOREIGN |= {"--cpu", "--machine_rank", "--requeue"}


def test_options_are_read_from_the_dataclasses() -> None:
    assert {"--n", "--steps", "--film", "--no-film"} <= OPTIONS["sample"] and "--run" not in OPTIONS["sample"]
    assert OPTIONS["doctor"] == {"--out"}


@EACH
def test_inline_commands_and_options_exist(page: str) -> None:
    anywhere = set().union(*OPTIONS.values())
    for span in spans(TEXTS[page]):
        words = span.split()
        if words[0] == "diffusion" and len(words) > 1:
            assert words[1] in (*cli.COMMANDS, cli.COMPLETION), span
        own = {"train.py": "train", "sample.py": "sample", "diffusion": words[1] if len(words) > 1 else ""}
        name = own.get(words[0].rpartition("/")[2], "")
        for option in (word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)):
            of_scripts = f'"{option}"' in SCRIPTS or option.removeprefix("--") in ("files", "images")
            allowed = OPTIONS[name] if name else anywhere
            assert option in allowed | FOREIGN or (not name and of_scripts), f"{page}: {option} in `{span}`"


def known(key: str) -> bool:
    """Whether `section.field` is a key of the configuration, of any component of its section."""
    section, _, name = key.partition(".")
    kinds = [type(field.default) for field in fields(config.Config) if field.name == section]
    kinds = list(config.REGISTRIES.get(section, {}).values()) or kinds
    names = {field.name for kind in kinds for field in fields(kind)}
    return name in names | ({"name"} if section in config.REGISTRIES else set())


def test_keys_of_a_configuration_are_known() -> None:
    assert known("report.pictures") and known("noise_levels.uniform") and known("grid.name")
    assert not known("report.grid") and not known("data.name") and not known("sampler.steps")


@EACH
def test_keys_of_a_configuration_exist(page: str) -> None:
    sections = [field.name for field in fields(config.Config)]
    for span in spans(TEXTS[page]):
        for key in re.findall(
            rf"\b((?:{'|'.join(sections)})\.[a-z_]+)\s*=|^((?:{'|'.join(sections)})\.[a-z_]+)$", span
        ):
            name = key[0] or key[1]
            # A file is not a key, be it of the package or of a run, nor is `model.sample`.
            is_file = (ROOT / "diffusion" / name).exists() or name.endswith(".html")
            if not is_file and not hasattr(Model, name.removeprefix("model.")):
                assert known(name), f"{page}: {name} in `{span}`"


@EACH
def test_paths_and_modules_exist(page: str) -> None:
    text = TEXTS[page]
    for name in re.findall(r"python -m (benchmarks(?:\.\w+)+)", text):
        assert importlib.util.find_spec(name.rstrip(".")), name
    for path in re.findall(r"`((?:tests|diffusion|configs|docs|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / path).exists() or f"One new file. `{path}`" in text, f"{page}: {path}"
    for path in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (PAGES[list(TEXTS).index(page)].parent / path).exists(), f"{page}: {path}"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_comments_of_configurations_name_commands_that_exist(path: Path) -> None:
    comments = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    for override in re.findall(r"\b([a-z_]+\.[a-z_]+)=", comments):
        assert known(override)
    assert config.load(path).data.source in sources.SOURCES


def example(number: int, name: str, monkeypatch: pytest.MonkeyPatch, **names: object) -> ModuleType:
    """Runs the code of an example of CONTRIBUTING.md as a module, which has `names` beforehand, and returns it."""
    module = ModuleType(name)
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, name, module)
    exec(blocks(TEXTS["CONTRIBUTING.md"], "python")[number], vars(module))
    return module


def test_the_sampler_of_the_example_is_of_second_order(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {name: value for name, value in vars(samplers).items() if not name.startswith("__")}
    made = example(0, "example_sampler", monkeypatch, **given).DPMSolver2S()
    assert isinstance(made, Sampler) and made.nfe_per_step == 2
    oracle = correlated(Cosine())
    start = 3 * torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def error(steps: int) -> float:
        times = oracle.schedule.time(torch.linspace(-4, 4, steps + 1, dtype=torch.float64))
        return float((sample(oracle, made, start, times) - oracle.flow(start, times[0], times[-1])).norm())

    assert math.log2(error(32) / error(64)) == pytest.approx(2, abs=0.1)


def test_the_operator_of_the_example_changes_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: dict[str, type[Operator]] = example(1, "example_operator", monkeypatch).OPERATORS
    operator = kinds["interlace"]()
    assert isinstance(operator, Linear) and kinds == {"interlace": type(operator)}
    x = torch.arange(24.0, dtype=torch.float64).reshape(1, 1, 6, 4)
    assert torch.equal(operator(x), x[:, :, [0, 2, 4]]) and operator.size_before((3, 4)) == (6, 4)
    least = torch.zeros_like(x)
    least[:, :, ::2] = operator(x)
    assert torch.allclose(operator.pinv(operator(x), x), least)
    with pytest.raises(ValueError, match=r"^interlace:every=2: must be given a height it divides, got 5$"):
        operator(x[:, :, :5])


def test_the_evaluator_of_the_example_measures_a_known_error(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: dict[str, type[Evaluator]] = example(2, "example_evaluator", monkeypatch).EVALUATORS
    white = GaussianOracle(EDM(), torch.zeros(1, 8, 8, dtype=torch.float64), torch.eye(64, dtype=torch.float64))
    network = OracleNetwork(white, V())
    model = Model(Denoiser(network, white.schedule, V()), DataSpec((1, 8, 8), None), config.Config())  # type: ignore[arg-type]
    x = torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    examples = Dataset(x, model.spec, None, [str(i) for i in range(50)])
    found = kinds["denoising"](log_snr=0.0)(model, examples, Setting(limit=40))  # type: ignore[call-arg]
    assert isinstance(found, Evaluation) and found.examples == len(found.values) == 40
    # The variance of white data given x_t is 1/(1 + SNR).
    assert found.mean["error"] == pytest.approx(math.sqrt(0.5), rel=0.02)
    assert found.terms["error"].half_width < 0.05
