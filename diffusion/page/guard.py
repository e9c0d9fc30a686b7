"""What every request passes before anything else sees it: Host, Origin, token, and a bound on its body.

A page that listens on this machine alone is still reached by every site that is open in the browser beside it. So the
name in Host must be one that this server has (a stranger's name that points here, DNS rebinding, is none), whatever
changes something must come from a page of this server (Origin), and nothing here can be framed or read by others
(headers of the answer). Where a token is set, it is in the URL once, then in a cookie that scripts do not see and other
sites cannot send, or in the header of a program: Authorization: Bearer TOKEN.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from contextlib import suppress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diffusion.page.answers import Refusal, refused

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# The bytes that a body may have, and the seconds for which the rest of a larger one is read and forgotten, as a browser
# that still sends would not see the answer.
MOST, LINGER_S = 64 * 2**20, 10.0
# The digits of a stated length that is far too large.
LENGTHS = 19
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# A page that comes after the token was taken from the URL. A redirection would be a part of the visit that another site
# began, to which a browser sends no strict cookie; the visit that a page of ours begins is ours.
ENTRY = '<!doctype html><html lang="en"><meta http-equiv="refresh" content="0; url=/"><title>diffusion</title></html>'


@dataclass(frozen=True)
class Guard:
    """An application behind the checks.

    `names` are those by which the server may be called, beside `LOOPBACK`; with `any_address` it may also be called by
    any address in numbers, as nobody else can give these away. `most` bounds the bytes of a body.
    """

    app: ASGIApp
    names: frozenset[str] = frozenset()
    token: str | None = None
    any_address: bool = False
    most: int = MOST

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what is allowed, and answers the rest with one line."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        # There are no websockets: the server closes what is not accepted.

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        entered: list[str] = []

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
                for cookie in entered:
                    headers.append("Set-Cookie", cookie)
            await send(message)

        bounded = _Bounded(receive, self.most)
        try:
            made = self._checked(scope, entered)
            await bounded.check(Headers(scope=scope))
        except Refusal as refusal:
            made = refused(refusal.status, refusal.line)
        if made is not None:
            await made(scope, bounded, guarded)
        else:
            await self.app(scope, bounded, guarded)

    def _checked(self, scope: Scope, entered: list[str]) -> Response | None:
        """Raises Refusal for a request that is not allowed. Returns the page of entry to one with the token."""
        headers = Headers(scope=scope)
        host, origins = headers.getlist("host"), headers.getlist("origin")
        if len(host) != 1 or not self._is_ours(host[0]):
            raise Refusal(403, "the Host of this request is not the address of this page; open the URL that it printed")
        if any(authority(origin) != host[0].lower() for origin in origins):
            raise Refusal(403, "this request comes from a page of another site, which may not use this one")
        bearer = self._has_bearer(headers)
        if scope["method"] not in SAFE and not origins and not bearer:
            raise Refusal(403, f"what changes something needs the header Origin: http://{_printable(host[0])}")
        if self.token is None or bearer:
            return None
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
        if given and scope["method"] in SAFE:
            if not all(_equal(one, self.token) for one in given):
                raise Refusal(401, "the token in this URL is wrong; open the URL that the page printed at its start")
            entered.append(f"{self._cookie}={_digest(self.token)}; HttpOnly; SameSite=Strict; Path=/")
            return HTMLResponse(ENTRY) if scope["path"] == "/" else None
        if not self._has_cookie(headers):
            raise Refusal(
                401, "this page needs its token; open the URL that it printed, or send Authorization: Bearer TOKEN"
            )
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether a server of these names may be called by what Host says; the port may be that of a tunnel."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            _ = urlsplit(f"//{host}").port
        except ValueError:
            return False
        if host.rpartition("@")[1] or not name or set(host) & set("/?#\\ "):
            return False
        return name in LOOPBACK or name in self.names or (self.any_address and _is_address(name))

    def _has_bearer(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        return self.token is not None and kind.lower() == "bearer" and _equal(given.strip(), self.token)

    def _has_cookie(self, headers: Headers) -> bool:
        assert self.token is not None
        try:
            found = SimpleCookie("; ".join(headers.getlist("cookie"))).get(self._cookie)
        except CookieError:
            return False
        return found is not None and _equal(found.value, _digest(self.token))

    @property
    def _cookie(self) -> str:
        """The name of the cookie, of its own for each token: the cookies of a host are those of all its ports."""
        return f"diffusion-{_digest(str(self.token))[:8]}"


class _Bounded:
    """The body of a request as far as it is not too large."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._left = most

    async def check(self, headers: Headers) -> None:
        """Raises Refusal with 413 where the stated length of a body is too large, and 400 where it is no length."""
        stated = headers.get("content-length", "0")
        if not (stated.isascii() and stated.isdigit() and len(stated) < LENGTHS):
            raise Refusal(400, "Content-Length is no number of bytes")
        if int(stated) > self._most:
            # Whoever expects to be told before sending is told.
            raise await self._refusal(sent="expect" not in headers)

    async def __call__(self) -> Message:
        """Receives a message. Raises Refusal with 413 when the body is larger than it may be."""
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise await self._refusal(sent=message.get("more_body", False))
        return message

    async def _refusal(self, *, sent: bool) -> Refusal:
        """Receives and forgets what is still `sent`, within a time, and returns what is to be raised."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while sent:
                    message = await self._receive()
                    sent = message["type"] == "http.request" and message.get("more_body", False)
        return Refusal(413, f"this is larger than the {self._most / 2**20:g} MiB that the page takes at once")


def authority(origin: str) -> str | None:
    """Returns the host and port of an origin, None where it is none, such as `null`."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    whole = parts.scheme in ("http", "https") and not (parts.path or parts.query or parts.fragment)
    return parts.netloc.lower() if whole else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _equal(given: str, expected: str) -> bool:
    """Compares in a time that does not tell how much is right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def _digest(token: str) -> str:
    return hashlib.sha256(f"cookie of {token}".encode()).hexdigest()


def _printable(text: str) -> str:
    return "".join(sign for sign in text if sign.isprintable())
