"""Bytes out of the middle of a file on the Hub, without fetching the file.

A token goes to the Hub alone: a redirect to the storage behind it is followed without one. What arrives is
never more than what was asked for, even from a server that ignores ranges.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

from porter.errors import ChangedError, PorterError
from porter.sources.hub.hub_errors import http_error, translated
from porter.sources.hub.listing import RepoFile, RepoListing
from porter.sources.names import HubReference

# Git's names are SHA-1, those of large files SHA-256.
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

# The Hub redirects once, a mirror perhaps twice.
_MAX_REDIRECTS = 5

_ATTEMPTS = 3
_PAUSE_SECONDS = 0.5

# Busy or briefly broken; anything else says the same when it is asked again.
_TRANSIENT = (408, 429, 500, 502, 503, 504)

# A mirror may send its reader on to the Hub itself, whose token it is.
_HUB = ("https", "huggingface.co", 443)


class UnfitAnswer(PorterError):
    """What came is not what was asked for: as after a disconnect, it is asked for again."""


@dataclass(frozen=True)
class RangeReader:
    """Reads ranges of a repository's files at the commit of `listing`, from any thread.

    Where the Hub redirects to is remembered for each file, so that a file of many ranges costs the Hub one
    request and not one each: it limits how many a reader may make.
    """

    ref: HubReference
    listing: RepoListing
    token: str | None = None
    _located: dict[str, str] = field(default_factory=dict)

    def read(
        self, file: RepoFile, start: int, view: memoryview, stopped: threading.Event | None = None
    ) -> None:
        """Fills `view` with the file's bytes from `start` on; gives up with a PorterError when `stopped`.

        Tries a few times where the network or the server fails. Raises PorterError and its kinds.
        """
        if start + len(view) > file.size:
            raise PorterError(f"{file.name} ends at byte {file.size}, before {start + len(view)}")
        if not view:
            return
        with translated(self.ref, self.token):
            for attempt in range(1, _ATTEMPTS + 1):
                known = self._located.get(file.name)
                try:
                    self._read(file, start, view, known, stopped)
                    return
                except (http_error(), UnfitAnswer) as error:
                    # What the Hub has signed for one reader holds for a while only.
                    self._located.pop(file.name, None)
                    status = getattr(getattr(error, "response", None), "status_code", 503)
                    if (status not in _TRANSIENT and known is None) or attempt == _ATTEMPTS:
                        raise
                if known is None:
                    time.sleep(_PAUSE_SECONDS * attempt)

    def _read(
        self,
        file: RepoFile,
        start: int,
        view: memoryview,
        known: str | None,
        stopped: threading.Event | None,
    ) -> None:
        from huggingface_hub import constants, hf_hub_url
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            build_hf_headers,
            get_session,
            hf_raise_for_status,
        )

        home = hf_hub_url(self.ref.repo, file.name, revision=self.listing.commit)
        headers = build_hf_headers(token=self.token)
        headers |= {"Range": f"bytes={start}-{start + len(view) - 1}", "Accept-Encoding": "identity"}
        url = known or home
        for _ in range(_MAX_REDIRECTS):
            if _origin(url) not in (_origin(home), _HUB):
                headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
            request = get_session().stream(
                "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, follow_redirects=False
            )
            with request as response:
                if response.has_redirect_location:
                    _check_content(file, self.listing.commit, response.headers)
                    url = urljoin(url, response.headers["Location"])
                    continue
                hf_raise_for_status(response)
                if url == home:
                    _check_content(file, self.listing.commit, response.headers)
                _check_range(file, start, len(view), response)
                _fill(view, response, start, stopped)
                if url != home:
                    self._located[file.name] = url
                return
        raise PorterError("the Hub redirects without end", cause=f"more than {_MAX_REDIRECTS} times")


def _fill(view: memoryview, response: Any, start: int, stopped: threading.Event | None) -> None:
    # 200 is the whole file, from a server that knows no ranges.
    skip = start if response.status_code == 200 else 0
    done = 0
    for piece in response.iter_raw():
        if stopped is not None and stopped.is_set():
            raise PorterError("stopped")
        if skip >= len(piece):
            skip -= len(piece)
            continue
        part = memoryview(piece)[skip : skip + len(view) - done]
        skip = 0
        view[done : done + len(part)] = part
        done += len(part)
        if done == len(view):
            return
    raise UnfitAnswer(
        "the Hub sent less than was asked for",
        cause=f"expected {len(view)} bytes, found {done}",
        hint="run it again",
    )


def _check_content(file: RepoFile, commit: str, headers: Mapping[str, str]) -> None:
    """Raises ChangedError where the Hub itself says that it answers for other content than was listed."""
    found = headers.get("X-Repo-Commit")
    if found is not None and found != commit:
        raise ChangedError(
            f"{file.name} is answered for at another commit",
            cause=f"expected {commit}, found {found:.80}",
            hint="nothing was published; run it again",
        )
    etag = headers.get("X-Linked-ETag") or headers.get("ETag")
    if etag is None or file.etag is None:
        return
    name = etag.removeprefix("W/").strip('"')
    if _DIGEST.fullmatch(name) and len(name) == len(file.etag) and name != file.etag:
        raise ChangedError(
            f"{file.name} is not the file that was planned for",
            cause=f"expected {file.etag}, the Hub has {name}",
            hint="nothing was published; run it again",
        )


def _check_range(file: RepoFile, start: int, length: int, response: Any) -> None:
    """Raises UnfitAnswer for bytes that are not those which were asked for."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise _unfit(file, "bytes as they are stored", f"them in the encoding {encoding:.40}")
    if response.status_code == 206:
        stated = response.headers.get("Content-Range", "")
        wanted = f"bytes {start}-{start + length - 1}/{file.size}"
        if stated != wanted:
            raise _unfit(file, wanted, stated[:80] or "no Content-Range")
        return
    stated = response.headers.get("Content-Length")
    if stated != str(file.size):
        raise _unfit(file, f"a file of {file.size} bytes", f"one of {stated or 'no stated length'}")


def _unfit(file: RepoFile, expected: str, found: str) -> UnfitAnswer:
    return UnfitAnswer(
        f"the answer for {file.name} is not what was asked for",
        cause=f"expected {expected}, found {found}",
        hint="run it again; is there a proxy or a login page in between?",
    )


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").lower(), port
