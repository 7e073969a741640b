"""Objects that are made in parts: begun, filled from anywhere and in any order, completed or given up.

Until an upload is completed nobody can read it. Every part carries its CRC-32, which the store verifies; so
does the whole, composed of its parts'. A part may be sent again: the last one counts. What goes through here
needs nothing but `Upload`, so parts of one object may come from several machines.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from porter.errors import PorterError
from porter.execution.crc import joined
from porter.sources.buckets.bucket_address import BucketAddress
from porter.sources.buckets.bucket_errors import Unreachable, persistently
from porter.sources.buckets.bucket_store import s3_endpoint, s3_session

# Of the client itself.
_CLIENT_ATTEMPTS = 4

# S3's own limit.
MOST_PARTS = 10_000


@dataclass(frozen=True)
class Upload:
    """An object in the making. It can be sent to another machine; who asks is not in it."""

    address: BucketAddress
    name: str
    id: str


class SentPart(NamedTuple):
    """Bytes `start` to `end` of an object, as the store has them under `etag`; their sha256 where known."""

    number: int
    start: int
    end: int
    etag: str
    crc: int
    digest: str = ""


def s3_client() -> Any:
    """boto3's client, from the environment; threads may share it."""
    return _client(s3_endpoint())


@cache
def _client(endpoint: str | None) -> Any:
    session = s3_session()
    from botocore.config import Config

    return session.client(
        "s3",
        endpoint_url=endpoint,
        region_name=session.region_name or "us-east-1",
        config=Config(
            retries={"mode": "standard", "max_attempts": _CLIENT_ATTEMPTS},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=16,
        ),
    )


def ask(call: str, address: BucketAddress, name: str | None, **given: Any) -> Any:
    """One request to the store, tried again where the network or the server fails. Raises PorterErrors."""
    return _ask(call, address, name, given, time.sleep)


def _ask(
    call: str,
    address: BucketAddress,
    name: str | None,
    given: Mapping[str, Any],
    wait: Callable[[float], Any],
) -> Any:
    """`wait` is as in `persistently`."""
    key = {} if name is None else {"Key": address.key(name)}
    return persistently(
        lambda: getattr(s3_client(), call)(Bucket=address.bucket, **key, **given), address, name, wait
    )


def content(address: BucketAddress, name: str, most: int) -> tuple[bytes, Any]:
    """At most so many bytes of an object, and what the store says of it."""

    def get() -> tuple[bytes, Any]:
        answer = s3_client().get_object(Bucket=address.bucket, Key=address.key(name))
        return answer["Body"].read(most), answer

    return persistently(get, address, name)


def begin(address: BucketAddress, name: str) -> Upload:
    made = ask(
        "create_multipart_upload", address, name, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT"
    )
    return Upload(address, name, made["UploadId"])


def send(
    upload: Upload,
    number: int,
    start: int,
    data: bytes | bytearray | memoryview,
    crc: int,
    wait: Callable[[float], Any] = time.sleep,
) -> SentPart:
    """Sends one part, numbered from 1. The store refuses it where what arrives has another CRC-32."""
    given = {
        "UploadId": upload.id,
        "PartNumber": number,
        "Body": data if isinstance(data, bytes | bytearray) else bytes(data),
        "ChecksumCRC32": _spelled(crc),
    }
    answer = _ask("upload_part", upload.address, upload.name, given, wait)
    stored = answer.get("ChecksumCRC32")
    if stored is not None and stored != _spelled(crc):
        raise PorterError(
            f"{upload.name}: part {number} did not arrive as it was sent",
            cause=f"expected CRC-32 {_spelled(crc)}, the store has {stored}",
        )
    return SentPart(number, start, start + len(data), answer["ETag"], crc)


def sent(upload: Upload) -> dict[int, tuple[str, int]]:
    """Etag and size of the parts that the store has, by number; none where the upload is gone."""
    found: dict[int, tuple[str, int]] = {}
    marker: int | None = 0
    while marker is not None:
        more = {"PartNumberMarker": marker} if marker else {}
        try:
            page = ask("list_parts", upload.address, upload.name, UploadId=upload.id, **more)
        except PorterError as error:
            if type(error) is Unreachable:
                raise
            return {}
        found |= {part["PartNumber"]: (part["ETag"], part["Size"]) for part in page.get("Parts", ())}
        marker = page.get("NextPartNumberMarker") if page.get("IsTruncated") else None
    return found


