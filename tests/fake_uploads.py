"""How the hub on this machine takes what is published: repositories, branches, small files, and large ones by LFS.

Every commit replaces files of a folder beside the hub's others, `root`/OWNER--NAME, on whatever branch.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<what>preupload|commit|branch)/(?P<revision>[^/]+)")
LFS = re.compile(r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
# Licenses that the hub knows; of any other it refuses the card.
LICENSES = ("mit", "apache-2.0", "cc-by-4.0")


class Uploads(BaseHTTPRequestHandler):
    """Answers of the hub to those who write. `hub.refuses` is the status of all of them, if it is not 0."""

    hub: Any
    large_kinds: tuple[str, ...] = ()

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"POST {path}")
        self.hub.tokens.add(self.headers.get("authorization", ""))
        if self.hub.refuses:
            return self.reply(self.hub.refuses, {"error": "refused"})
        if path == "/api/repos/create":
            return self.create(json.loads(content))
        if path == "/api/validate-yaml":
            return self.validate(json.loads(content)["content"])
        if parts := LFS.fullmatch(path):
            return self.batch(json.loads(content))
        parts = COMMIT.fullmatch(path)
        assert parts is not None, path
        return getattr(self, parts["what"])(parts["repo"], parts["revision"], content)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        self.hub.objects[hashlib.sha256(content).hexdigest()] = content
        self.reply(200, {})

    def create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in self.hub.folders:
            return self.reply(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{repo}"})
        folder = self.hub.root / repo.replace("/", "--")
        folder.mkdir(parents=True)
        self.hub.folders[repo] = folder
        self.hub.visibility[repo] = asked.get("visibility", "public")
        return self.reply(200, {"url": f"{self.hub.url}/{repo}", "name": repo})

    def validate(self, card: str) -> None:
        found = re.search(r"^license: (.*)$", card, re.MULTILINE)
        good = found is not None and found[1] in LICENSES
        errors = [] if good else [{"message": f'"license" must be one of {", ".join(LICENSES)}'}]
        self.reply(200 if good else 400, {"errors": errors, "warnings": []})

    def branch(self, repo: str, revision: str, _: bytes) -> None:
        known = revision in self.hub.tags
        self.hub.tags.add(revision)
        self.reply(409 if known else 200, {})

    def preupload(self, repo: str, revision: str, content: bytes) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(self.large_kinds) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(content)["files"]
        ]
        self.reply(200, {"files": files})

    def batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.hub.url}/objects/{each['oid']}"}}}
            for each in asked["objects"]
        ]
        self.reply(200, {"transfer": "basic", "objects": objects})

    def commit(self, repo: str, revision: str, content: bytes) -> None:
        lines = [json.loads(line) for line in content.splitlines()]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.commits.append((repo, revision, value["summary"]))
                continue
            large = line["key"] == "lfsFile"
            stored = self.hub.objects[value["oid"]] if large else base64.b64decode(value["content"])
            path = self.hub.folders[repo] / value["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(stored)
        oid = self.hub.commit(repo)
        self.reply(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid, "success": True})

    def reply(self, status: int, found: dict[str, Any]) -> None:
        content = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
