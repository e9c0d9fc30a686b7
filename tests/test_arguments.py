"""Arguments before they are parsed: their order, mistakes in one line, and paths as people write them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from diffusion.arguments import Argument, arguments_of, arranged, with_expanded_paths
from diffusion.commands import options
from diffusion.errors import InputError


@dataclass(frozen=True)
class Inner:
    paths: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Some:
    """Options of every kind."""

    run: options.common.Run
    size: tuple[int, int] = (1, 1)
    weights: tuple[float, ...] = ()
    kind: Literal["round", "square"] | None = None
    flag_one: bool = False
    out: Path | None = None
    inner: Annotated[Inner, tyro.conf.arg(name="")] = field(default=Inner())


def test_the_arguments_of_every_kind_of_field() -> None:
    assert [*arguments_of(Some)] == [
        Argument(("RUN",), (Path,), many=False, positional=True, required=True),
        Argument(("--size",), (int, int), many=False, positional=False, required=False),
        Argument(("--weights",), (float,), many=True, positional=False, required=False),
        Argument(("--kind",), (Literal["round", "square"],), many=False, positional=False, required=False),
        Argument(("--flag-one", "--no-flag-one"), (), many=False, positional=False, required=False),
        Argument(("--out",), (Path,), many=False, positional=False, required=False),
        Argument(("--paths",), (Path,), many=True, positional=False, required=False),
    ]


@pytest.mark.parametrize(
    "given",
    [
        ["a.toml", "training.steps=4", "data.path=x=y", "--out", "r=1", "--strict"],
        ["--out", "r=1", "a.toml", "training.steps=4", "--strict", "data.path=x=y"],
        ["training.steps=4", "--strict", "--out", "r=1", "data.path=x=y", "a.toml"],
        ["training.steps=4", "a.toml", "--strict", "data.path=x=y", "--out", "r=1"],
    ],
)
def test_overrides_may_stand_anywhere_and_values_of_options_are_none(given: list[str]) -> None:
    found = arranged(given, options.Train, "train")
    parsed = tyro.cli(options.Train, args=found)
    assert parsed == options.Train(Path("a.toml"), ("training.steps=4", "data.path=x=y"), Path("r=1"), strict=True)


@pytest.mark.parametrize("value", ["training.steps=4", "--out=training.steps=4"])
def test_a_value_of_an_option_may_look_like_an_override(value: str) -> None:
    given = ["--out", value] if value[0] != "-" else [value]
    parsed = tyro.cli(options.Train, args=arranged(["a.toml", *given], options.Train, "train"))
    assert parsed == options.Train(Path("a.toml"), out=Path("training.steps=4"))


def test_images_may_stand_around_options_too() -> None:
    given = ["run", "a.png", "--mask", "m.png", "b.png", "--n=3", "c=d.png"]
    parsed = tyro.cli(options.Inpaint, args=arranged(given, options.Inpaint, "inpaint"))
    assert parsed.images == (Path("a.png"), Path("b.png"), Path("c=d.png"))
    assert parsed.mask == Path("m.png") and parsed.options.draw.n == 3


def test_options_of_several_values_and_flags_take_what_is_theirs() -> None:
    given = ["--size", "2", "3", "run", "--flag-one", "--weights", "1", "2", "--kind", "round"]
    parsed = tyro.cli(Some, args=arranged(given, Some, "some"))
    assert parsed == Some(Path("run"), (2, 3), (1.0, 2.0), "round", flag_one=True)
    assert arranged(["--flag-one", "run"], Some, "some") == ["run", "--flag-one"]
    assert arranged(["run", "--seed", "-1"], options.Sample, "sample") == ["run", "--seed", "-1"]


def test_a_value_may_be_the_flags_of_another_program() -> None:
    given = ["model.pt", "--flags", "--image_size 64 --class_cond True", "--out", "x"]
    assert arranged(given, options.Import, "import") == [
        *("model.pt", "--flags=--image_size 64 --class_cond True", "--out", "x")
    ]


def test_help_is_left_to_tyro() -> None:
    for given in (["--strict", "-h"], ["--nonsense", "--help"], ["a", "b", "--tyro-print-completion", "bash"]):
        assert arranged(given, options.Train, "train") == given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["run", "--flag-on"], "--flag-on: no such option of some; did you mean --flag-one?"),
        (["run", "--mask", "m"], "--mask: no such option of some; inpaint has it"),
        (["run", "--xyzzy"], "--xyzzy: no such option of some; all are shown by: diffusion some --help"),
        (["run", "--size", "2", "x"], "--size: must be a whole number, got 'x'"),
        (["run", "--weights=1e"], "--weights: must be a number, got '1e'"),
        (["run", "--kind", "sqare"], "--kind: must be one of round, square, got 'sqare'; did you mean square?"),
        ([], "RUN: is missing; the command is: diffusion some RUN"),
        (
            ["my", "run"],
            "'run': is one too many; the command is: diffusion some RUN; a name with spaces needs quotes",
        ),
    ],
)
def test_a_mistake_is_one_line_that_says_what_is_meant(given: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        arranged(given, Some, "some", [("inpaint", options.Inpaint)])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (["--training.batch=4"], "training.batch=4"),
        (["--training.batch", "4"], "training.batch=VALUE"),
        (["--batch=4"], "training.batch=4"),
        (["--label-dropout", "0.1"], "training.label_dropout=VALUE"),
        (["--steps=4"], "training.steps=4 or sampling.steps=4"),
    ],
)
def test_an_override_that_is_written_as_an_option_is_shown_as_one(given: list[str], written: str) -> None:
    name = given[0].partition("=")[0]
    with pytest.raises(InputError) as caught:
        arranged(["a.toml", *given], options.Train, "train", [("sample", options.Sample)])
    assert str(caught.value) == f"{name}: an override is written without dashes, as in {written}"


def test_a_missing_configuration_is_not_taken_from_the_overrides() -> None:
    with pytest.raises(InputError, match=r"^CONFIG: is missing; the command is: diffusion train CONFIG SECTION\.KEY"):
        arranged(["training.steps=4"], options.Train, "train")


def test_paths_are_expanded_wherever_options_hold_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    given = Some(Path("~/run"), out=Path("$DATA/out"), inner=Inner((Path("${DATA}/a"), Path("b"))))
    expected = Some(Path("/home/me/run"), out=Path("/data/out"), inner=Inner((Path("/data/a"), Path("b"))))
    assert with_expanded_paths(given) == expected
