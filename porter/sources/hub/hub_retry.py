"""When the Hub is asked again, and after which pause.

What another answer may come to: a connection that fails, a server that is busy, bytes that are not those
which were asked for, and a storage that refuses the address which the Hub has signed (it holds for a while
only, and the Hub signs another). A server that states a pause is given it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from porter.errors import PorterError
from porter.sources.hub.hub_answers import refused_beyond, stated_pause
from porter.sources.hub.hub_errors import http_error

T = TypeVar("T")

ATTEMPTS = 4

# Seconds before the second attempt, and twice as many before each one after it.
_PAUSE = 0.5

# Seconds. Whoever is asked for a longer pause than this is told so instead of kept waiting.
LONGEST_PAUSE = 60.0

# Busy or briefly broken; anything else says the same when it is asked again.
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class UnfitAnswer(PorterError):
    """What came is not what was asked for: as after a disconnect, it is asked for again."""


def pause_before(error: Exception, attempt: int) -> float | None:
    """Seconds to wait after the failed `attempt`, counted from 1; None where asking again is of no use."""
    if attempt >= ATTEMPTS or not (isinstance(error, (UnfitAnswer, http_error())) or is_short(error)):
        return None
    response = getattr(error, "response", None)
    if response is not None and response.status_code not in _TRANSIENT and not refused_beyond(response):
        return None
    stated = stated_pause(response)
    if stated is not None and stated > LONGEST_PAUSE:
        return None
    pause: float = _PAUSE * 2 ** (attempt - 1)
    return max(pause, stated or 0.0)


def asked_again(work: Callable[[], T], *, connections: bool = True) -> T:
    """What `work` returns, tried again where that may help. Without `connections` a failing connection is
    none of that: the Hub's client has tried those again itself.
    """
    attempt = 1
    while True:
        try:
            return work()
        except Exception as error:
            pause = pause_before(error, attempt)
            answered = getattr(error, "response", None) is not None or is_short(error)
            if pause is None or not (connections or answered):
                raise
        time.sleep(pause)
        attempt += 1


def is_short(error: Exception) -> bool:
    """Whether this is how the Hub's client says that a body had another length than the file."""
    return isinstance(error, OSError) and "Consistency check failed" in str(error)
