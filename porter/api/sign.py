"""`porter.sign`: an output of porter, checked and then signed with a private key."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from porter.api.check import check
from porter.errors import DifferenceError, UsageError
from porter.execution.leftovers import SIGNATURE
from porter.execution.watch import Watch
from porter.planning.arguments import as_path
from porter.sources.buckets.bucket_address import parse_address
from porter.verification.integrity import DIFFERENT, OutputCheck
from porter.verification.signatures import check_key, sign_directory

# Where the password of a private key that has one is looked for: what is typed, others can read.
PASSWORD = "PORTER_KEY_PASSWORD"


@dataclass(frozen=True)
class Signed:
    """What was signed: the directory, where the signature is, and what `check` found before."""

    out: Path
    signature: Path
    files: int
    verdict: str


def sign(
    out: str | Path,
    *,
    private_key: str | Path,
    signature: str | Path | None = None,
    watch: Watch | None = None,
) -> Signed:
    """Sign every file of a directory that porter wrote; the signature is `model.sig` in it unless named.

    It is held against its receipt first: DifferenceError where something in it is not what porter wrote. The
    password of the key, if it has one, is in the environment variable PORTER_KEY_PASSWORD. Raises UsageError
    for a key that cannot sign, UnsupportedError without the model-signing package (the extra `sign`).

    >>> done = porter.convert("gemma-2b/", "out/", to="litgpt")
    >>> made = porter.sign("out/", private_key="key.pem")
    >>> made.signature.name, made.verdict
    ('model.sig', 'verified')
    """
    if isinstance(out, str) and parse_address(out) is not None:
        raise UsageError("only a directory on this machine can be signed", hint="sign it before it is copied")
    root = Path(out).expanduser()
    key = as_path(private_key, "private_key")
    place = root / SIGNATURE if signature is None else as_path(signature, "signature")
    check_key(key)
    found = check(root, watch=watch)
    if found.verdict == "differs":
        raise DifferenceError(f"{root} is not signed: it is not what porter wrote", cause=_difference(found))
    sign_directory(root, place, key, os.environ.get(PASSWORD))
    return Signed(root, place, len(found.files) + 1, found.verdict)


def _difference(found: OutputCheck) -> str:
    wrong = [f"{file.name} {file.state}" for file in found.files if file.state in DIFFERENT]
    return ", ".join(wrong[:6]) + (f" and {len(wrong) - 6} more" if len(wrong) > 6 else "") or str(
        found.tensors
    )
