"""A Hub on the loopback that is fast enough to be measured against: `python -m benchmarks.hub DIR`.

Serves the files of DIR as the repository `bench/model`, with the redirect to a storage that the Hub makes,
and ranges of them by `sendfile`, so that neither Python nor a copy stands in the way. Prints its address.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer

REPO = "bench/model"
COMMIT = "0" * 40


class Served:
    """A file with what the Hub says of it."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, path.stat().st_size
        self.large = path.suffix == ".safetensors"

    @cached_property
    def etag(self) -> str:
        with self.path.open("rb") as stream:
            if self.large:
                return hashlib.file_digest(stream, "sha256").hexdigest()
            return hashlib.sha1(b"blob %d\0" % self.size + stream.read()).hexdigest()

    def entry(self) -> dict[str, object]:
        lfs = {"lfs": {"sha256": self.etag, "size": self.size, "pointerSize": 134}} if self.large else {}
        return {"rfilename": self.path.name, "size": self.size, "blobId": self.etag[:40], **lfs}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: dict[str, Served]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            listing = [file.entry() for file in self.files.values()]
            self.reply(200, {}, json.dumps({"id": REPO, "sha": COMMIT, "siblings": listing}).encode())
            return
        file = self.files.get(self.path.rpartition("/")[2])
        if file is None:
            self.reply(404, {"X-Error-Code": "EntryNotFound"})
        elif file.large and "/resolve/" in self.path:
            linked = {"X-Linked-Size": str(file.size), "X-Linked-Etag": f'"{file.etag}"'}
            self.reply(302, {"Location": f"/storage/{file.path.name}", "X-Repo-Commit": COMMIT, **linked})
        else:
            self.serve(file)

    do_HEAD = do_GET

    def serve(self, file: Served) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        stop = int(asked[2]) + 1 if asked and asked[2] else file.size
        headers = {"ETag": f'"{file.etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
        self.reply(206 if asked else 200, headers, length=stop - start)
        if self.command == "HEAD":
            return
        self.wfile.flush()
        try:
            with file.path.open("rb") as stream:
                while start < stop:
                    start += os.sendfile(self.connection.fileno(), stream.fileno(), start, stop - start)
        except OSError:
            # The reader has gone away.
            self.close_connection = True

    def reply(
        self, status: int, headers: dict[str, str], body: bytes = b"", length: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def server_bind(self) -> None:
        # HTTPServer would look its own name up, which takes seconds where there is no network.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]


def main() -> None:
    files = {path.name: Served(path) for path in sorted(Path(sys.argv[1]).iterdir()) if path.is_file()}
    for file in files.values():
        assert file.etag
    server = Server(("127.0.0.1", 0), type("Handler", (Handler,), {"files": files}))
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