def composed(parts: Iterable[SentPart]) -> int:
    """The CRC-32 of all parts one after the other."""
    crc = 0
    for part in sorted(parts):
        crc = joined(crc, part.crc, part.end - part.start)
    return crc


def check_whole(name: str, parts: Mapping[int, SentPart], size: int) -> None:
    """Raises PorterError unless the parts, by number, hold each byte of an object once."""
    ordered = [parts[number] for number in sorted(parts)]
    ends = [0, *(part.end for part in ordered)]
    if [part.start for part in ordered] != ends[:-1] or ends[-1] != size:
        raise PorterError(f"{name}: its parts do not adjoin, or some are missing")


def complete(upload: Upload, parts: Mapping[int, SentPart], size: int) -> None:
    """Makes the object readable, where nothing has that key. Raises Occupied where something has it.

    The parts must be all, and adjoin.
    """
    check_whole(upload.name, parts, size)
    ordered = [parts[number] for number in sorted(parts)]
    crc = composed(ordered)
    listed = [
        {"PartNumber": part.number, "ETag": part.etag, "ChecksumCRC32": _spelled(part.crc)}
        for part in ordered
    ]
    try:
        ask(
            "complete_multipart_upload",
            upload.address,
            upload.name,
            UploadId=upload.id,
            MultipartUpload={"Parts": listed},
            ChecksumCRC32=_spelled(crc),
            ChecksumType="FULL_OBJECT",
            MpuObjectSize=size,
            IfNoneMatch="*",
        )
    except PorterError:
        # An answer that was lost makes the next try fail: is it there, and ours?
        if not _is_there(upload, ordered, crc, size):
            raise


def _is_there(upload: Upload, parts: list[SentPart], crc: int, size: int) -> bool:
    with contextlib.suppress(PorterError):
        now = ask("head_object", upload.address, upload.name, ChecksumMode="ENABLED")
        if now["ContentLength"] != size:
            return False
        # Where the store encrypts with keys of its own, etags are no digests.
        if now.get("ChecksumType") == "FULL_OBJECT" and "ChecksumCRC32" in now:
            return bool(now["ChecksumCRC32"] == _spelled(crc))
        digests = b"".join(bytes.fromhex(part.etag.strip('"')) for part in parts if len(part.etag) == 34)
        return bool(
            now["ETag"] == f'"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"'
        )
    return False


def give_up(upload: Upload) -> None:
    """Ends an upload, and lets its parts go. One that is gone already is fine."""
    try:
        ask("abort_multipart_upload", upload.address, upload.name, UploadId=upload.id)
    except Unreachable:
        raise
    except PorterError as error:
        if "NoSuchUpload" not in str(error) and "missing" not in error.message:
            raise


def unfinished(address: BucketAddress, folder: str) -> list[tuple[Upload, Any]]:
    """Uploads into a folder that were neither completed nor given up, with when they were begun."""
    found: list[tuple[Upload, Any]] = []
    marker: Mapping[str, str] | None = {}
    while marker is not None:
        page = ask("list_multipart_uploads", address, None, Prefix=folder, **marker)
        for item in page.get("Uploads", ()):
            place = BucketAddress(address.scheme, address.bucket, "")
            found.append((Upload(place, item["Key"], item["UploadId"]), item["Initiated"]))
        more = page.get("IsTruncated")
        marker = (
            {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }
            if more
            else None
        )
    return found


def keys(address: BucketAddress, most: int | None = None) -> list[str]:
    """The names of objects in a folder, at most `most`."""
    found: list[str] = []
    more: dict[str, str] | None = {}
    prefix = f"{address.folder}/" if address.folder else ""
    while more is not None:
        limit = {} if most is None else {"MaxKeys": most}
        page = ask("list_objects_v2", address, None, Prefix=prefix, **limit, **more)
        found += [item["Key"].removeprefix(prefix) for item in page.get("Contents", ())]
        more = {"ContinuationToken": page["NextContinuationToken"]} if page.get("IsTruncated") else None
        if most is not None and len(found) >= most:
            break
    return found


def remove(address: BucketAddress, name: str) -> None:
    ask("delete_object", address, name)


def _spelled(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4, "big")).decode()
