"""HTML made of elements whose texts are always escaped: names of files and of classes may hold anything."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from typing import TypeAlias

# Elements without an end.
VOID = {"img", "meta", "br", "hr"}
# Control characters, halves of surrogate pairs (bytes of a file name that are no UTF-8), and characters that turn the
# direction of what stands around them.
UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)
SHOWN_INSTEAD = "\N{REPLACEMENT CHARACTER}"

# What an element may hold: text, HTML, several of them, or nothing.
Child: TypeAlias = str | int | Iterable[str | None] | None


class Markup(str):
    """Text that is HTML already; everything else is escaped where it is put into an element."""

    __slots__ = ()


def plain(value: object, most: int = 500) -> str:
    """Returns a value as text that can be shown: without control characters, and cut after `most` characters."""
    text = UNSEEN.sub(SHOWN_INSTEAD, str(value))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def escaped(value: object) -> Markup:
    """Returns HTML that shows a value as it is; HTML is returned unchanged."""
    return value if isinstance(value, Markup) else Markup(html.escape(UNSEEN.sub(SHOWN_INSTEAD, str(value))))


def element(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Markup:
    """Returns an element; attributes that are None or False are left out.

    The names of attributes end with an underscore where Python has a word of that name (`class_`), and other
    underscores stand for dashes.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escaped(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    inner = "" if name in VOID else f"{joined(*children)}</{name}>"
    return Markup(f"<{name}{written}>{inner}")


def joined(*children: Child) -> Markup:
    """Returns the HTML of children one after the other; None is left out."""
    found = []
    for child in children:
        if isinstance(child, str | int):
            found.append(escaped(child))
        elif child is not None:
            found += [escaped(each) for each in child if each is not None]
    return Markup("".join(found))


def data(name: str, value: object) -> Markup:
    """Returns a script element of the type application/json with a value, for a script of the page to read.

    Nothing in it can end the element, as every < is escaped.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Markup(f'<script type="application/json" id="{escaped(name)}">{text}</script>')
