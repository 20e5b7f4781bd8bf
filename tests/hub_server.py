"""A Hugging Face hub on this machine: the endpoints that huggingface_hub uses to make, fill, list and fetch models."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN, USER = "hf_token", "anna"
_REPO = r"(?P<repo>[^/]+/[^/]+)"


@dataclass
class Repository:
    """A model: its visibility and its files."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


class Hub(ThreadingHTTPServer):
    """The server; `requests` lists what was asked, and with a status and a code in `refusal` all models answer so."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.refusal: tuple[int, str] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub while the block runs."""
    hub = Hub()
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._route("GET")

    def do_HEAD(self) -> None:
        self._route("HEAD")

    def do_POST(self) -> None:
        self._route("POST")

    def _route(self, method: str) -> None:
        self._body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{method} {path}")
        for verb, pattern, handle in _ROUTES:
            if method in verb and (found := re.fullmatch(pattern, path)):
                handle(self, **found.groupdict())
                return
        self._error(404, "EntryNotFound")

    @property
    def _has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _model(self, repo: str) -> Repository | None:
        """The model if it exists and may be read; else the error is sent."""
        model = self.server.models.get(repo)
        if self.server.refusal is not None:
            self._error(
                *self.server.refusal, {"X-Error-Message": "Invalid credentials in Authorization header"}
            )
            return None
        if model is None or (model.private and not self._has_token):
            self._error(404 if self._has_token else 401, "RepoNotFound")
            return None
        return model

    def info(self, repo: str, rev: str = "main") -> None:
        if (model := self._model(repo)) is not None:
            siblings = [{"rfilename": name} for name in model.files]
            self._json({"id": repo, "sha": model.sha, "private": model.private, "siblings": siblings})

    def tree(self, repo: str, rev: str, path: str | None = None) -> None:
        if (model := self._model(repo)) is None:
            return
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for name, content in model.files.items()
            if path is None or name.startswith(f"{path}/")
        ]
        self._json(entries) if entries or path is None else self._error(404, "EntryNotFound")

    def resolve(self, repo: str, rev: str, path: str) -> None:
        if (model := self._model(repo)) is None:
            return
        about = {"X-Repo-Commit": model.sha}
        content = model.files.get(path)
        if content is None:
            self._error(404, "EntryNotFound", about)
            return
        about["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
        self._send(200, content, about | {"Content-Type": "application/octet-stream"})

    def create(self) -> None:
        asked = json.loads(self._body)
        owner, name = asked.get("organization") or USER, asked["name"]
        repo = f"{owner}/{name}"
        if not self._has_token:
            self._error(401, "Unauthorized")
        elif owner != USER:
            self._error(403, "Forbidden")
        elif repo in self.server.models:
            self._json({"url": f"{self.server.address}/{repo}", "error": "exists"}, 409)
        else:
            self.server.models[repo] = Repository(private=asked.get("visibility") == "private")
            self._json({"url": f"{self.server.address}/{repo}"})

    def validate(self) -> None:
        text = json.loads(self._body)["content"]
        fine = text.startswith("---\n") and "license:" in text.split("---\n")[1]
        self._json(
            {"warnings": [], "errors": [] if fine else [{"message": "license is missing"}]},
            200 if fine else 400,
        )

    def preupload(self, repo: str, rev: str) -> None:
        files = json.loads(self._body)["files"]
        self._json(
            {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        )

    def commit(self, repo: str, rev: str) -> None:
        if (model := self._model(repo)) is None:
            return
        for line in self._body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                model.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        self._json({"commitUrl": f"{self.server.address}/{repo}/commit/{model.sha}", "commitOid": model.sha})

    def _json(self, content: Any, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(
            status, b"{}", {"X-Error-Code": code, "Content-Type": "application/json", **(headers or {})}
        )

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


_ROUTES = (
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate),
    ("POST", rf"/api/models/{_REPO}/preupload/(?P<rev>[^/]+)", _Handler.preupload),
    ("POST", rf"/api/models/{_REPO}/commit/(?P<rev>[^/]+)", _Handler.commit),
    ("GET", rf"/api/models/{_REPO}/tree/(?P<rev>[^/]+)(?:/(?P<path>.+))?", _Handler.tree),
    ("GET", rf"/api/models/{_REPO}(?:/revision/(?P<rev>[^/]+))?", _Handler.info),
    ("GET HEAD", rf"/{_REPO}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", _Handler.resolve),
)
