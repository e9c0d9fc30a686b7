from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from diffusion.page import events
from diffusion.page.answers import Refusal
from diffusion.page.events import Events, EventStream
from tests.conftest import HANGS_S


class Browser:
    """A browser that listens, until it leaves."""

    def __init__(self, source: Events, *, takes: bool = True) -> None:
        self.got = b""
        self.left, self.takes = asyncio.Event(), takes
        self.task = asyncio.ensure_future(EventStream(source)({}, self._receive, self._send))

    async def _receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.got += message.get("body", b"")
        if not self.takes and message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def hears(self, text: bytes) -> None:
        """Waits until the browser has heard a text."""
        async with asyncio.timeout(HANGS_S):
            while text not in self.got:
                await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "POLL_S", 0.01)
    monkeypatch.setattr(events, "STUCK_S", 0.05)
    monkeypatch.setattr(events, "COMMENT_S", 0.05)


def test_two_browsers_hear_the_same_of_one_look() -> None:
    runs: dict[str, dict[str, Any]] = {"a": {"name": "a", "step": 1}, "b": {"name": "b", "at": "/home/jane/b"}}
    looks = []

    def look() -> dict[str, dict[str, Any]]:
        looks.append(1)
        return {name: dict(run) for name, run in runs.items()}

    async def listening() -> tuple[bytes, bytes, int]:
        source = Events()
        watching = asyncio.ensure_future(source.watch(look))
        await asyncio.sleep(0.03)
        assert not looks  # Nobody listens.
        one, two = Browser(source), Browser(source)
        for browser in (one, two):
            await browser.hears(b'event: run\ndata: {"name": "a", "step": 1}\n\n')
        runs["a"]["step"] = 2
        del runs["b"]
        await asyncio.to_thread(source.tell, "job", {"id": "7"})
        for browser in (one, two):
            await browser.hears(b'event: run\ndata: {"name": "a", "step": 2}\n\n')
            await browser.hears(b'event: gone\ndata: {"name": "b"}\n\n')
            await browser.hears(b'event: job\ndata: {"id": "7"}\n\n')
        await asyncio.sleep(0.05)
        one.left.set()
        await one.task
        rest = len(source)
        source.close()
        await two.task
        watching.cancel()
        assert len(source) == 0
        return one.got, two.got, rest

    first, second, rest = asyncio.run(listening())
    assert rest == 1 and first.startswith(b"retry: ")
    told = [part for part in first.split(b"\n\n") if part.startswith(b"event")]
    assert sorted(told) == sorted(part for part in second.split(b"\n\n") if part.startswith(b"event"))
    assert len(told) == 5 and b"jane" not in first  # Each is told once.


def test_a_quiet_line_is_kept_by_comments() -> None:
    async def listening() -> None:
        source = Events()
        browser = Browser(source)
        await browser.hears(b": still here\n\n")
        source.close()
        await browser.task

    asyncio.run(listening())


def test_who_takes_nothing_is_dropped() -> None:
    async def listening() -> None:
        source = Events()
        browser = Browser(source, takes=False)
        async with asyncio.timeout(HANGS_S):
            await browser.task
        assert len(source) == 0

    asyncio.run(listening())


def test_who_lags_behind_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "STUCK_S", 60.0)
    monkeypatch.setattr(events, "WAITING", 5)

    async def listening() -> None:
        source = Events()
        watching = asyncio.ensure_future(source.watch(dict))
        browser = Browser(source, takes=False)
        await browser.hears(b"retry")
        for number in range(10):
            source.tell("job", {"id": number})
        async with asyncio.timeout(HANGS_S):
            await browser.task
        watching.cancel()

    asyncio.run(listening())


def test_a_look_that_fails_is_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    looks = []

    def look() -> dict[str, dict[str, Any]]:
        looks.append(1)
        if len(looks) == 1:
            raise OSError("the disk is away")
        return {"a": {"name": "a"}}

    async def listening() -> None:
        source = Events()
        watching = asyncio.ensure_future(source.watch(look))
        browser = Browser(source)
        await browser.hears(b"event: run")
        source.close()
        await browser.task
        watching.cancel()

    asyncio.run(listening())
    assert "the disk is away" in caplog.text


def test_listeners_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LISTENERS", 2)

    async def listening() -> None:
        source = Events()
        source.listen()
        source.listen()
        with pytest.raises(Refusal) as caught:
            source.listen()
        assert caught.value.status == 503

    asyncio.run(listening())


def test_nobody_hears_what_is_told_before_and_after() -> None:
    Events().tell("job", {"id": "1"})
