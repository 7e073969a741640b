"""What goes wrong between here and the Hub, said for the person at the keyboard.

`translated` turns every error of the Hub's client, of its HTTP library and of the file system into a
`PorterError`; what is none of these passes through. A token never appears in a message, nor in what the
client itself logs.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from porter.errors import AccessError, PorterError, UsageError
from porter.sources.hub.hub_answers import refused_beyond, stated_pause
from porter.sources.names import HubReference
from porter.wording import command, flag

_SECRET = re.compile(r"(?i)bearer\s+[^\s'\"]+|\bhf_[A-Za-z0-9_]+|api_org_\w+")
# The part after ? of a storage address is a signature, which is as good as a token while it lasts. The client
# quotes addresses whole, and their ends alone.
_QUERY = re.compile(r"(https?://[^\s'\"?]+)\?[^\s'\"]*|\?[\w.~-]+=[^\s'\")]*")


@contextmanager
def translated(ref: HubReference, token: str | None = None) -> Iterator[None]:
    """Run a piece of Hub work on `ref`; raises PorterError and its kinds, never the client's own errors."""
    _clean_log()
    try:
        yield
    except PorterError:
        raise
    except Exception as error:
        told = _translate(error, ref, token)
        if told is None:
            raise
        # A traceback prints its causes in full, so one that quotes a token or a signature is left out.
        raise told from (None if _secret_in(error, token) else error)


def token_in(text: str, token: str | None = None) -> bool:
    return bool(_SECRET.search(text)) or bool(token and token in text)


def _secret_in(error: BaseException | None, token: str | None) -> bool:
    """Whether an error, or one that a traceback would print with it, quotes what is secret."""
    while error is not None:
        if token_in(str(error), token) or _QUERY.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def has_token(token: str | None) -> bool:
    from huggingface_hub import get_token

    return bool(token or get_token())


def http_error() -> type[Exception]:
    """The base of all errors of the client's HTTP library, a failing connection among them.

    That library is httpx or httpx2, depending on the client's version; its error is the client's own base.
    """
    from huggingface_hub.errors import HfHubHTTPError

    base: type[Exception] = HfHubHTTPError.__mro__[1]
    return base


def offline_error(ref: HubReference) -> UsageError:
    return UsageError(
        f"{ref.label} is not in the local cache, and porter is offline",
        cause=f"HF_HUB_OFFLINE or {flag('offline')} forbids the network",
        hint=f"go online once for `{command('download', ref.label)}`, or give a local directory",
    )


def access_error(ref: HubReference, token: str | None, cause: str | None = None) -> AccessError:
    """A gated repository: without a token, or with one whose account has not accepted the licence."""
    if has_token(token):
        return AccessError(
            f"your token has no access to {ref.repo}",
            cause=cause or "its licence has not been accepted by the account that the token belongs to",
            hint=f"accept the licence at {ref.licence_url} with that account; the token must cover it",
        )
    return AccessError(
        f"{ref.repo} is gated: its licence has to be accepted first",
        cause=cause or "no token was given",
        hint=f"accept the licence at {ref.licence_url}, then run `hf auth login` (or set HF_TOKEN)",
    )


def _translate(error: Exception, ref: HubReference, token: str | None) -> PorterError | None:
    from huggingface_hub import errors as hub

    if isinstance(error, hub.LocalEntryNotFoundError):
        if not isinstance(error.__cause__, Exception):
            return offline_error(ref)
        return _translate(error.__cause__, ref, token) or _failed(error, ref, token)
    if isinstance(error, hub.OfflineModeIsEnabled):
        return offline_error(ref)
    if isinstance(error, hub.HFValidationError):
        return UsageError(f"{ref.label} is no valid name on the Hub", cause=_plain(error, token))
    if isinstance(error, hub.HfHubHTTPError):
        return _http(error, ref, token)
    if isinstance(error, (http_error(), ConnectionError, TimeoutError)):
        return PorterError(
            f"cannot reach the Hub for {ref.label}",
            cause=_plain(error, token),
            hint="check the connection and HF_ENDPOINT, then run it again; "
            f"{flag('offline')} uses what is cached",
        )
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return PorterError(
                f"the disk became full while fetching {ref.label}",
                cause=error.strerror,
                hint="free some space and run it again; complete files are kept",
            )
        return _failed(error, ref, token)
    # The client says so of files above 50 GB when its xet part is missing.
    return _failed(error, ref, token) if isinstance(error, ValueError) else None


def _http(error: Exception, ref: HubReference, token: str | None) -> PorterError:
    from huggingface_hub import errors as hub

    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    said = str(getattr(error, "server_message", None) or "").splitlines()
    message = _clean(said[0], token) if said else None
    invalid = status == 401 and "invalid credentials" in str(error).lower()
    if invalid:
        return AccessError(
            "the Hub refuses the token",
            cause="it is invalid, expired or revoked",
            hint="run `hf auth login`, or correct HF_TOKEN, which is used before a stored login",
        )
    # GatedRepoError is a kind of RepositoryNotFoundError.
    if isinstance(error, hub.GatedRepoError):
        return access_error(ref, token)
    if isinstance(error, hub.RepositoryNotFoundError):
        known = has_token(token)
        return UsageError(
            f"there is no model {ref.repo} on the Hub, or it is private",
            cause="the account of your token cannot see it" if known else "it cannot be seen without a token",
            hint="check the spelling" + ("" if known else "; for a private model run `hf auth login` first"),
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return UsageError(
            f"{ref.repo} has no revision {ref.revision or 'main'!r}",
            hint=f"its branches and tags are listed at {ref.licence_url}/tree/main",
        )
    if isinstance(error, hub.EntryNotFoundError):
        return UsageError(f"{ref.label} lacks a file that was asked for", cause=_plain(error, token))
    if response is not None and refused_beyond(response):
        return PorterError(
            f"the storage behind the Hub refuses to send {ref.label}",
            cause=f"status {status} for an address that the Hub has signed",
            hint="run it again; is the clock of this machine right?",
        )
    if status in (401, 403):
        return access_error(ref, token, message)
    if status == 429:
        seconds = stated_pause(response)
        wait = "a few minutes" if seconds is None else f"{seconds:.0f} seconds"
        return PorterError(
            "the Hub asks for a pause: too many requests",
            cause=message,
            hint=f"wait {wait}" + ("" if has_token(token) else "; with a login more are allowed"),
        )
    return PorterError(
        f"the Hub answered {ref.label} with status {status}",
        cause=message or _plain(error, token),
        hint="run it again later; complete files are kept" if status >= 500 else None,
    )


def _failed(error: Exception, ref: HubReference, token: str | None) -> PorterError:
    return PorterError(f"fetching {ref.label} failed", cause=_plain(error, token), hint="run it again")


def _plain(error: Exception, token: str | None) -> str:
    """An error's first line that says something, with its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _clean(lines[0], token) if lines else type(error).__name__


class _Cleaned(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _clean(record.getMessage(), None), None
        return True


_CLEANED = _Cleaned()


def _clean_log() -> None:
    """The client logs the address of a transfer that it takes up again, signature and all."""
    import huggingface_hub.utils  # noqa: F401

    for handler in logging.getLogger("huggingface_hub").handlers:
        # Adding the same filter again changes nothing.
        handler.addFilter(_CLEANED)


def _clean(text: str, token: str | None) -> str:
    if token:
        text = text.replace(token, "<token>")
    return _QUERY.sub(lambda found: found[1] or "", _SECRET.sub("<token>", text))
