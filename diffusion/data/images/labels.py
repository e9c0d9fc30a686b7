"""Reads tables of labels: which class each image has, from CSV, TSV, JSON and JSON lines.

A table names images in one column and classes in another. JSON may also be {name: label}, or {"labels": [[name, label],
...]} as the tools of StyleGAN write it. Rows without a label are rows of images without a class.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from diffusion.data.images.formats import SUFFIXES, UNREAD
from diffusion.errors import InputError

# The names of columns, in the order in which they are looked for.
NAMES = ("file_name", "filename", "file", "image", "path", "name", "image_path", "image_name", "img", "image_id", "id")
CLASSES = ("label", "class", "category", "label_name", "class_name", "category_name", "target")
SUFFIXES_READ = (".csv", ".tsv", ".txt", ".json", ".jsonl")
# The first line by which tables tell spreadsheets what separates their columns.
_SEPARATOR = re.compile(r'"?sep=([^"])"?\s*', re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """A row of a table: where it stands, as "row 3", the name of its image, and its class, None without one.

    `title` says that it may be the line of titles.
    """

    place: str
    name: str
    label: str | None
    title: bool = False


def read_labels(name: str, content: bytes) -> list[Row]:
    """Returns the rows of a table that has this name and these bytes.

    Raises InputError that names the table and the row for one that cannot be read as a table of labels.
    """
    kind = PurePath(name).suffix.lower()
    if kind not in SUFFIXES_READ:
        raise InputError(f"data.labels: {name} must be one of {', '.join(SUFFIXES_READ)}; save it as CSV")
    text = _text(name, content)
    try:
        if kind == ".json":
            return [*_json(name, json.loads(text))]
        if kind == ".jsonl":
            return [*_records(name, _lines(name, text), "line")]
        return [*_separated(name, text, kind)]
    except (csv.Error, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"data.labels: {name} cannot be read: {error}") from error


def _text(name: str, content: bytes) -> str:
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeError as error:
        raise InputError(f"data.labels: {name} is not text in UTF-8: {error}; save it in UTF-8") from error


def _lines(name: str, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"data.labels: {name}, line {number}: not JSON: {_short(line)}: {error}") from error


def _json(name: str, tree: Any) -> Iterator[Row]:  # noqa: ANN401, as JSON has it
    if isinstance(tree, Mapping) and "labels" in tree and (isinstance(tree["labels"], list) or tree["labels"] is None):
        if tree["labels"] is None:
            raise InputError(f"data.labels: {name} has no labels: its entry labels is null")
        yield from _pairs(name, tree["labels"])
    elif isinstance(tree, Mapping):
        nested = [key for key, value in tree.items() if isinstance(value, (list, Mapping))]
        if nested:
            raise InputError(
                f"data.labels: {name} must be {{name: label}}, {{'labels': [[name, label], ...]}} or a list of "
                f"objects, got {_short(nested[0])} with more in it"
            )
        yield from (Row(repr(key), str(key), _label(name, repr(key), value)) for key, value in tree.items())
    elif isinstance(tree, list) and tree and all(isinstance(each, list) for each in tree):
        yield from _pairs(name, tree)
    elif isinstance(tree, list):
        yield from _records(name, enumerate(tree, 1), "entry")
    else:
        raise InputError(f"data.labels: {name} must hold names and labels, got {_short(tree)}")


def _pairs(name: str, pairs: Iterable[Any]) -> Iterator[Row]:
    for number, pair in enumerate(pairs, 1):
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise InputError(f"data.labels: {name}, entry {number}: must be [name, label], got {_short(pair)}")
        yield Row(f"entry {number}", pair[0], _label(name, f"entry {number}", pair[1]))


def _records(name: str, records: Iterable[tuple[int, Any]], unit: str) -> Iterator[Row]:
    for number, record in records:
        place = f"{unit} {number}"
        if not isinstance(record, Mapping):
            raise InputError(f"data.labels: {name}, {place}: must be an object, got {_short(record)}")
        titles = [str(key) for key in record]
        image, label = _columns(f"{name}, {place}", titles)
        value = record[titles[image]]
        if not isinstance(value, str):
            raise InputError(f"data.labels: {name}, {place}: {titles[image]} must be a name, got {_short(value)}")
        yield Row(place, value, _label(name, place, record[titles[label]]))


def _separated(name: str, text: str, kind: str) -> Iterator[Row]:
    lines = text.splitlines()
    mark = _SEPARATOR.fullmatch(lines[0]) if lines else None
    if mark:
        lines[0] = ""
    first = next((line for line in lines if line.strip()), "")
    if kind == ".txt" and not mark and "\t" not in first and "," not in first and ";" not in first:
        rows = [line.rsplit(maxsplit=1) for line in lines]
    else:
        rows = [
            [cell.strip() for cell in row]
            for row in csv.reader(lines, delimiter=mark[1] if mark else _delimiter(first, kind))
        ]
    filled = [(number, row) for number, row in enumerate(rows, 1) if any(row)]
    if not filled:
        raise InputError(f"data.labels: {name} is empty")
    titles = filled[0][1]
    known = {title.lower() for title in titles}
    titled = bool(known & {*NAMES} and known & {*CLASSES})
    if not titled and len(titles) != 2:
        _columns(name, titles)
    image, label = _columns(name, titles) if titled else (0, 1)
    for number, row in filled[titled:]:
        if len(row) <= max(image, label):
            raise InputError(
                f"data.labels: {name}, row {number}: must have {len(titles)} columns as the first, got {_short(row)}"
            )
        title = number == filled[0][0] and PurePath(row[image]).suffix.lower() not in SUFFIXES | UNREAD.keys()
        yield Row(f"row {number}", row[image], row[label] or None, title)


def _delimiter(first: str, kind: str) -> str:
    counts = {each: first.count(each) for each in ("\t", ",", ";")}
    return "\t" if kind == ".tsv" else max(counts, key=lambda each: counts[each])


def _columns(where: str, titles: Sequence[str]) -> tuple[int, int]:
    """Returns the numbers of the columns of images and of classes."""
    lower = [title.strip().lower() for title in titles]
    image = next((lower.index(name) for name in NAMES if name in lower), None)
    label = next((lower.index(name) for name in CLASSES if name in lower), None)
    for number, names in ((image, NAMES[:6]), (label, CLASSES[:3])):
        if number is None:
            raise InputError(f"data.labels: {where} needs a column {' or '.join(names)}; it has {', '.join(titles)}")
    assert image is not None and label is not None
    return image, label


def _label(name: str, place: str, value: Any) -> str | None:  # noqa: ANN401, as JSON has it
    if value is None or value == "":
        return None
    if isinstance(value, (list, Mapping)):
        raise InputError(f"data.labels: {name}, {place}: an image has one class, got {_short(value)}")
    return str(value).strip() if not isinstance(value, bool) else json.dumps(value)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
