"""Bytes out of the middle of a file on the Hub, without fetching the file.

A token goes to the Hub alone: a redirect to the storage behind it is followed without one. What arrives is
never more than what was asked for, even from a server that ignores ranges.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urljoin, urlsplit

from porter.errors import PorterError
from porter.sources.aliases import HubReference
from porter.sources.hub_errors import http_error, translated
from porter.sources.hub_files import RepoFile, RepoListing

# The Hub redirects once, a mirror perhaps twice.
_MAX_REDIRECTS = 5

_ATTEMPTS = 3
_PAUSE_SECONDS = 0.5

# Busy or briefly broken; anything else says the same when it is asked again.
_TRANSIENT = (408, 429, 500, 502, 503, 504)

# A mirror may send its reader on to the Hub itself, whose token it is.
_HUB = ("https", "huggingface.co", 443)


def read_range(
    ref: HubReference, listing: RepoListing, file: RepoFile, start: int, stop: int, token: str | None = None
) -> bytes:
    """The bytes [start, stop) of a file at the listing's commit, cut at its end.

    Tries a few times where the network or the server fails. Raises PorterError and its kinds.
    """
    stop = min(stop, file.size)
    if stop <= start:
        return b""
    with translated(ref, token):
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = hf_hub_url(ref.repo, file.name, revision=listing.commit)
        headers = build_hf_headers(token=token)
        headers |= {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return _read(url, headers, start, stop)
            except http_error() as error:
                status = getattr(getattr(error, "response", None), "status_code", 503)
                if status not in _TRANSIENT or attempt == _ATTEMPTS:
                    raise
            time.sleep(_PAUSE_SECONDS * attempt)
    raise AssertionError("unreachable")


def _read(url: str, headers: dict[str, str], start: int, stop: int) -> bytes:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, hf_raise_for_status  # type: ignore[attr-defined]

    home = _origin(url)
    for _ in range(_MAX_REDIRECTS):
        request = get_session().stream(
            "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, follow_redirects=False
        )
        with request as response:
            if response.has_redirect_location:
                url = urljoin(url, response.headers["Location"])
                if _origin(url) not in (home, _HUB):
                    headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
                continue
            hf_raise_for_status(response)
            return _body(response, start, stop)
    raise PorterError("the Hub redirects without end", cause=f"more than {_MAX_REDIRECTS} times")


def _body(response: Any, start: int, stop: int) -> bytes:
    # 200 is the whole file, from a server that knows no ranges.
    skip = start if response.status_code == 200 else 0
    content = bytearray()
    for piece in response.iter_bytes():
        content += piece
        if len(content) >= skip + stop - start:
            break
    content = content[skip : skip + stop - start]
    if len(content) != stop - start:
        raise PorterError(
            "the Hub sent less than was asked for",
            cause=f"expected {stop - start} bytes, found {len(content)}",
            hint="run it again",
        )
    return bytes(content)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").lower(), port
