"""Tables of labels in every form that people have them, and what is wrong with others, by row."""

from __future__ import annotations

import json

import pytest

from diffusion.data.images.labels import Row, read_labels
from diffusion.errors import InputError


def pairs(name: str, content: str | bytes) -> list[tuple[str, str | None]]:
    text = content if isinstance(content, bytes) else content.encode()
    return [(row.name, row.label) for row in read_labels(name, text)]


WANTED = [("a.png", "cat"), ("b/c.png", "dog")]
TABLES = {
    "csv": ("x.csv", "file_name,label\na.png,cat\nb/c.png,dog\n"),
    "other names": ("x.csv", "Class,size,Filename\ncat,3,a.png\ndog,4,b/c.png"),
    "semicolons": ("x.csv", "image;category\na.png;cat\nb/c.png;dog\n"),
    "what separates columns": ("x.csv", "sep=;\r\nimage;label;no, commas, here\r\na.png;cat;\r\nb/c.png;dog;\r\n"),
    "quotes": ("x.csv", '"path","class"\n"a.png","cat"\n"b/c.png","dog"\n'),
    "byte order mark": ("x.csv", b"\xef\xbb\xbffile,label\r\na.png,cat\r\nb/c.png,dog\r\n"),
    "utf-16": ("x.csv", "file,label\na.png,cat\nb/c.png,dog".encode("utf-16")),
    "no titles": ("x.csv", "a.png,cat\nb/c.png,dog\n"),
    "empty lines and spaces": ("x.csv", "\nfile , label\n\n a.png , cat\nb/c.png,dog\n\n"),
    "tsv": ("x.tsv", "name\tlabel\na.png\tcat\nb/c.png\tdog\n"),
    "words": ("x.txt", "a.png cat\nb/c.png   dog\n"),
    "json lines": (
        "metadata.jsonl",
        '{"file_name": "a.png", "label": "cat"}\n\n{"file_name": "b/c.png", "label": "dog"}',
    ),
    "json of stylegan": ("dataset.json", json.dumps({"labels": [["a.png", "cat"], ["b/c.png", "dog"]]})),
    "json by name": ("x.json", '{"a.png": "cat", "b/c.png": "dog"}'),
    "json records": ("x.json", '[{"image": "a.png", "class": "cat"}, {"image": "b/c.png", "class": "dog"}]'),
    "json pairs": ("x.JSON", '[["a.png", "cat"], ["b/c.png", "dog"]]'),
}


@pytest.mark.parametrize(("name", "content"), TABLES.values(), ids=[*TABLES])
def test_tables_of_every_form(name: str, content: str | bytes) -> None:
    assert pairs(name, content) == WANTED


def test_file_name_and_label_come_before_other_columns() -> None:
    assert pairs("x.csv", "id,name,file_name,label,target\n1,x,a.png,cat,7") == [("a.png", "cat")]


def test_labels_are_texts_and_none_is_no_label() -> None:
    lines = ['{"file": "a", "label": 3}', '{"file": "b", "label": null}', '{"file": "c", "label": true}']
    assert pairs("x.jsonl", "\n".join(lines)) == [("a", "3"), ("b", None), ("c", "true")]
    assert pairs("x.csv", "file,label\na.png,\nb.png,1") == [("a.png", None), ("b.png", "1")]


def test_a_first_row_without_the_suffix_of_an_image_may_be_titles() -> None:
    rows = read_labels("x.csv", b"key,breed\n000bec,boxer\n")
    assert rows == [Row("row 1", "key", "breed", title=True), Row("row 2", "000bec", "boxer")]


BAD = {
    "kind": ("x.xlsx", "", r"x\.xlsx must be one of .*save it as CSV"),
    "encoding": ("x.csv", b"file,label\n\xff.png,cat", r"x\.csv is not text in UTF-8"),
    "empty": ("x.csv", "\n\n", r"x\.csv is empty"),
    "no label": (
        "x.csv",
        "file_name,text,size\na.png,words,1",
        r"x\.csv needs a column label or class or category; it has",
    ),
    "no name": ("x.csv", "number,label,size\n1,cat,3", r"x\.csv needs a column file_name or .*; it has number, label"),
    "short row": (
        "x.csv",
        "file,label\na.png,cat\nb.png",
        r'x\.csv, row 3: must have 2 columns as the first, got \["b\.png"\]',
    ),
    "bad line": ("x.jsonl", '{"file": "a", "label": 1}\nnonsense', r"x\.jsonl, line 2: not JSON: nonsense"),
    "no object": ("x.jsonl", "[1]", r"x\.jsonl, line 1: must be an object, got \[1\]"),
    "no name in a line": ("x.jsonl", '{"label": 1}', r"x\.jsonl, line 1 needs a column file_name"),
    "a name that is none": ("x.jsonl", '{"file": 5, "label": 1}', r"x\.jsonl, line 1: file must be a name, got 5"),
    "several": ("x.jsonl", '{"file": "a", "label": [1, 2]}', r"line 1: an image has one class, got \[1, 2\]"),
    "not json": ("x.json", "{", r"x\.json cannot be read: "),
    "null": ("dataset.json", '{"labels": null}', r"dataset\.json has no labels"),
    "coco": ("x.json", '{"images": [], "annotations": []}', r"must be \{name: label\}.*got images with more in it"),
    "no pair": ("dataset.json", '{"labels": [["a", 1, 2]]}', r"entry 1: must be \[name, label\], got \[\"a\", 1, 2\]"),
    "a number": ("x.json", "5", r"must hold names and labels, got 5"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD.values(), ids=[*BAD])
def test_what_is_wrong_is_said_by_row(name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"^data\\.labels: .*{message}"):
        pairs(name, content)


def test_rows_are_numbered_as_in_the_file_though_its_first_line_names_the_separator() -> None:
    assert [row.place for row in read_labels("x.csv", b"sep=\t\nfile\tlabel\na.png\tcat\n")] == ["row 3"]
