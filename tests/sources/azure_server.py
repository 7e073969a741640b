"""A container of Azure's on the loopback, for reading: lists, heads, and ranges, as its emulator has them.

What matters is as Microsoft's own emulator answers (Azurite 3.35): listings come in pages and spell etags
without the quotes that they have everywhere else.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

ACCOUNT, CONTAINER = "devstoreaccount1", "container"
DATE = "Sat, 28 Nov 2026 10:00:06 GMT"
PAGE = 2

LIST = '<?xml version="1.0"?><EnumerationResults><Blobs>{}</Blobs>{}</EnumerationResults>'
BLOB = (
    "<Blob><Name>{}</Name><Properties><Last-Modified>{}</Last-Modified><Etag>{}</Etag>"
    "<Content-Length>{}</Content-Length><Content-Type>application/octet-stream</Content-Type>"
    "<BlobType>BlockBlob</BlobType></Properties></Blob>"
)


@dataclass
class AzureServer:
    """`blobs` are by name; `log` holds method, name, and range or marker of each request."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    log: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        own = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                own.answer(self, body=False)

            def do_GET(self) -> None:
                own.answer(self, body=True)

            def log_message(self, *given: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @staticmethod
    def etag(content: bytes) -> str:
        return f"0x{hashlib.sha256(content).hexdigest()[:15].upper()}"

    def answer(self, request: Any, *, body: bool) -> None:
        parts, headers = urlsplit(request.path), request.headers
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        account, container, name = (*unquote(parts.path).lstrip("/").split("/", 2), "")[:3]
        if (account, container) != (ACCOUNT, CONTAINER):
            return self._send(request, 404, b"<Error><Code>ContainerNotFound</Code></Error>", {})
        asked = headers.get("x-ms-range") or headers.get("Range") or ""
        self.log.append((request.command, name, asked or query.get("marker", "")))
        if query.get("comp") == "list":
            return self._send(request, 200, self._page(query).encode(), {})
        if name not in self.blobs:
            return self._send(request, 404, b"<Error><Code>BlobNotFound</Code></Error>" if body else b"", {})
        content = self.blobs[name]
        etag = f'"{self.etag(content)}"'
        if headers.get("If-Match", etag) != etag:
            return self._send(request, 412, b"<Error><Code>ConditionNotMet</Code></Error>", {})
        more = {"ETag": etag, "Last-Modified": DATE, "x-ms-blob-type": "BlockBlob"}
        if not asked:
            return self._send(request, 200, content, more, body=body)
        first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
        piece = content[first : last + 1]
        more["Content-Range"] = f"bytes {first}-{first + len(piece) - 1}/{len(content)}"
        return self._send(request, 206, piece, more, body=body)

    def _page(self, query: dict[str, str]) -> str:
        names = [name for name in sorted(self.blobs) if name.startswith(query.get("prefix", ""))]
        start = int(query.get("marker") or 0)
        listed = "".join(
            BLOB.format(escape(name), DATE, self.etag(self.blobs[name]), len(self.blobs[name]))
            for name in names[start : start + PAGE]
        )
        more = start + PAGE < len(names)
        return LIST.format(listed, f"<NextMarker>{start + PAGE}</NextMarker>" if more else "<NextMarker/>")

    @staticmethod
    def _send(request: Any, status: int, content: bytes, more: dict[str, str], *, body: bool = True) -> None:
        request.send_response(status)
        for name, value in more.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if body and request.command != "HEAD":
            request.wfile.write(content)
