"""The receipt of an output: what was made of what, with each file's size and digest, and a seal over itself.

The seal is a sha256 over the receipt's own bytes with its 64 digits as zeros, so that no change of a single
byte goes unseen. It guards against damage, not against somebody who writes a new receipt. Receipts of schema
1 had neither seal nor sizes; they are read, and what they lack is said.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from porter.containers.base import StoredTensor
from porter.errors import MalformedError, PorterError, UnsupportedError
from porter.execution.leftovers import FRESH, RECEIPT, SIGNATURE
from porter.reading.json_text import RECEIPT as LIMIT
from porter.reading.json_text import parse_json
from porter.reading.regular import read_regular
from porter.sources.paths import unsafe_path
from porter.untrusted import quoted
from porter.wording import command

SCHEMA = 2

# Bytes that are looked at.
LARGEST = LIMIT.nbytes

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_FINGERPRINT = re.compile(r"porter[0-9]+:[0-9a-f]{64}")
_CRC32 = re.compile(r"[0-9a-f]{8}")
_BLANK = "0" * 64


@dataclass(frozen=True)
class Recorded:
    """What a receipt says of a file: bytes, `sha256:<hex>` and CRC-32, each None where it does not say."""

    size: int | None
    sha256: str | None
    crc32: int | None = None


@dataclass(frozen=True)
class Receipt:
    """A receipt that has been read. `tensors` is the digest of the planned tensors, `fingerprint` that of the
    weights (see `porter.verification.fingerprints`), or None.

    `lacks` are what a receipt of today has and this one has not, in words.
    """

    content: Mapping[str, Any]
    files: Mapping[str, Recorded]
    plan: str
    tensors: str | None
    lacks: tuple[str, ...]
    fingerprint: str | None = None


def seal(content: Mapping[str, Any]) -> bytes:
    """The receipt's bytes: `content` with the schema in front and the seal at the end."""
    body = {key: value for key, value in content.items() if key not in ("schema", "seal")}
    text = json.dumps({"schema": SCHEMA, **body, "seal": f"sha256:{_BLANK}"}, indent=2) + "\n"
    head, _, tail = text.rpartition(_BLANK)
    return f"{head}{hashlib.sha256(text.encode()).hexdigest()}{tail}".encode()


def tensors_digest(tensors: Iterable[StoredTensor]) -> str:
    """`sha256:<hex>` over names, dtypes and shapes, whatever the order and the place of the tensors."""
    rows = sorted(f"{tensor.name}\0{tensor.dtype.name}\0{list(tensor.shape)}\n" for tensor in tensors)
    return f"sha256:{hashlib.sha256(''.join(rows).encode()).hexdigest()}"


def receipt_bytes(path: Path) -> bytes:
    """The receipt at `path`. Raises MalformedError for what is no file, and for a longer one."""
    return read_regular(path, RECEIPT, LARGEST)


def read_receipt(data: bytes) -> Receipt:
    """Raises MalformedError for a receipt that is damaged or says what none says, UnsupportedError for one of
    a newer porter."""
    content = receipt_content(data)
    schema, sealed = content.get("schema"), content.get("seal")
    if sealed is not None or schema != 1:
        _check_seal(data, sealed)
    if type(schema) is not int or schema < 1:
        raise _damaged(f"its schema is {quoted(schema)}")
    if schema > SCHEMA:
        raise UnsupportedError(
            f"{RECEIPT} has schema {schema}, and this porter reads up to {SCHEMA}", hint="use a newer porter"
        )
    plan, files, tensors = content.get("plan"), content.get("files"), content.get("tensors")
    if not isinstance(plan, str) or not _SHA256.fullmatch(plan):
        raise _damaged(f"it names the plan {quoted(plan)}")
    if not isinstance(files, dict):
        raise _damaged("it lists no files")
    if tensors is not None and not (isinstance(tensors, str) and _SHA256.fullmatch(tensors)):
        raise _damaged(f"its digest of the tensors is {quoted(tensors)}")
    lacks = []
    if sealed is None:
        lacks.append("a seal over itself")
    if any(isinstance(said, dict) and said.get("size") is None for said in files.values()):
        lacks.append("the sizes of its files")
    if tensors is None:
        lacks.append("the planned tensors")
    recorded = {name: _recorded(name, said) for name, said in files.items()}
    name = content.get("fingerprint")
    if name is not None and not (isinstance(name, str) and _FINGERPRINT.fullmatch(name)):
        raise _damaged(f"its fingerprint is {quoted(name)}")
    return Receipt(content, recorded, plan, tensors, tuple(lacks), name)


def names_in(root: Path) -> Iterator[str]:
    """Everything in an output but directories, by its path within."""
    for folder, folders, files in os.walk(root, onerror=_raise):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in (*files, *links):
            yield Path(folder, name).relative_to(root).as_posix()


def _raise(error: OSError) -> None:
    raise PorterError(f"{error.filename} cannot be listed", cause=error.strerror) from error


def unlisted(receipt: Receipt, names: Iterable[str]) -> list[str]:
    """Those of an output's files that are not porter's: neither in the receipt nor put beside it since."""
    return sorted(set(names) - receipt.files.keys() - {RECEIPT, FRESH, SIGNATURE})


def receipt_content(data: bytes) -> dict[str, Any]:
    """What a receipt says, unchecked. Raises MalformedError for what is no JSON object."""
    try:
        content = parse_json(data, RECEIPT, LIMIT, unique=True)
    except MalformedError as error:
        raise _damaged(error.cause or error.message) from None
    if not isinstance(content, dict):
        raise _damaged("expected an object")
    return content


def _check_seal(data: bytes, sealed: object) -> None:
    if not isinstance(sealed, str) or not _SHA256.fullmatch(sealed):
        raise _damaged("it has no seal over itself")
    digits = sealed.partition(":")[2].encode()
    head, _, tail = data.rpartition(digits)
    if hashlib.sha256(head + _BLANK.encode() + tail).digest() != bytes.fromhex(digits.decode()):
        raise _damaged("its bytes do not have the digest that its seal states")


def _recorded(name: str, said: object) -> Recorded:
    if reason := unsafe_path(name):
        raise _damaged(f"it names a file {quoted(name)}, which {reason}")
    if not isinstance(said, dict):
        raise _damaged(f"what it says of {name} is {quoted(said)}")
    size, digest = said.get("size"), said.get("sha256")
    if size is not None and (type(size) is not int or size < 0):
        raise _damaged(f"the size of {name} is {quoted(size)}")
    if digest is not None and not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
        raise _damaged(f"the digest of {name} is {quoted(digest)}")
    crc = said.get("crc32")
    if crc is not None and not (isinstance(crc, str) and _CRC32.fullmatch(crc)):
        raise _damaged(f"the CRC-32 of {name} is {quoted(crc)}")
    return Recorded(size, digest, None if crc is None else int(crc, 16))


def _damaged(cause: str) -> MalformedError:
    return MalformedError(
        f"{RECEIPT} is damaged",
        cause=cause,
        hint="nothing in this directory can be relied on; convert again, or "
        f"`{command('verify', 'SRC', 'OUT')}`",
    )
