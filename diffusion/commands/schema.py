"""`diffusion schema`: writes a JSON Schema of configurations, by which editors complete and check them.

It is made of what reads configurations, the dataclasses of the sections and the registries of their components, and of
the docstrings of these. configs/diffusion.schema.json is its output.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter

from diffusion.backbones.unet import DESIGNS
from diffusion.backbones.unet2d_blocks import ACTIVATIONS
from diffusion.backbones.unet2d_time import EMBEDDINGS, TIMES
from diffusion.commands.options import Schema
from diffusion.config import REGISTRIES, Config
from diffusion.data.sources import SOURCES
from diffusion.files import write_text

DRAFT = "https://json-schema.org/draft/2020-12/schema"
# Keys whose words are those of a dict or a list, which their annotation does not tell.
WORDS: dict[tuple[str, str], Iterable[str]] = {
    ("data", "source"): SOURCES,
    ("backbone", "design"): DESIGNS,
    ("backbone", "act_fn"): ACTIVATIONS,
    ("backbone", "time"): TIMES,
    ("backbone", "time_embedding_type"): EMBEDDINGS,
}
# The end of a sentence of a docstring.
END = re.compile(r"(?<=\.)\s+(?=[`A-Z])")


def schema(options: Schema) -> int:
    """Prints the schema, or writes it into a file."""
    text = as_text()
    if options.out is None:
        print(text, end="")
        return 0
    write_text(options.out, text)
    print(f"{options.out}: written; name it in the first line of a configuration: #:schema ./{options.out.name}")
    return 0


def as_text() -> str:
    """Returns the schema as JSON."""
    return json.dumps(whole(), indent=1, ensure_ascii=False) + "\n"


def whole() -> dict[str, Any]:
    """Returns the schema of a configuration."""
    return {
        "$schema": DRAFT,
        "title": "A configuration of diffusion",
        "type": "object",
        "properties": {section.name: _section(section.name, type(section.default)) for section in fields(Config)},
        "additionalProperties": False,
    }


def _section(name: str, default: type) -> dict[str, Any]:
    """The schema of a section; one that chooses a component has an alternative for each of them."""
    if name not in REGISTRIES:
        return component(name, default)
    alternatives = []
    for word, kind in REGISTRIES[name].items():
        found = component(name, kind)
        chosen = {"const": word, "description": found["description"]}
        # Without a name the component is the default one.
        needed = {} if kind is default else {"required": ["name"]}
        alternatives.append({**found, "properties": {"name": chosen, **found["properties"]}, **needed})
    return {"anyOf": alternatives}


def component(section: str, kind: type) -> dict[str, Any]:
    """Returns the schema of the fields of a dataclass, each with its description."""
    found = _plain(TypeAdapter(kind).json_schema())
    told = descriptions(kind)
    properties = {}
    for name, value in found.get("properties", {}).items():
        words = {"enum": list(WORDS[section, name])} if (section, name) in WORDS else {}
        properties[name] = {**value, **words, "description": told[name]}
    return {
        "description": " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split()),
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _plain(schema: Any) -> Any:  # noqa: ANN401, any value of JSON
    """The schema without the titles that pydantic makes of names."""
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if key != "title" or isinstance(value, dict)}
    return [_plain(value) for value in schema] if isinstance(schema, list) else schema


def descriptions(kind: type) -> dict[str, str]:
    """Returns what is said of the fields of a dataclass, by their names.

    It is the string below a field, or else what the docstring of the class says from the first sentence that has the
    field in backticks up to the next one about another field or the end of the paragraph, or else its first paragraph.
    """
    names = [field.name for field in fields(kind)]
    found: dict[str, str] = {}
    paragraphs = [" ".join(paragraph.split()) for paragraph in (inspect.getdoc(kind) or "").split("\n\n")]
    for paragraph in paragraphs:
        subjects: list[str] = []
        for sentence in END.split(paragraph):
            if sentence.startswith("Raises "):
                break
            new = [name for name in names if f"`{name}`" in sentence and name not in found]
            subjects = new or [name for name in names if sentence.startswith(f"`{name}`")] or subjects
            for name in subjects:
                found[name] = f"{found.get(name, '')} {sentence}".lstrip()
    return dict.fromkeys(names, paragraphs[0]) | found | _below_fields(kind)


def _below_fields(kind: type) -> dict[str, str]:
    """The strings that stand below the fields of a class."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        told = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else None
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(told, str):
            found[field.target.id] = " ".join(told.split())
    return found
