"""What a store refuses, in porter's words: no bucket, no object, no permission, another region.

Both clients report it: obstore in an exception's text, boto3 in a dictionary. The first line of the text and
the `<Code>` in the store's answer are all that is shown of it; what follows may name internals.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from porter.errors import AccessError, ChangedError, MalformedError, PorterError, UnsupportedError
from porter.sources.buckets.bucket_address import BucketAddress
from porter.system.extras import install_line

_STATUS = re.compile(r"status code: ([0-9]{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_REGION = re.compile(r"<Region>([a-z0-9-]{1,40})</Region>|expecting '([a-z0-9-]{1,40})'")
_ENDPOINT = re.compile(r"<Endpoint>([A-Za-z0-9.-]{1,120})</Endpoint>")

# What obstore says of a key in a listing, with the key in quotes.
_ODD_NAME = re.compile(r"invalid path: .*?(\"[^\n]{1,300}?\")(?: contained|: )")

_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the machine's role say who you are",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
    "az": "AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or `az login`",
}

_GRANTS = (
    "whoever owns the bucket grants it: reading needs GetObject and ListBucket, writing PutObject, "
    "DeleteObject, AbortMultipartUpload, ListBucketMultipartUploads and ListMultipartUploadParts"
)

# Codes of S3 for "who are you", whatever the number beside them.
_UNKNOWN_USER = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
}
_OTHER_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}

# Tries beyond the clients' own, which do not count a body that is cut; a store that is busy says so for long.
ATTEMPTS = 5
PAUSE_SECONDS = 0.2

T = TypeVar("T")

# Answers that may be another one when they are asked for again.
TRANSIENT = {408, 429, 500, 502, 503, 504}


class Unreachable(PorterError):
    """The network or the server failed: worth to be tried again."""


class Occupied(PorterError):
    """A condition of a write does not hold: somebody else has written there."""


def needs_extra(package: str, extra: str, what: str) -> UnsupportedError:
    """The error for a package that is not installed."""
    return UnsupportedError(
        f"{what} needs {package}, which is not installed", hint=f"{install_line(extra)} (the extra {extra})"
    )


def persistently(
    call: Callable[[], T],
    address: BucketAddress,
    what: str | None = None,
    wait: Callable[[float], Any] = time.sleep,
) -> T:
    """What `call` returns, tried again while the network or the server fails. Raises PorterErrors.

    `wait` is called with seconds, between two tries; where it returns something true there is no further one.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with translated(address, what):
                return call()
        except Unreachable:
            if attempt == ATTEMPTS or wait(PAUSE_SECONDS * 2**attempt):
                raise
    raise AssertionError("the last try returns or raises")


@contextmanager
def translated(address: BucketAddress, what: str | None = None) -> Iterator[None]:
    """Turns the clients' exceptions about `address`, and the file `what` in it, into PorterErrors."""
    try:
        yield
    except PorterError:
        raise
    except Exception as error:
        found = porter_error(error, address, what)
        if found is None:
            raise
        raise found from error


def porter_error(error: Exception, address: BucketAddress, what: str | None) -> PorterError | None:
    """None for an exception that is none of a client's."""
    module = type(error).__module__.partition(".")[0]
    missing = isinstance(error, FileNotFoundError)
    if module not in ("obstore", "botocore", "boto3") and not missing:
        return None
    status, code, text = _told(error, missing)
    place = address.url if what is None else f"{address.url}/{what}"
    said = f"{status or 'no answer'}{f' {code}' if code else ''}: {_brief(text)}"
    if status is None and (found := _ODD_NAME.search(text)) is not None:
        return MalformedError(
            f"{address.url} holds an object whose name is no path",
            cause=f"its key is {found[1]}",
            hint="names with //, . or .. in them cannot be read: copy the model to a folder of its own",
        )
    if code in _OTHER_REGION or status == 301 or "redirect without LOCATION" in text:
        return _other_region(address, text, said)
    if code in ("NoSuchBucket", "ContainerNotFound"):
        return PorterError(
            f"there is no {'container' if address.scheme == 'az' else 'bucket'} {address.bucket!r}",
            cause=f"the store that {place} lies in does not know it",
            hint="look for a slip in its name"
            + ("; AWS_ENDPOINT_URL says which store is asked" if address.scheme == "s3" else ""),
        )
    if status == 404 or missing:
        return MalformedError(f"{place} is missing", cause="the store holds no such object")
    if status == 401 or code in _UNKNOWN_USER or "credential" in text.lower():
        return AccessError(
            f"{address.store_url} does not know who asks",
            cause=said,
            hint=_CREDENTIALS.get(address.scheme, "porter reads pages that need no login"),
        )
    if status == 403:
        return AccessError(
            f"no permission for {place}",
            cause=said,
            hint=_GRANTS if address.scheme == "s3" else _CREDENTIALS.get(address.scheme),
        )
    if status in (409, 412):
        return Occupied(f"{place} is not as it was expected", cause=said)
    if status is None or status in TRANSIENT:
        return Unreachable(
            f"{address.store_url} cannot be reached" if status is None else f"{address.store_url} is busy",
            cause=said,
            hint="run it again",
        )
    return PorterError(f"{address.store_url} refuses", cause=f"{place}: {said}")


def changed(address: BucketAddress, name: str, expected: str, found: str) -> ChangedError:
    return ChangedError(
        f"{name} is not the file that was planned for",
        cause=f"{address.url} held {expected}, now {found}",
        hint="nothing was published; run it again when the source is at rest",
    )


def _told(error: Exception, missing: bool) -> tuple[int | None, str, str]:
    """The status, S3's code, and the text of an exception."""
    answer: Any = getattr(error, "response", None)
    if isinstance(answer, dict):
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        told = answer.get("Error", {})
        region = told.get("Region") or answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get(
            "x-amz-bucket-region"
        )
        text = str(told.get("Message", "")) + (f"<Region>{region}</Region>" if region else "")
        code = str(told.get("Code", ""))
        return status, "" if code.isdigit() else code, text
    text = str(error)
    status = int(found[1]) if (found := _STATUS.search(text)) else None
    kind = type(error).__name__
    by_kind = {"PreconditionError": 412, "AlreadyExistsError": 409, "PermissionDeniedError": 403}
    by_kind |= {"UnauthenticatedError": 401, "NoCredentialsError": 401, "PartialCredentialsError": 401}
    by_kind |= {"ProfileNotFound": 401}
    if missing:
        status = 404
    return status or by_kind.get(kind), found[1] if (found := _CODE.search(text)) else "", text


def _brief(text: str) -> str:
    line = text.split("\n", 1)[0].split("<Region>")[0].strip()
    line = line.split(" - Server returned")[0].split(": <?xml")[0]
    return line[:200] or "no reason given"


def _other_region(address: BucketAddress, text: str, said: str) -> PorterError:
    region = (found[1] or found[2]) if (found := _REGION.search(text)) else None
    endpoint = found[1] if (found := _ENDPOINT.search(text)) else None
    where = region or endpoint
    return PorterError(
        f"the bucket {address.bucket!r} is in another region",
        cause=f"it is in {where}" if where else said,
        hint=f"AWS_REGION={region}" if region else "AWS_REGION=… names the region that the bucket is in",
    )
