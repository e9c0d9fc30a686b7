"""Modules become one script; what is not in the one form that is understood is refused by its line."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from diffusion.reporting import html
from diffusion.reporting.inlining import bundled

A = "const hidden = 2;\nexport const twice = (x) => hidden * x;\nexport function thrice(x) {\n  return 3 * x;\n}\n"


def test_exports_and_imports_become_local_names() -> None:
    assert bundled({"a": A, "b": 'import { twice } from "./a.js";\nconst hidden = 5;\ntwice(hidden);\n'}) == (
        "const module_a = (() => {\nconst hidden = 2;\nconst twice = (x) => hidden * x;\n"
        "function thrice(x) {\n  return 3 * x;\n}\nreturn { twice, thrice };\n})();\n"
        "const module_b = (() => {\nconst { twice } = module_a;\nconst hidden = 5;\ntwice(hidden);\n"
        "return {  };\n})();\n"
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('import { four } from "./a.js";', "must import names"),
        ('import { twice as double } from "./a.js";', "must import names"),
        ('import { twice } from "./c.js";', "must import names"),
        ('import * as all from "./a.js";', "must import names"),
        ('import "https://example.com/x.js";', "must import names"),
        ("export default twice;", "must export a function"),
        ("export { twice };", "must export a function"),
        ('const text = "</script>";', "must not hold"),
        ('const text = "<!--";', "must not hold"),
    ],
)
def test_other_forms_are_refused_by_their_line(line: str, words: str) -> None:
    with pytest.raises(ValueError, match=rf"b\.js, line 2: {words}"):
        bundled({"a": A, "b": f"\n{line}\n"})


def test_the_script_of_reports_is_valid(tmp_path: Path) -> None:
    """By the engine where there is one; the names of modules are in it in any case."""
    (path := tmp_path / "script.mjs").write_text(html._script())
    assert all(f"const module_{name} = " in html._script() for name in html.MODULES)
    if node := shutil.which("node"):
        subprocess.run([node, "--check", str(path)], check=True)
