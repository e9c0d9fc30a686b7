"""A hub on this machine that serves folders as repositories, by what huggingface_hub asks of the real one.

It is started once for all tests, since the library reads its address when it is imported. The tests change what lies in
its repositories, and see in `requests` what was asked of it.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.fake_uploads import Uploads

API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>revision|tree)/(?P<revision>[^/]+))?")
FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
# Files of these kinds are large on the hub, and known by their sha256.
LARGE = (".safetensors", ".bin", ".pt")


@dataclass
class FakeHub:
    """Repositories by their names, each a folder, and how it is shown.

    `gated` and `private` ones are refused, `status` is answered in place of everything, and `spoiled` are files whose
    bytes are other ones than the hub says. `tags` are revisions beside main.

    What is published to it goes to folders below `root`; `commits` has the repository, the branch and the message of
    each, and `refuses` is the status that is answered to those who write, if it is not 0.
    """

    folders: dict[str, Path] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    tags: set[str] = field(default_factory=set)
    spoiled: set[str] = field(default_factory=set)
    status: int = 0
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    url: str = ""
    root: Path = Path()
    refuses: int = 0
    visibility: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    commits: list[tuple[str, str, str]] = field(default_factory=list)

    def reset(self) -> None:
        """Takes out all repositories, and forgets what was asked."""
        for part in (self.folders, self.gated, self.private, self.tags, self.spoiled, self.requests, self.tokens):
            part.clear()
        for made in (self.visibility, self.objects, self.commits):
            made.clear()
        self.status = self.refuses = 0

    def served(self) -> set[str]:
        """The names of the files whose contents were sent."""
        return {line.split(" ", 1)[1] for line in self.requests if line.startswith("GET-FILE")}

    def files(self, repo: str) -> dict[str, bytes]:
        """The files of a repository by their names."""
        folder = self.folders[repo]
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def commit(self, repo: str) -> str:
        """The commit of a repository: a hash of its files."""
        listed = sorted((name, hashlib.sha1(content).hexdigest()) for name, content in self.files(repo).items())
        return hashlib.sha1(json.dumps(listed).encode()).hexdigest()


def start() -> FakeHub:
    """Starts a hub in a thread, whose address is its `url`."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    return hub


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(Uploads, BaseHTTPRequestHandler):
    """Answers of the hub."""

    hub: FakeHub
    large_kinds = LARGE
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, *, body: bool) -> None:
        # A revision may have a slash, which is quoted in its part of the path.
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {path}")
        if token := self.headers.get("authorization"):
            self.hub.tokens.add(token)
        api, file = API.fullmatch(path), FILE.fullmatch(path)
        match = api or file
        parts = {name: unquote(part or "") for name, part in match.groupdict().items()} if match else {}
        repo = parts.get("repo", "")
        if self.hub.status:
            return self.send(self.hub.status, b"", {})
        if repo in self.hub.gated:
            return self.send(403, b"", {"X-Error-Code": "GatedRepo"})
        if repo not in self.hub.folders or repo in self.hub.private:
            return self.send(401, b"", {"X-Error-Code": "RepoNotFound"})
        revision, commit = parts["revision"] or "main", self.hub.commit(repo)
        if revision not in {"main", commit} | self.hub.tags:
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if file:
            return self.send_file(repo, commit, parts["name"], body=body)
        found = self.tree(repo) if parts["what"] == "tree" else self.info(repo, commit)
        return self.send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def info(self, repo: str, commit: str) -> dict[str, object]:
        siblings = [
            {"rfilename": name, "size": len(content), "blobId": git_hash(content), **self.large(name, content)}
            for name, content in self.hub.files(repo).items()
        ]
        return {
            "id": repo,
            "modelId": repo,
            "sha": commit,
            "private": self.hub.visibility.get(repo) == "private",
            "tags": [],
            "siblings": siblings,
        }

    def tree(self, repo: str) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": name, "oid": git_hash(content), "size": len(content), **self.large(name, content)}
            for name, content in self.hub.files(repo).items()
        ]

    def large(self, name: str, content: bytes) -> dict[str, object]:
        if not name.endswith(LARGE):
            return {}
        sha256 = hashlib.sha256(content).hexdigest()
        return {"lfs": {"oid": sha256, "sha256": sha256, "size": len(content), "pointerSize": 134}}

    def send_file(self, repo: str, commit: str, name: str, *, body: bool) -> None:
        content = self.hub.files(repo).get(name)
        if content is None:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha256(content).hexdigest() if name.endswith(LARGE) else git_hash(content)
        if body:
            self.hub.requests.append(f"GET-FILE {name}")
        if name in self.hub.spoiled:
            content = bytes(len(content))
        return self.send(200, content, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass
