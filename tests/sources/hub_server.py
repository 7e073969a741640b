"""A Hub on the loopback: real bytes over real HTTP, with the Hub's own headers, refusals and redirects.

Two servers. The first answers as the Hub does; large files it redirects to the second, the storage, which
refuses any request that carries a token. Every request is recorded with the bytes that were sent, and
faults can be switched on per file. Sources: the Hub's API reference and what `huggingface_hub` reads.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".gguf", ".pth", ".ckpt", ".h5", "tokenizer.model", "tokenizer.json")
_PAUSE = 0.02
# Seconds for which a server that says nothing is waited for; whoever tests that sets a shorter timeout.
_STALL = 20.0
SIGNATURE = "signed-for-one-reader"


@dataclass(frozen=True)
class Content:
    """A file's bytes with what the Hub says of them; `large` files live on the storage server."""

    data: bytes
    large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def blob_id(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.blob_id


@dataclass
class Repo:
    name: str
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Content]] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


@dataclass
class Fault:
    """`kind` is one of `KINDS` or a status such as 500; it strikes `times` times. `after` is sent as
    Retry-After.
    """

    kind: str
    times: int
    after: str | None = None


# What can befall the bytes of a file on their way: a flipped byte, a connection that ends in the middle,
# before the first byte, or says nothing for long; a page of a login in the place of bytes, with the length of
# the page or of the file; another range than was asked for, said or not; fewer or more bytes than that, said
# or not; bytes in an encoding that nobody asked for; a signature that has expired; a redirect to itself.
KINDS = (
    "corrupt",
    "disconnect",
    "reset",
    "slow",
    "stall",
    "html",
    "html-padded",
    "html-206",
    "other-range",
    "other-bytes",
    "no-range",
    "total",
    "short",
    "long",
    "encoded",
    "expired",
    "loop",
)


@dataclass(frozen=True)
class Request:
    server: str
    method: str
    path: str
    authorized: bool
    range: str | None
    status: int
    sent: int


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that has been killed, or has had enough, is no news."""

    def server_bind(self) -> None:
        # HTTPServer would look its own name up, which takes seconds where there is no network.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


class HubServer:
    """`endpoint` is what HF_ENDPOINT is set to. `log` holds every request that was answered."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.tokens: dict[str, set[str]] = {}
        self.faults: dict[str, Fault] = {}
        self.log: list[Request] = []
        self.ranges = True
        self.stalled = threading.Event()
        self.sending = 0
        self.lock = threading.Lock()
        self._servers = [self._start(_Hub), self._start(_Storage)]
        self.endpoint, self.storage = (f"http://127.0.0.1:{s.server_address[1]}" for s in self._servers)

    def _start(self, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
        server = _Server(("127.0.0.1", 0), type(handler.__name__, (handler,), {"hub": self}))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def close(self) -> None:
        self.stalled.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(
        self,
        name: str,
        files: Mapping[str, bytes] | Path,
        *,
        revision: str = "main",
        gated: bool = False,
        private: bool = False,
    ) -> str:
        """Commit `files` (or all below a directory) to a repository's branch; the commit is returned."""
        if isinstance(files, Path):
            paths = sorted(path for path in files.rglob("*") if path.is_file())
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in paths}
        contents = {file: Content(data, file.endswith(LARGE)) for file, data in files.items()}
        tree = repr(sorted((file, content.sha256) for file, content in contents.items()))
        commit = hashlib.sha1(tree.encode()).hexdigest()
        repo = self.repos.setdefault(name, Repo(name))
        repo.gated, repo.private = gated, private
        repo.commits[commit] = contents
        repo.refs[revision] = commit
        return commit

    def token(self, token: str, *repos: str) -> None:
        """Make a token valid, with access to these private or gated repositories."""
        self.tokens[token] = set(repos)

    def fault(self, file: str, kind: str, times: int = 1_000, after: str | None = None) -> None:
        self.faults[file] = Fault(kind, times, after)

    def strike(self, file: str, *kinds: str) -> str | None:
        """The fault that hits this request, if it is one of `kinds` (or any status)."""
        with self.lock:
            fault = self.faults.get(file)
            if fault is None or fault.times == 0 or not (fault.kind in kinds or fault.kind.isdigit()):
                return None
            fault.times -= 1
            return fault.kind

    def after(self, file: str) -> dict[str, str]:
        """The header that says how long to wait, where the fault has one."""
        fault = self.faults.get(file)
        return {"Retry-After": fault.after} if fault is not None and fault.after is not None else {}

    def forget(self) -> None:
        """Empty the log, once all that is being sent has been, or nobody takes it any more."""
        while self.sending:
            time.sleep(0.01)
        with self.lock:
            self.log.clear()

    @property
    def sent(self) -> int:
        """Bytes of bodies sent, listings and errors included."""
        return sum(request.sent for request in self.log)

    @property
    def file_bytes(self) -> int:
        """Bytes of files sent."""
        return sum(r.sent for r in self.log if r.status in (200, 206) and "/api/" not in r.path)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    server_kind = ""
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def reply(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        length: int = -1,
        pause: float = 0,
    ) -> None:
        """Send a response; `length` is announced instead of the body's own where it is given.

        `pause` is waited before each 4 KiB, in seconds.
        """
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(length if length >= 0 else len(body)))
        self.end_headers()
        sent = 0
        with self.hub.lock:
            self.hub.sending += 1
        try:
            if self.command != "HEAD":
                for start in range(0, len(body), 4096):
                    time.sleep(pause)
                    sent += self.wfile.write(body[start : start + 4096])
        except OSError:
            # The reader has what it wanted.
            self.close_connection = True
        with self.hub.lock:
            self.hub.sending -= 1
            self.hub.log.append(
                Request(
                    self.server_kind,
                    self.command,
                    self.path,
                    "Authorization" in self.headers,
                    self.headers.get("Range"),
                    status,
                    sent,
                )
            )

    def json(self, value: Any) -> None:
        self.reply(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def refuse(
        self, status: int, code: str | None, message: str, more: Mapping[str, str] | None = None
    ) -> None:
        headers = {"Content-Type": "application/json", "X-Error-Message": message, **(more or {})}
        if code:
            headers["X-Error-Code"] = code
        self.reply(status, headers, json.dumps({"error": message}).encode())

    def content(self, name: str, content: Content, headers: dict[str, str]) -> None:
        """The file's bytes, as far as the range and the faults let them be."""
        data, kind = content.data, None
        if self.command == "GET":
            kind = self.hub.strike(name, *KINDS)
        if kind and kind.isdigit():
            return self.refuse(int(kind), None, "The server is unwell", self.hub.after(name))
        if kind == "expired":
            return self.refuse(403, None, "Request has expired")
        if kind == "loop":
            return self.reply(302, {"Location": f"http://{self.headers['Host']}{self.path}"})
        if kind == "reset":
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        if kind == "corrupt":
            data = data[:-1] + bytes([data[-1] ^ 0xFF])
        page = b"<html><title>Sign in</title></html>"
        if kind == "html":
            return self.reply(200, {"Content-Type": "text/html"}, page)
        if kind == "html-padded":
            return self.reply(200, {"Content-Type": "text/html"}, page.ljust(len(data)))
        status, start, stop = 200, 0, len(data)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        headers = {**headers, "ETag": f'"{content.etag}"', "Accept-Ranges": "bytes"}
        if asked and self.hub.ranges:
            start = int(asked[1])
            stop = min(int(asked[2]) + 1, stop) if asked[2] else stop
            status = 206
        body = data[start:stop]
        said, total = start, len(data)
        if kind == "html-206":
            status, body = 206, page.ljust(len(body))
            headers["Content-Type"] = "text/html"
        if kind in ("other-range", "other-bytes"):
            status, body = 206, body[1:] + body[:1]
            said = start + 1 if kind == "other-range" else start
        if kind == "total":
            status, total = 206, total + 1
        if kind == "short":
            body = body[: len(body) // 2]
        if kind == "long":
            body += bytes(997)
        if status == 206 and kind != "no-range":
            headers["Content-Range"] = f"bytes {said}-{said + stop - start - 1}/{total}"
        if kind == "no-range":
            status = 206
        if kind == "encoded":
            return self.reply(status, {**headers, "Content-Encoding": "gzip"}, gzip.compress(body))
        if kind in ("disconnect", "stall"):
            self.close_connection = True
            self.reply(status, headers, body[: len(body) // 2], length=len(body))
            if kind == "stall":
                self.hub.stalled.wait(_STALL)
            return None
        return self.reply(status, headers, body, pause=_PAUSE if kind == "slow" else 0)


class _Storage(_Handler):
    server_kind = "storage"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if "Authorization" in self.headers:
            return self.refuse(400, None, "Only one auth mechanism allowed")
        if parse_qs(url.query).get("signature") != [SIGNATURE]:
            return self.refuse(403, None, "Not signed")
        digest, name = unquote(url.path).lstrip("/").split("/", 1)
        for repo in list(self.hub.repos.values()):
            for files in repo.commits.values():
                for content in files.values():
                    if content.large and content.sha256 == digest:
                        return self.content(name, content, {})
        return self.refuse(404, None, "No such object")

    do_HEAD = do_GET


class _Hub(_Handler):
    server_kind = "hub"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(/.*)?)?", path):
            return self.api(unquote(found[1]), found[2] or "revision", unquote(found[3] or "main"))
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve(unquote(found[1]), unquote(found[2]), unquote(found[3]))
        return self.refuse(404, None, "Not Found")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/paths-info/([^/]+)", urlsplit(self.path).path)
        if not found:
            return self.refuse(404, None, "Not Found")
        repo = self.repo(unquote(found[1]))
        if repo is None:
            return None
        files = repo.commits[repo.commit(unquote(found[2])) or ""]
        return self.json([_entry(name, files[name]) for name in body.get("paths", []) if name in files])

    def caller(self) -> str | None:
        scheme, _, token = (self.headers.get("Authorization") or "").partition(" ")
        return token if scheme == "Bearer" else None

    def repo(self, name: str) -> Repo | None:
        """The repository if the caller may know of it; else the refusal has been sent."""
        token, repo = self.caller(), self.hub.repos.get(name)
        if token is not None and token not in self.hub.tokens:
            self.refuse(401, None, "Invalid credentials in Authorization header")
            return None
        if repo is None or (repo.private and name not in self.hub.tokens.get(token or "", ())):
            if token is None:
                self.refuse(401, "RepoNotFound", "Invalid username or password.")
            else:
                self.refuse(404, "RepoNotFound", "Repository not found")
            return None
        return repo

    def api(self, name: str, what: str, revision: str) -> None:
        if kind := self.hub.strike("api"):
            return self.refuse(int(kind), None, "The server is unwell")
        repo = self.repo(name)
        if repo is None:
            return None
        commit = repo.commit(revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repo.commits[commit]
        if what == "tree":
            return self.json([_entry(file, content) for file, content in files.items()])
        siblings = [
            {
                "rfilename": file,
                "size": len(content.data),
                "blobId": content.blob_id,
                **({"lfs": _lfs(content)} if content.large else {}),
            }
            for file, content in files.items()
        ]
        gated = "manual" if repo.gated else False
        return self.json(
            {
                "_id": "0",
                "id": name,
                "modelId": name,
                "sha": commit,
                "private": repo.private,
                "gated": gated,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": siblings,
            }
        )

    def resolve(self, name: str, revision: str, file: str) -> None:
        repo = self.repo(name)
        if repo is None:
            return None
        token = self.caller()
        if repo.gated and name not in self.hub.tokens.get(token or "", ()):
            status = 401 if token is None else 403
            return self.refuse(status, "GatedRepo", f"Access to model {name} is restricted.")
        commit = repo.commit(revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        content = repo.commits[commit].get(file)
        if content is None:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit}
        if not content.large:
            return self.content(file, content, headers)
        headers |= {
            "Location": f"{self.hub.storage}/{content.sha256}/{file}?signature={SIGNATURE}",
            "X-Linked-Size": str(len(content.data)),
            "X-Linked-Etag": f'"{content.sha256}"',
            "ETag": f'"{content.sha256}"',
        }
        return self.reply(302, headers)


def _lfs(content: Content) -> dict[str, Any]:
    return {"sha256": content.sha256, "size": len(content.data), "pointerSize": 134}


def _entry(name: str, content: Content) -> dict[str, Any]:
    entry = {"type": "file", "path": name, "size": len(content.data), "oid": content.blob_id}
    if content.large:
        entry["lfs"] = {"oid": content.sha256, "size": len(content.data), "pointerSize": 134}
    return entry
