"""S3 on the loopback: moto's server behind a layer that counts requests and breaks what a test wants broken.

A fault is a function of a request, called before it is answered: it returns None, or what is to happen.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message>{more}</Error>"


@dataclass(frozen=True)
class Request:
    """`verb` is the HTTP method with S3's own word for what is asked, where the query says it."""

    method: str
    path: str
    query: dict[str, list[str]]
    range: tuple[int, int] | None
    headers: dict[str, str]

    @property
    def key(self) -> str:
        return self.path.lstrip("/").partition("/")[2]

    @property
    def verb(self) -> str:
        if "uploads" in self.query:
            return "begin" if self.method == "POST" else "uploads"
        if "uploadId" in self.query:
            return {"PUT": "part", "POST": "complete", "DELETE": "abort", "GET": "parts"}[self.method]
        return self.method.lower()


@dataclass
class Answer:
    """A status in the place of an answer; with `performed` the request is carried out all the same."""

    status: int
    code: str = "InternalError"
    more: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    performed: bool = False


@dataclass
class Cut:
    """The answer ends after this share of its body."""

    share: float = 0.5


@dataclass
class Slow:
    """The body comes in pieces with a pause before each."""

    pause: float
    pieces: int = 4


Fault = Callable[[Request], Any]


@dataclass
class S3Server:
    """`endpoint` is its address; `log` holds every request, `fault` what is done to them."""

    endpoint: str = ""
    log: list[Request] = field(default_factory=list)
    fault: Fault | None = None
    sent: int = 0

    def __post_init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)

        class Quiet(WSGIRequestHandler):
            def log(self, *given: Any) -> None:
                pass

            def log_request(self, *given: Any) -> None:
                pass

        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Quiet)
        self._server.daemon_threads = True
        host, port = self._server.server_address[:2]
        self.endpoint = f"http://{host}:{port}"
        self._lock = threading.Lock()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def forget(self) -> None:
        self.log.clear()
        self.fault = None

    def of(self, verb: str, key: str = "") -> list[Request]:
        return [request for request in self.log if request.verb == verb and key in request.key]

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", environ.get("HTTP_RANGE", ""))
        request = Request(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"],
            parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True),
            (int(found[1]), int(found[2]) + 1) if found else None,
            {name: value for name, value in environ.items() if name.startswith("HTTP_")},
        )
        with self._lock:
            self.log.append(request)
        happens = self.fault(request) if self.fault is not None else None
        if isinstance(happens, Answer):
            if happens.performed:
                b"".join(self._app(environ, lambda *given: None))
            else:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = ERROR.format(code=happens.code, more=happens.more).encode()
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
            start_response(f"{happens.status} Injected", [*headers, *happens.headers])
            yield b"" if request.method == "HEAD" else body
            return
        body = b"".join(self._app(environ, start_response))
        if isinstance(happens, Cut):
            yield body[: int(len(body) * happens.share)]
            raise ConnectionAbortedError("cut by the test")
        if isinstance(happens, Slow):
            step = max(1, len(body) // happens.pieces)
            for start in range(0, len(body), step):
                time.sleep(happens.pause)
                yield body[start : start + step]
            return
        yield body
