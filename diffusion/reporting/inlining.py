"""One script of several modules, for a page that is one file: each module becomes a function that returns what it
exports, and an import takes it from there.

It reads the form in which the modules of this package are written, and refuses any other: imports of names from a
module beside it, on one line, and exports of functions, classes and constants where they are declared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

IMPORT = re.compile(r'import \{ ([A-Za-z0-9_, ]+) \} from "\./([a-z]+)\.js";')
EXPORT = re.compile(r"export ((?:async )?function|class|const) ([A-Za-z0-9_]+)(.*)")
# What would end the script element, or begin a comment that hides its end.
ENDING = re.compile(r"</script|<script|<!--", re.IGNORECASE)


def bundled(modules: Mapping[str, str]) -> str:
    """Returns one module script of modules by name, each of which imports only those before it.

    Raises ValueError, with the name and the line, for what is not written as this file says.
    """
    exported: dict[str, list[str]] = {}
    parts = []
    for name, text in modules.items():
        lines, exports = _lines(name, text, exported)
        parts.append(f"const module_{name} = (() => {{\n{lines}\nreturn {{ {', '.join(exports)} }};\n}})();")
        exported[name] = exports
    return "\n".join(parts) + "\n"


def _lines(name: str, text: str, exported: Mapping[str, list[str]]) -> tuple[str, list[str]]:
    """The lines of a module within its function, and the names that it exports."""
    lines, exports = [], []
    for number, line in enumerate(text.splitlines(), 1):
        place, written = f"{name}.js, line {number}", line
        if ENDING.search(line):
            raise ValueError(f"{place}: must not hold the beginning or the end of a script, got {line!r}")
        if re.match(r"\s*import\b", line):
            found = IMPORT.fullmatch(line)
            if not found or not set(names := found[1].split(", ")) <= set(exported.get(found[2], ())):
                raise ValueError(f"{place}: must import names of a module before it, on one line, got {line!r}")
            written = f"const {{ {', '.join(names)} }} = module_{found[2]};"
        elif re.match(r"\s*export\b", line):
            if not (found := EXPORT.fullmatch(line)):
                raise ValueError(f"{place}: must export a function, a class or a constant, got {line!r}")
            exports.append(found[2])
            written = f"{found[1]} {found[2]}{found[3]}"
        lines.append(written)
    return "\n".join(lines), exports
