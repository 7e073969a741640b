"""What goes wrong between here and Kaggle, said for the person at the keyboard.

`translated` turns every error of `kagglehub`, of its HTTP library and of the file system into a
`PorterError`. The client's own errors are not kept as causes: they quote addresses that are signed. No
credential appears in a message.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from porter.errors import AccessError, DifferenceError, PorterError, UsageError
from porter.sources.kaggle.kaggle_models import KaggleReference
from porter.wording import command, flag

SETTINGS = "https://www.kaggle.com/settings/api"

_SECRET = re.compile(r"(?i)\b(bearer|basic)\s+[^\s'\"]+|\bKGAT_\w+")
# The part after ? of a storage address is a signature, which is as good as a token while it lasts.
_QUERY = re.compile(r"(https?://[^\s'\"?]+)\?[^\s'\"]*")


@contextmanager
def translated(ref: KaggleReference) -> Iterator[None]:
    """Run a piece of work on `ref`; raises PorterError and its kinds, never the client's own errors."""
    try:
        yield
    except PorterError:
        raise
    except Exception as error:
        told = _translate(error, ref)
        if told is None:
            raise
        raise told from None


def secrets() -> tuple[str, ...]:
    """The credentials that the client finds: KAGGLE_API_TOKEN, KAGGLE_USERNAME and KAGGLE_KEY, or files.

    Raises AccessError for a file that cannot be understood.
    """
    from kagglehub.config import get_kaggle_credentials

    try:
        found = get_kaggle_credentials()
    except (ValueError, OSError) as error:
        raise AccessError(
            "the Kaggle credentials cannot be read",
            # It names the file, and quotes nothing from it.
            cause=str(error),
            hint=f"put a fresh kaggle.json from {SETTINGS} there, or set KAGGLE_API_TOKEN",
        ) from None
    values = (getattr(found, name, None) for name in ("api_key", "key"))
    return tuple(value for value in values if value)


def offline_error(ref: KaggleReference) -> UsageError:
    return UsageError(
        f"{ref.label} is not in the local cache, and porter is offline",
        cause=f"HF_HUB_OFFLINE or {flag('offline')} forbids the network",
        hint=f"go online once for `{command('download', ref.label)}`, or give a local directory",
    )


def missing_credentials(ref: KaggleReference) -> AccessError:
    return AccessError(
        f"{ref.label} needs Kaggle credentials, and there are none",
        cause="found none of KAGGLE_API_TOKEN, KAGGLE_USERNAME with KAGGLE_KEY, ~/.kaggle/access_token, "
        "~/.kaggle/kaggle.json",
        hint=f"accept the licence at {ref.page}, then set KAGGLE_API_TOKEN to a token from {SETTINGS}",
    )


def _translate(error: Exception, ref: KaggleReference) -> PorterError | None:
    import requests
    from kagglehub import exceptions as kaggle

    if isinstance(error, (kaggle.UnauthenticatedError, kaggle.CredentialError)):
        return missing_credentials(ref)
    if isinstance(error, kaggle.DataCorruptionError):
        return DifferenceError(
            f"a file of {ref.label} differs from what Kaggle holds",
            cause="its MD5 is not the one that Kaggle states",
            hint="run it again: the file has been removed; if it happens twice, suspect a proxy",
        )
    if isinstance(error, kaggle.NotFoundError):
        return _unknown(ref)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return _http(error.response.status_code, error, ref)
    # The HTTP library's errors are OSErrors too.
    if isinstance(error, (requests.RequestException, ConnectionError, TimeoutError)):
        return PorterError(
            f"cannot reach Kaggle for {ref.label}",
            cause=_plain(error),
            hint=f"check the connection, then run it again; {flag('offline')} uses what is cached",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PorterError(
            f"the disk became full while fetching {ref.label}",
            cause=error.strerror,
            hint="free some space, or choose another disk with KAGGLEHUB_CACHE; then run it again",
        )
    if isinstance(error, ValueError) and "ModelFramework" in str(error):
        return UsageError(f"{ref.label} names no framework that Kaggle knows", cause=repr(ref.framework))
    if isinstance(error, (OSError, ValueError, kaggle.BackendError)):
        return PorterError(f"fetching {ref.label} failed", cause=_plain(error), hint="run it again")
    return None


def _http(status: int, error: Exception, ref: KaggleReference) -> PorterError:
    if status in (401, 403) and not secrets():
        return missing_credentials(ref)
    if status == 401:
        return AccessError(
            "Kaggle refuses the credentials",
            cause="they are invalid, expired or revoked",
            hint=f"create a token at {SETTINGS}; KAGGLE_API_TOKEN is used before all others",
        )
    if status == 403:
        return AccessError(
            f"your Kaggle account has no access to {ref.label}",
            cause="its licence has not been accepted by that account, or the model is private",
            hint=f"accept the licence at {ref.page}, then run it again",
        )
    if status == 404:
        return _unknown(ref)
    if status == 429:
        return PorterError("Kaggle asks for a pause: too many requests", hint="wait a few minutes")
    return PorterError(
        f"Kaggle answered {ref.label} with status {status}",
        cause=_plain(error),
        hint="run it again later" if status >= 500 else None,
    )


def _unknown(ref: KaggleReference) -> UsageError:
    return UsageError(
        f"there is no {ref.label}, or it is private",
        cause="Kaggle knows no such model, variation or version",
        hint=f"its variations and versions are listed at {ref.page}",
    )


def _plain(error: Exception) -> str:
    return _first_line(str(error)) or type(error).__name__


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return clean(lines[0]) if lines else ""


def clean(text: str) -> str:
    """The text without credentials and signatures."""
    try:
        known = secrets()
    except PorterError:
        known = ()
    for secret in known:
        text = text.replace(secret, "<token>")
    return _QUERY.sub(r"\1", _SECRET.sub("<token>", text))
