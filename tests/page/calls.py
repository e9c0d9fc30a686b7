"""Calls an application in this process, with requests that no browser would send too, and makes run folders to show."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from PIL import Image
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message

HOST = "127.0.0.1:8765"
ORIGIN = f"http://{HOST}"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Headers
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401, whatever the answer holds
        return json.loads(self.body)

    @property
    def error(self) -> str:
        (name, line), *others = self.json.items()
        assert name == "error" and not others and line and "\n" not in line
        return str(line)


def call(
    app: ASGIApp,
    method: str,
    address: str,
    body: bytes | list[bytes] = b"",
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
) -> Answer:
    """Sends a request for an address as it is written; Host and Origin are those of the page unless `headers` say."""
    path, _, query = address.partition("?")
    given = [*headers.items()] if isinstance(headers, dict) else headers or []
    names = {name.lower() for name, _ in given}
    own = [] if "host" in names else [("host", HOST)]
    own += [] if "origin" in names or method in ("GET", "HEAD") else [("origin", ORIGIN)]
    chunks = [body] if isinstance(body, bytes) else body
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path.encode("utf-8", "replace"),
        "query_string": query.encode("utf-8", "replace"),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in own + given],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8765),
    }
    received: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks[:-1]]
    received.append({"type": "http.request", "body": chunks[-1], "more_body": False})
    received.append({"type": "http.disconnect"})
    sent: list[Message] = []

    async def receive() -> Message:
        return received.pop(0) if len(received) > 1 else received[0]

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    content = b"".join(message.get("body", b"") for message in sent)
    return Answer(sent[0]["status"], Headers(raw=sent[0]["headers"]), content)


def make_run(path: Path, rows: int = 3, grids: tuple[int, ...] = (10,), **config: dict[str, object]) -> Path:
    """Makes a run folder that says what a training would say, without one."""
    (path / "samples").mkdir(parents=True)
    tree = {"training": {"steps": 100, "batch": 8}, "data": {"size": 8, "channels": 3}, **config}
    (path / "config.json").write_text(json.dumps(tree))
    lines = [json.dumps({"step": 10 * (i + 1), "loss": 1 / (i + 1), "lr": 0.1}) for i in range(rows)]
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    for step in grids:
        Image.new("RGB", (16, 16), (step, 0, 0)).save(path / "samples" / f"step-{step:08d}.png")
    Image.new("RGB", (16, 16), (0, 9, 0)).save(path / "film.png")
    return path
