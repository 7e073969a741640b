"""Bytes out of the middle of a file on the Hub, without fetching the file.

A token goes to the Hub alone: a redirect to the storage behind it is followed without one. What arrives is
never more than what was asked for, even from a server that ignores ranges.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

from porter.errors import ChangedError, PorterError
from porter.sources.hub.hub_answers import at_hub
from porter.sources.hub.hub_errors import http_error, translated
from porter.sources.hub.hub_retry import UnfitAnswer, pause_before
from porter.sources.hub.listing import RepoFile, RepoListing
from porter.sources.names import HubReference

# Git's names are SHA-1, those of large files SHA-256.
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

# What a proxy or a login puts in the place of a file.
_PAGES = ("text/html", "application/xhtml+xml")

# The Hub redirects once, a mirror perhaps twice.
_MAX_REDIRECTS = 5


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
        self,
        file: RepoFile,
        start: int,
        view: memoryview,
        stopped: threading.Event | None = None,
        arrived: Callable[[int], None] | None = None,
    ) -> None:
        """Fills `view` with the file's bytes from `start` on; gives up with a PorterError when `stopped`.

        `arrived` is told how many of them are there, each time that more are. Tries a few times where the
        network or the server fails. Raises PorterError and its kinds.
        """
        if start + len(view) > file.size:
            raise PorterError(f"{file.name} ends at byte {file.size}, before {start + len(view)}")
        if not view:
            return
        most = 0

        def came(done: int) -> None:
            # A range that is fetched again begins at nothing.
            nonlocal most
            if arrived is not None and done > most:
                most = done
                arrived(done)

        with translated(self.ref, self.token):
            attempt = 0
            while True:
                known = self._located.get(file.name)
                # Where the Hub has not been asked, it is asked now, and that is no second attempt.
                attempt += known is None
                try:
                    self._read(file, start, view, known, stopped, came)
                    return
                except (http_error(), UnfitAnswer) as error:
                    # What the Hub has signed for one reader holds for a while only.
                    self._located.pop(file.name, None)
                    pause = pause_before(error, attempt)
                    if pause is None and known is None:
                        raise
                if known is None and pause is not None:
                    _wait(pause, stopped)

    def _read(
        self,
        file: RepoFile,
        start: int,
        view: memoryview,
        known: str | None,
        stopped: threading.Event | None,
        came: Callable[[int], None],
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
            if not at_hub(url, home):
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
                _fill(view, response, start, stopped, came)
                if url != home:
                    self._located[file.name] = url
                return
        raise PorterError("the Hub redirects without end", cause=f"more than {_MAX_REDIRECTS} times")


def _wait(seconds: float, stopped: threading.Event | None) -> None:
    if stopped is None:
        time.sleep(seconds)
    elif stopped.wait(seconds):
        raise PorterError("stopped")


def _fill(
    view: memoryview,
    response: Any,
    start: int,
    stopped: threading.Event | None,
    came: Callable[[int], None],
) -> None:
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
        came(done)
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
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in _PAGES and not file.name.endswith((".html", ".htm")):
        raise _unfit(file, "the bytes of a file", f"a page ({kind})")
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
