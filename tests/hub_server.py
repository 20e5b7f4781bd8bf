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
    """A model: its visibility, its files, and the names of those that are kept in the storage of large files."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


class Hub(ThreadingHTTPServer):
    """The server.

    Attributes:
        models: The models by name.
        requests: What was asked, in order.
        refusal: A status and a code with which all models answer.
        takes_large: Whether binary files have to go to the storage of large files (Git LFS), as on the real hub.
        part_bytes: Files there that are larger are uploaded in parts of this size; None: each in one part.
        stored: What lies in that storage, by SHA-256.
        storage_status: The status with which the storage answers uploads.
        chunks: The address of another storage, that of Xet.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.refusal: tuple[int, str] | None = None
        self.takes_large, self.part_bytes = False, None  # type: bool, int | None
        self.stored: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.storage_status = 200
        self.chunks = ""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def storage(self) -> str:
        """The storage is another host, to which no client sends its token."""
        return f"http://localhost:{self.server_address[1]}/storage"


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

    def do_PUT(self) -> None:
        self._route("PUT")

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
        if path in model.large:
            oid = hashlib.sha256(content).hexdigest()
            about |= {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            self._send(302, b"", about | {"Location": f"{self.server.storage}/{oid}"})
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
        self._json({"files": [self._mode(file) for file in json.loads(self._body)["files"]]})

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        is_large = self.server.takes_large and b"\0" in base64.b64decode(file["sample"])
        mode = "lfs" if is_large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def batch(self, repo: str) -> None:
        """What the storage of large files has, and where the rest is to be uploaded."""
        if self._model(repo) is None:
            return
        asked = json.loads(self._body)
        assert asked["operation"] == "upload"
        assert asked["hash_algo"] == "sha256"
        objects = [
            o if o["oid"] in self.server.stored else {**o, "actions": self._actions(repo, **o)}
            for o in asked["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _actions(self, repo: str, oid: str, size: int) -> dict[str, Any]:
        place, step = f"{self.server.storage}/{oid}", self.server.part_bytes
        upload: dict[str, Any] = {"href": place}
        if step is not None and size > step:
            parts = {str(n + 1): f"{place}/{n + 1}" for n in range(-(-size // step))}
            upload = {"href": f"{place}/complete", "header": {"chunk_size": str(step), **parts}}
        return {"upload": upload, "verify": {"href": f"{self.server.address}/{repo}.git/info/lfs/verify"}}

    def store(self, oid: str, part: str | None = None) -> None:
        """An upload, whose address is all that it takes: the client sends no token there."""
        assert "Authorization" not in self.headers
        if self.server.storage_status != 200:
            self._error(self.server.storage_status, "AccessDenied")
        elif part is not None:
            self.server.parts[oid, int(part)] = self._body
            self._send(200, b"", {"ETag": f'"{hashlib.md5(self._body).hexdigest()}"'})
        else:
            self._keep(oid, self._body)

    def complete(self, oid: str) -> None:
        """The end of an upload in parts."""
        contents = []
        for part in json.loads(self._body)["parts"]:
            contents.append(self.server.parts.pop((oid, part["partNumber"])))
            assert part["etag"] == f'"{hashlib.md5(contents[-1]).hexdigest()}"'
        self._keep(oid, b"".join(contents))

    def _keep(self, oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            self._error(400, "BadDigest")
            return
        self.server.stored[oid] = content
        self._json({})

    def verify(self, repo: str) -> None:
        asked = json.loads(self._body)
        fine = self._has_token and len(self.server.stored.get(asked["oid"], b"")) == asked["size"]
        self._json({}) if fine else self._error(404, "EntryNotFound")

    def stored_file(self, oid: str) -> None:
        self._send(200, self.server.stored[oid], {"ETag": f'"{oid}"'})

    def xet_token(self, repo: str, rev: str) -> None:
        """Where the storage by chunks (Xet) is, and with which token it is written to."""
        if self._model(repo) is not None:
            about = {"casUrl": self.server.chunks, "accessToken": "of-xet", "exp": 2**32}
            self._json(about)

    def commit(self, repo: str, rev: str) -> None:
        if (model := self._model(repo)) is None:
            return
        for line in self._body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                model.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":  # a file that was not uploaded before is an error there, too
                model.files[value["path"]] = self.server.stored[value["oid"]]
                model.large.add(value["path"])
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
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    ("POST", rf"/{_REPO}\.git/info/lfs/verify", _Handler.verify),
    ("GET", rf"/api/models/{_REPO}/xet-write-token/(?P<rev>[^/]+)", _Handler.xet_token),
    ("PUT", r"/storage/(?P<oid>[^/]+)(?:/(?P<part>\d+))?", _Handler.store),
    ("POST", r"/storage/(?P<oid>[^/]+)/complete", _Handler.complete),
    ("GET HEAD", r"/storage/(?P<oid>[^/]+)", _Handler.stored_file),
    ("GET", rf"/api/models/{_REPO}/tree/(?P<rev>[^/]+)(?:/(?P<path>.+))?", _Handler.tree),
    ("GET", rf"/api/models/{_REPO}(?:/revision/(?P<rev>[^/]+))?", _Handler.info),
    ("GET HEAD", rf"/{_REPO}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", _Handler.resolve),
)
