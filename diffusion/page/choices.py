"""What a person can choose among, read from the source of the registries: samplers, methods, operators with options.

Nothing of it is run, so that torch is not imported for it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from diffusion.registries import ROOT, names

# The end of a sentence of a docstring.
END = re.compile(r"(?<=\.)\s+(?=[`A-Z])")
# The shape of a batch in a docstring, which says nothing to a person with one image.
SHAPE = re.compile(r":? \(B,[^)]*\)(?: -> \(B,[^)]*\))?")
# The operator that reads a file of the machine that the page runs on, which whoever opens it need not be allowed to.
PRIVATE = "kernel"


@cache
def choices() -> dict[str, Any]:
    """Returns the names of samplers and methods, and the operators: {name, what, options: [{name, default, what}]}."""
    return {
        "samplers": [*names("samplers.py", "SAMPLERS")],
        "methods": ["auto", *names("restoration/methods.py", "METHODS")],
        "operators": [one for one in sorted(_operators(), key=lambda one: str(one["name"])) if one["name"] != PRIVATE],
    }


def _operators() -> Iterator[dict[str, Any]]:
    for path in (ROOT / "operators").glob("*.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
        for node in body:
            is_registry = isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "OPERATORS"
            if is_registry and isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict):
                for key, value in zip(node.value.keys, node.value.values, strict=True):
                    yield _operator(ast.literal_eval(key or ""), classes[ast.unparse(value)])


def _operator(name: str, kind: ast.ClassDef) -> dict[str, Any]:
    """An operator with the options that a text can state; an option of which no sentence speaks has no words."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in (ast.get_docstring(kind) or "").split("\n\n")]
    sentences = [sentence for paragraph in paragraphs for sentence in END.split(paragraph)]
    options = []
    for node in kind.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant) and node.value.value is not None:
            field = ast.unparse(node.target)
            told = next((sentence for sentence in sentences[1:] if f"`{field}`" in sentence), "")
            options.append({"name": field, "default": node.value.value, "what": told.replace("`", "")})
    return {"name": name, "what": SHAPE.sub("", sentences[0].replace("`", "")), "options": options}
