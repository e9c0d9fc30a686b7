"""Server-sent events: what changes in runs and jobs, told to every browser that listens.

One poll serves all of them. A browser that does not take what it is sent is dropped; it connects again by itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from diffusion.page.answers import Refusal, plain

# The seconds between looks at runs, between comments that keep a connection, and that a send may take.
POLL_S, COMMENT_S, STUCK_S = 1.0, 15.0, 15.0
# The events that may wait for a browser, the browsers, and the milliseconds before a browser connects again.
WAITING, LISTENERS, RETRY_MS = 1000, 64, 1000

Look = Callable[[], dict[str, dict[str, Any]]]


class Events:
    """Those who listen, and what they are told."""

    def __init__(self) -> None:
        self._listeners: set[_Listener] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._listeners)

    def tell(self, kind: str, data: dict[str, Any]) -> None:
        """Tells all listeners of an event, from any thread."""
        text = f"event: {kind}\ndata: {json.dumps(plain(data))}\n\n".encode()
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # The page ends.
                loop.call_soon_threadsafe(self._pass_on, text)

    def _pass_on(self, text: bytes) -> None:
        for listener in self._listeners:
            listener.give(text)

    def close(self) -> None:
        """Ends all connections."""
        self._closed = True
        for listener in self._listeners:
            listener.ended.set()

    async def watch(self, look: Look) -> None:
        """Looks at the runs every second while somebody listens, and tells what changed since the look before."""
        self._loop = asyncio.get_running_loop()
        known: dict[str, dict[str, Any]] = {}
        while True:
            if self._listeners:
                known = await self._look(look, known)
            await asyncio.sleep(POLL_S)

    async def _look(self, look: Look, known: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Looks at the runs, of which some are `known`, and tells what is new."""
        try:
            found = await asyncio.to_thread(look)
        except Exception:  # What fails at one look may be there at the next one.
            logging.getLogger(__name__).exception("looking at the runs")
            return known
        for name in known.keys() - found.keys():
            self.tell("gone", {"name": name})
        for name, content in found.items():
            if known.get(name) != content:
                self.tell("run", content)
        return found

    def listen(self) -> _Listener:
        """Returns a new listener. Raises Refusal with 503 when there are too many."""
        if len(self._listeners) >= LISTENERS:
            raise Refusal(503, f"{LISTENERS} windows listen to this page already; close some")
        listener = _Listener()
        if self._closed:
            listener.ended.set()
        self._listeners.add(listener)
        return listener

    def leave(self, listener: _Listener) -> None:
        """Forgets a listener."""
        self._listeners.discard(listener)


class _Listener:
    """What waits to be sent to one browser; `ended` when it gets no more."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[bytes] = asyncio.Queue(WAITING)
        self.ended = asyncio.Event()

    def give(self, text: bytes) -> None:
        """Queues an event, or ends a listener that is too slow."""
        try:
            self.waiting.put_nowait(text)
        except asyncio.QueueFull:
            self.ended.set()


class EventStream(Response):
    """The answer that never ends by itself."""

    def __init__(self, events: Events) -> None:
        super().__init__(headers={"Cache-Control": "no-store"}, media_type="text/event-stream")
        del self.headers["content-length"]
        self._events = events
        self._listener = events.listen()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends events until the browser leaves, is too slow, or the page ends."""
        tasks = [
            asyncio.ensure_future(self._send(send)),
            asyncio.ensure_future(_left(receive)),
            asyncio.ensure_future(self._listener.ended.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._events.leave(self._listener)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(Exception):  # Whoever is not there any more does not hear the end.
            await asyncio.wait_for(send({"type": "http.response.body", "body": b"", "more_body": False}), 1.0)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        text = f"retry: {RETRY_MS}\n\n".encode()
        while True:
            await asyncio.wait_for(send({"type": "http.response.body", "body": text, "more_body": True}), STUCK_S)
            try:
                text = await asyncio.wait_for(self._listener.waiting.get(), COMMENT_S)
            except TimeoutError:
                text = b": still here\n\n"


async def events(request: Request) -> Response:
    """Returns the stream of events."""
    if request.method == "HEAD":
        return Response(media_type="text/event-stream")
    return EventStream(request.app.state.site.events)


async def _left(receive: Receive) -> None:
    """Returns when a browser leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
