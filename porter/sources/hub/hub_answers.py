"""What an answer says of itself: who gave it, and for how long its server wants to be left alone."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

# A mirror may send its reader on to the Hub itself, whose token it is.
_HUB = ("https", "huggingface.co", 443)


def stated_pause(response: Any) -> float | None:
    """The seconds that a server asks for with Retry-After; None where it asks for none, or illegibly."""
    stated = response.headers.get("Retry-After", "") if response is not None else ""
    if stated.isascii() and stated.isdigit():
        return float(stated[:9])
    try:
        until = parsedate_to_datetime(stated)
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds()) if until.tzinfo else None


def refused_beyond(response: Any) -> bool:
    """Whether it is not the Hub that refuses, but the storage behind it: its signature has expired."""
    from huggingface_hub import constants

    return response.status_code in (400, 401, 403) and not at_hub(str(response.url), constants.ENDPOINT)


def at_hub(url: str, home: str) -> bool:
    """Whether an address is of the server of `home`, or of the Hub itself."""
    return _origin(url) in (_origin(home), _HUB)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").lower(), port
