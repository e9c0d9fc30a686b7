"""Texts are escaped wherever they stand."""

from __future__ import annotations

import json

from diffusion.reporting.markup import Markup, data, element, escaped, joined, plain


def test_texts_and_attributes_are_escaped_and_html_is_kept() -> None:
    inner = element("b", "a<b", title="\"quoted\" & 'more'")
    assert inner == '<b title="&quot;quoted&quot; &amp; &#x27;more&#x27;">a&lt;b</b>'
    assert element("p", inner, " & ", [Markup("<i></i>"), None, "<"]) == f"<p>{inner} &amp; <i></i>&lt;</p>"
    assert escaped(inner) is inner and joined(None, 3) == "3"


def test_attributes_are_named_as_html_names_them() -> None:
    assert (
        element("img", class_="a", data_step=0, hidden=True, alt=None, id=False)
        == '<img class="a" data-step="0" hidden>'
    )
    assert element("meta", name="x") == '<meta name="x">'


def test_what_cannot_be_seen_is_shown_as_that() -> None:
    assert plain("a\x00b\u202ec\udcff") == "a\ufffdb\ufffdc\ufffd" and plain("ä\n") == "ä\n"
    assert plain("x" * 30, 10) == "x" * 9 + "…"


def test_data_cannot_end_their_script() -> None:
    text = data("d", {"name": "</script><!--", "lone": "\udcff"})
    assert text.count("<") == 2
    inner = text.removeprefix('<script type="application/json" id="d">').removesuffix("</script>")
    assert json.loads(inner) == {"name": "</script><!--", "lone": "\udcff"}
