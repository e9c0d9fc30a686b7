from __future__ import annotations

import json
import logging
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from diffusion.page import queue
from diffusion.page.app import API, ROUTES, application
from diffusion.page.guard import Guard
from tests.page.calls import HOST, ORIGIN, call, make_run

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "X")
# Parts of addresses: those that lead somewhere, and what is tried to lead out.
PARTS = (
    *(
        "api",
        "v1",
        "runs",
        "a",
        "b%20c",
        "deep%2Fd",
        "deep",
        "d",
        "curves",
        "grids",
        "10",
        "pictures",
        "film.png",
        "uploads",
    ),
    *(
        "masks",
        "view",
        "alpha",
        "examples",
        "data",
        "requests",
        "jobs",
        "files",
        "preview",
        "static",
        "parts",
        "app.js",
    ),
    *(
        "..",
        "%2e%2e",
        "..%2f",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "%00",
        "a%00.png",
        "config.json",
        ".lock",
        "%ff",
        "%f0%9f",
    ),
    *("", ".", "%5c..%5c", "secret.txt", "0" * 16, "9" * 30, "-1", "~", "%0d%0aX: y", "é", "${HOME}", "page"),
)
KINDS = (
    "sample",
    "vary",
    "interpolate",
    "inpaint",
    "restore",
    "degrade",
    "likelihood",
    "nearest",
    "inspect",
    "format",
    None,
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["../x", "/etc/passwd", "0" * 16]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(KINDS),
        **dict.fromkeys(
            ("do", "example", "upload", "mask", "n", "seed", "operator", "a", "level", "label", "x"), VALUES
        ),
    },
).map(lambda tree: json.dumps(tree).encode())
BODIES = st.lists(st.binary(max_size=200) | OBJECTS | st.just(b"\x89PNG\r\n\x1a\n"), min_size=1, max_size=2)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Host": st.sampled_from([HOST] * 9 + ["localhost", "evil.com", "[", ""]),
        "Origin": st.sampled_from([ORIGIN] * 9 + ["null", "http://evil.com", "http://[", ""]),
        "Content-Type": st.sampled_from(["application/json", "image/png", "multipart/form-data; boundary=x", "\xff"]),
        "Content-Length": st.sampled_from(["0"] * 9 + ["5", "-1", "x", "9" * 12]),
        "X-Name": st.text(st.characters(max_codepoint=255), max_size=20)
        | st.sampled_from(["..%2f..%2fx", "%00", "a" * 999]),
        "If-None-Match": st.sampled_from(["*", '"x"', ","]),
        "Range": st.sampled_from(["bytes=0-", "bytes=" + "0-1," * 500]),
        "Cookie": st.text(st.characters(max_codepoint=255), max_size=20),
        "Authorization": st.text(st.characters(max_codepoint=255), max_size=20),
    },
)
QUERIES = st.sampled_from(
    ["", "?", "?n=3", "?n=%00", "?first=-1", "?side=99999999999", "?token=x", "?a[]=1&&=", "?%ff"]
)


def at(route: Route) -> st.SearchStrategy[tuple[str, str]]:
    """Requests at the address of a route, of a run that is there, most of them by a method that it takes."""
    path = re.sub(r"\{name:path\}", "a", route.path)
    parts = st.lists(st.sampled_from(PARTS), min_size=3, max_size=3)
    filled = parts.map(lambda given: re.sub(r"\{[^}]*\}", "{}", path).format(*given))
    methods = sorted(route.methods or ())
    return st.tuples(st.sampled_from(methods * 5 + [*METHODS]), filled)


# A stream of events ends only when who listens leaves, which test_events.py tests.
AIMED = st.sampled_from([route for route in ROUTES if "events" not in route.path]).flatmap(at)
PATHS = st.lists(st.sampled_from(PARTS), max_size=9).map(lambda parts: f"/{'/'.join(parts)}")
WILD = st.tuples(st.sampled_from(METHODS), PATHS)


class StillQueue(queue.Queue):
    """A queue that carries nothing out."""

    def _carry_out(self) -> None:
        return


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs beside files that nobody may see."""
    outer = tmp_path_factory.mktemp("outside-of-all")
    (outer / "secret.txt").write_text("the-secret-words")
    for name in ("a", "b c", "deep/d"):
        make_run(outer / "the-root" / name)
    (outer / "the-root" / "a" / "link.png").symlink_to(outer / "secret.txt")
    return outer / "the-root"


def test_a_fuzz_of_the_api_finds_no_way_out(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("diffusion.page.app.Queue", StillQueue)
    guard = Guard(application(root), most=500)
    outside = {path: path.read_bytes() for path in root.parent.glob("*") if path.is_file()}
    statuses = Counter[int]()
    caplog.set_level(logging.ERROR)

    @settings(max_examples=400, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
    @given(AIMED | AIMED | AIMED | WILD, QUERIES, BODIES, HEADERS)
    def tried(request: tuple[str, str], query: str, body: list[bytes], headers: dict[str, str]) -> None:
        method, address = request
        found = call(guard, method, address + query, body, headers)
        statuses[found.status] += 1
        assert found.status < 500, (method, address, found)
        text = found.body.decode("latin-1")
        assert str(root) not in text and "Traceback" not in text and "the-secret-words" not in text
        assert str(root) not in str(found.headers) and "content-security-policy" in found.headers
        if found.status >= 400 and method != "HEAD":
            assert found.error and str(root.parent) not in found.error

    tried()
    # It gets through to what answers.
    assert {200, 400, 403, 404, 405} <= {*statuses} and statuses[200] > 20
    assert caplog.records == []
    assert {path: path.read_bytes() for path in root.parent.glob("*") if path.is_file()} == outside
    assert {path.name for path in root.parent.iterdir()} == {"secret.txt", "the-root"}
    assert {path.name for path in root.iterdir()} == {"a", "b c", "deep"}
    known = {"config.json", "metrics.jsonl", "samples", "film.png", "link.png", "page"}
    assert all({path.name for path in (root / name).iterdir()} <= known for name in ("a", "b c", "deep/d"))


def test_a_run_in_a_folder_is_found_with_and_without_quotes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion.page.app.Queue", StillQueue)
    app = application(root)
    for name in ("deep/d", "deep%2Fd"):
        assert call(app, "GET", f"{API}/runs/{name}").json["name"] == "deep/d"
        assert call(app, "GET", f"{API}/runs/{name}/grids/10").status == 200
