"""The arguments of a command before tyro parses them, so that their order does not matter and mistakes are named in one
line; and paths in the options that tyro returns.

Options and positional arguments may be given in any order: `arranged` puts the positional ones first, and among these
overrides such as `training.steps=40` last.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from diffusion.errors import InputError, nearest, require_one
from diffusion.files import expanded

Options = TypeVar("Options")

OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)*=.*", re.DOTALL)
HELP = ("-h", "--help")
NUMBERS: dict[type, str] = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Argument:
    """An option or a positional argument of a command, by the `names` that it may be given under.

    `kinds` are the types or words of each of its values; `many` says that there may be any number of them. An option
    without values is a flag. `required` says that it has no default.
    """

    names: tuple[str, ...]
    kinds: tuple[object, ...]
    many: bool
    positional: bool
    required: bool


def arranged(arguments: Sequence[str], kind: type, command: str, others: Iterable[tuple[str, type]] = ()) -> list[str]:
    """Returns the arguments of a command with the positional ones first, and overrides last among these.

    `kind` is the class of the command's options, `others` are the names and classes of other commands.

    Raises InputError for an option that does not exist, for a value that is no number or no word of those allowed, and
    for more or fewer positional arguments than the command takes.
    """
    if any(word in HELP or word.startswith("--tyro-") for word in arguments):
        return [*arguments]
    known = [*arguments_of(kind)]
    named = {name: argument for argument in known if not argument.positional for name in argument.names}
    placed, given, waiting = [], [], [*arguments]
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        if not _is_option(word):
            placed.append(word)
            continue
        argument = named.get(name.replace("_", "-"))
        if argument is None:
            key = _override_of(name, value) if hasattr(kind, "overrides") else ""
            raise InputError(key or _unknown(name, command, named, others))
        values = [value] if equals else _taken(argument, waiting, named)
        _check(name, argument, values)
        # A value that looks like an option, as the flags of another program do, is taken for one unless it is joined.
        joined = not equals and len(values) == 1 and _is_option(values[0])
        given += [f"{word}={values[0]}"] if joined else [word, *([] if equals else values)]
    overrides = [word for word in placed if OVERRIDE.fullmatch(word)] if hasattr(kind, "overrides") else []
    placed = [word for word in placed if word not in overrides]
    positional = [argument for argument in known if argument.positional]
    _check_number(placed, positional, command)
    for argument, value in zip(positional, placed, strict=False):
        _check(argument.names[0], argument, [value])
    return [*placed, *overrides, *given]


def arguments_of(kind: type) -> Iterator[Argument]:
    """Yields the arguments that tyro makes of the fields of a dataclass, and of those that it holds without a name."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint: Any = hints[field.name]
        marks: Sequence[Any] = ()
        if get_origin(hint) is Annotated:
            hint, *marks = get_args(hint)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from arguments_of(hint)
            continue
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        positional, name = tyro.conf.Positional in marks, field.name.replace("_", "-")
        names: tuple[str, ...] = (f"--{name}", f"--no-{name}") if hint is bool else (f"--{name}",)
        if positional:
            names = (next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), name),)
        kinds, many = ((), False) if hint is bool else _values(hint)
        yield Argument(names, kinds, many, positional, required)


def _values(hint: object) -> tuple[tuple[object, ...], bool]:
    """The kinds of the values that a type takes on the command line, and whether there may be any number of them."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        return (parts[:1], True) if parts[-1] is ... else (parts, False)
    return (hint,), False


def _is_option(word: str) -> bool:
    """Whether an argument is meant as an option, as no negative number and no lone dash is."""
    return bool(re.match(r"--?[A-Za-z]", word))


def _taken(argument: Argument, waiting: list[str], named: dict[str, Argument]) -> list[str]:
    """Takes the values of an option from the arguments that follow it."""
    taken: list[str] = []
    while waiting and (argument.many or len(taken) < len(argument.kinds)):
        if waiting[0].partition("=")[0] in named or (argument.many and _is_option(waiting[0])):
            break
        taken.append(waiting.pop(0))
    return taken


def _check(name: str, argument: Argument, values: list[str]) -> None:
    for kind, value in zip(argument.kinds, values, strict=False):
        if kind in NUMBERS and value != "None":
            try:
                kind(value)
            except ValueError:
                raise InputError(f"{name}: must be {NUMBERS[kind]}, got {value!r}") from None
        words = [*map(str, get_args(kind))] if get_origin(kind) is Literal else []
        if words and value != "None":
            require_one(value, name, words)


def _override_of(name: str, value: str) -> str:
    """Says how the override is written that an option without such a name stands for; empty if it stands for none."""
    from diffusion.config import full_names  # It imports torch, which only this mistake waits for.

    key = name.lstrip("-")
    meant = [key] if "." in key else full_names(key.replace("-", "_"))
    written = " or ".join(f"{each}={value or 'VALUE'}" for each in meant)
    return f"{name}: an override is written without dashes, as in {written}" if meant else ""


def _unknown(name: str, command: str, named: dict[str, Argument], others: Iterable[tuple[str, type]]) -> str:
    """Says of an option that a command does not have what it could be."""
    having = [other for other, kind in others if any(name in argument.names for argument in arguments_of(kind))]
    hint = f"; {', '.join(having)} {'has' if len(having) == 1 else 'have'} it" if having else nearest(name, named)
    return f"{name}: no such option of {command}{hint or f'; all are shown by: diffusion {command} --help'}"


def _check_number(placed: list[str], known: list[Argument], command: str) -> None:
    """Raises InputError for more or fewer positional arguments than a command takes."""
    takes = f"diffusion {command} {' '.join(argument.names[0] for argument in known)}".rstrip()
    needed = [argument for argument in known if argument.required]
    if len(placed) < len(needed):
        name = needed[len(placed)].names[0].removesuffix(" ...")
        raise InputError(f"{name}: is missing; the command is: {takes}")
    if len(placed) > len(known) and not any(argument.many for argument in known):
        extra = placed[len(known)]
        raise InputError(f"{extra!r}: is one too many; the command is: {takes}; a name with spaces needs quotes")


def with_expanded_paths(options: Options) -> Options:
    """Returns options with `files.expanded` in place of every path. Raises InputError as that does."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        value = getattr(options, field.name)
        if isinstance(value, Path):
            changed[field.name] = expanded(value)
        elif isinstance(value, tuple):
            changed[field.name] = tuple(expanded(part) if isinstance(part, Path) else part for part in value)
        elif dataclasses.is_dataclass(value):
            changed[field.name] = with_expanded_paths(value)
    return dataclasses.replace(options, **changed)  # type: ignore[type-var]
