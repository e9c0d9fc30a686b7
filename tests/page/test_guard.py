from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from diffusion.page.answers import HANDLERS
from diffusion.page.guard import MOST, Guard
from tests.page.calls import HOST, ORIGIN, call

TOKEN = "correct-horse"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


async def size(request: Request) -> Response:
    return JSONResponse({"size": len(await request.body())})


APP = Starlette(
    routes=[Route("/", size, methods=["GET", "POST", "DELETE"]), Route("/a", size)], exception_handlers=HANDLERS
)


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST:9000", "[::1]:8765", "localhost"])
def test_this_machine_has_these_names_whatever_the_port_of_a_tunnel(host: str) -> None:
    assert call(Guard(APP), "GET", "/", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.com",
            "evil.com:8765",
            "127.0.0.1.evil.com",
            "localhost.evil.com",
            "evil.com/localhost",
            "",
            "[::1",
            "a b",
        ),
        *(
            "user@localhost",
            "localhost@evil.com",
            "localhost:x",
            "10.0.0.1",
            "127.0.0.1#.evil.com",
            "localhost\\evil.com",
        ),
    ],
)
def test_other_names_that_point_here_are_refused(host: str) -> None:
    found = call(Guard(APP), "GET", "/", headers={"Host": host})
    assert found.status == 403 and "Host" in found.error


def test_a_request_has_one_host() -> None:
    for hosts in ([("host", HOST), ("host", HOST)], [("host", HOST), ("host", "evil.com")]):
        assert call(Guard(APP), "GET", "/", headers=hosts).status == 403


def test_a_page_for_a_network_has_its_names_and_its_numbers() -> None:
    guard = Guard(APP, frozenset({"box.lan"}), any_address=True)
    for host, status in (("box.lan:1", 200), ("10.1.2.3:1", 200), ("[fe80::1]:1", 200), ("evil.com:1", 403)):
        assert call(guard, "GET", "/", headers={"Host": host}).status == status


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "origin",
    ["http://evil.com", "null", "http://localhost:8765", "http://127.0.0.1:3000", "file://", "", f"{ORIGIN}/a"],
)
def test_pages_of_others_are_refused(method: str, origin: str) -> None:
    found = call(Guard(APP), method, "/", headers={"Origin": origin})
    assert found.status == 403 and "another site" in found.error


@pytest.mark.parametrize("origin", [ORIGIN, f"https://{HOST}"])
def test_its_own_page_may_do_all(origin: str) -> None:
    assert call(Guard(APP), "POST", "/", headers={"Origin": origin}).status == 200


def test_changes_need_an_origin() -> None:
    found = call(Guard(APP), "POST", "/", headers=[("host", HOST), ("Origin", "")])
    assert found.status == 403
    program = Guard(APP, token=TOKEN)
    without = [("host", HOST), ("authorization", f"Bearer {TOKEN}")]
    assert send_without_origin(Guard(APP), [("host", HOST)]) == (
        403,
        f"what changes something needs the header Origin: {ORIGIN}",
    )
    assert send_without_origin(program, without)[0] == 200


def send_without_origin(guard: Guard, headers: list[tuple[str, str]]) -> tuple[int, str]:
    """A POST of a program that says nothing of where it comes from."""

    async def dropped(scope, receive, send):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"origin"]
        await guard(scope, receive, send)

    found = call(dropped, "POST", "/", headers=headers)
    return found.status, found.json.get("error", "")


def test_a_token_is_in_the_url_once_and_then_in_a_cookie() -> None:
    guard = Guard(APP, token=TOKEN)
    entered = call(guard, "GET", f"/?token={TOKEN}")
    cookie = entered.headers["set-cookie"]
    assert entered.status == 200 and b'url=/"' in entered.body and TOKEN not in cookie
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    kept = {"Cookie": f"other=1; {cookie.partition(';')[0]}"}
    assert call(guard, "GET", "/", headers=kept).json == {"size": 0}
    assert call(guard, "POST", "/", b"abc", headers=kept).json == {"size": 3}
    assert call(Guard(APP, token="another-token"), "GET", "/", headers=kept).status == 401
    inner = call(guard, "GET", f"/a?token={TOKEN}")
    assert inner.json == {"size": 0} and "set-cookie" in inner.headers


@pytest.mark.parametrize(
    "query", ["", "?token=", "?token=wrong", f"?token={TOKEN}x", f"?token=x&token={TOKEN}", "?token=%ff"]
)
def test_without_the_token_there_is_nothing(query: str) -> None:
    guard = Guard(APP, token=TOKEN)
    for method in ("GET", "POST", "DELETE"):
        found = call(guard, method, f"/{query}")
        assert found.status == 401 and "token" in found.error and "set-cookie" not in found.headers
    assert call(guard, "GET", "/", headers={"Cookie": f"diffusion-{'0' * 8}={TOKEN}; ;=;\x7f"}).status == 401


def test_a_token_in_a_url_changes_nothing() -> None:
    assert call(Guard(APP, token=TOKEN), "POST", f"/?token={TOKEN}").status == 401


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
        ("Bearer wrong", 401),
        (TOKEN, 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer \xff", 401),
    ],
)
def test_programs_send_the_token_in_a_header(given: str, status: int) -> None:
    assert call(Guard(APP, token=TOKEN), "POST", "/", headers={"Authorization": given}).status == status


def test_host_and_origin_are_checked_with_the_token_too() -> None:
    guard, bearer = Guard(APP, token=TOKEN), {"Authorization": f"Bearer {TOKEN}"}
    assert call(guard, "GET", "/", headers={**bearer, "Host": "evil.com"}).status == 403
    assert call(guard, "POST", "/", headers={**bearer, "Origin": "http://evil.com"}).status == 403


@pytest.mark.parametrize("address", ["/", "/none", "/?token=x"])
@pytest.mark.parametrize("host", [HOST, "evil.com"])
def test_every_answer_has_the_headers_of_safety(address: str, host: str) -> None:
    headers = call(Guard(APP, token=None if address == "/" else TOKEN), "GET", address, headers={"Host": host}).headers
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store" and "access-control-allow-origin" not in headers


def test_a_body_is_bounded_as_it_comes_and_as_it_is_stated() -> None:
    guard = Guard(APP, most=100)
    assert call(guard, "POST", "/", [b"x" * 50, b"x" * 50]).json == {"size": 100}
    for body, headers in (
        ([b"x" * 50, b"x" * 51, b"x" * 1000], {}),
        ([b"x" * 101], {}),
        ([b"x"], {"Content-Length": "101"}),
        ([b"x"], {"Content-Length": "101", "Expect": "100-continue"}),
    ):
        found = call(guard, "POST", "/", body, headers=headers)
        assert found.status == 413 and "larger than" in found.error
    for wrong in ("x", "-1", "1" * 30, "²"):
        assert call(guard, "POST", "/", headers={"Content-Length": wrong}).status == 400
    assert MOST == 64 * 2**20


def test_nothing_but_http_is_answered() -> None:
    sent = []

    async def send(message: object) -> None:
        sent.append(message)

    coroutine = Guard(APP)({"type": "websocket"}, None, send)  # type: ignore[arg-type]
    with pytest.raises(StopIteration):
        coroutine.send(None)  # type: ignore[attr-defined]
    assert sent == []
