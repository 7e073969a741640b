"""`porter.check`: an output of porter against its receipt, and the digests that a receipt still lacks."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from porter import system
from porter.errors import PorterError, UnsupportedError, UsageError
from porter.execution.leftovers import FRESH, RECEIPT, SIGNATURE, lock_output, unlock_output
from porter.execution.receipts import LARGEST, Receipt, read_receipt, receipt_bytes, seal
from porter.execution.watch import Watch
from porter.planning.arguments import as_path
from porter.sources.buckets.bucket_address import BucketAddress, parse_address
from porter.sources.paths import locate
from porter.verification.integrity import (
    DIFFERENT,
    Directory,
    FileState,
    Output,
    OutputCheck,
    check_files,
    digest_file,
    find_file,
    tensors_in,
    tensors_problem,
)
from porter.verification.signatures import check_key, signature_problem
from porter.wording import command, flag, option


def check(
    out: str | Path,
    *,
    record: bool = False,
    quick: bool = False,
    public_key: str | Path | None = None,
    signature: str | Path | None = None,
    watch: Watch | None = None,
) -> OutputCheck:
    """Hold every file of a directory, or a folder at `s3://…`, that porter wrote against its receipt.

    With `record` the digests, sizes and the like that the receipt lacks are taken from what is there now and
    added, atomically; nothing else is changed, and nothing is added where a file differs. With `quick`
    contents are not read. With `public_key` the signature must hold too: `model.sig` in the directory, or the
    file `signature`; that needs the model-signing package (the extra `sign`). Raises UsageError for what is
    no directory, UnsupportedError where there is no receipt, MalformedError for a damaged one.

    >>> done = porter.convert("gemma-2b/", "out/", to="litgpt")
    >>> porter.check("out/").verdict
    'verified'
    """
    if record and quick:
        raise UsageError(
            f"{flag('record')} has to read what {flag('quick')} leaves out", hint="leave out one"
        )
    if signature is not None and public_key is None:
        raise UsageError("a signature is verified with a key", hint=f"name it with {option('public-key')}")
    if public_key is not None and (record or quick):
        word = (
            f"{flag('quick')} reads no contents"
            if quick
            else f"{flag('record')} changes the receipt, which is signed too"
        )
        raise UsageError(
            f"{word}, so that no signature can hold", hint=f"leave out {option('public-key')}, or that"
        )
    watch = watch or Watch()
    if isinstance(out, str) and (address := parse_address(out)) is not None:
        if public_key is not None:
            raise UsageError("only a directory on this machine can be held against a signature")
        return _check_bucket(address, record, quick, watch)
    root = Path(out).expanduser()
    if root.is_file():
        raise UsageError(f"{out} is a file", hint=f"name the directory that `convert` made: {root.parent}")
    if not root.is_dir():
        raise UsageError(f"there is no directory at {out}", hint="give the directory that `convert` made")
    if record:
        real = root.resolve()
        lock = lock_output(real)
        try:
            found, receipt = _check(root, quick, watch)
            return _record(found, receipt, watch) if found.verdict != "differs" else found
        finally:
            unlock_output(real, lock)
    if public_key is not None:
        check_key(as_path(public_key, "public_key"))
    found = _check(root, quick, watch)[0]
    if public_key is None or found.verdict == "differs":
        return found
    place = root / SIGNATURE if signature is None else as_path(signature, "signature")
    problem = signature_problem(root, place, as_path(public_key, "public_key"))
    return replace(found, signature="differs" if problem else "verified", signature_detail=problem)


def _check(root: Path, quick: bool, watch: Watch) -> tuple[OutputCheck, Receipt]:
    receipt = _receipt(root)
    return _checked(Directory(root), root, receipt, quick, watch), receipt


def _check_bucket(address: BucketAddress, record: bool, quick: bool, watch: Watch) -> OutputCheck:
    from porter.sources.buckets.bucket_listing import open_bucket
    from porter.verification.bucket_output import BucketOutput

    output = BucketOutput(open_bucket(address))
    content = output.content(RECEIPT, LARGEST)
    if content is None:
        raise _no_receipt(address.url)
    receipt = read_receipt(content)
    found = _checked(output, address.url, receipt, quick, watch)
    if not record or found.verdict == "differs":
        return found
    late = [file for file in found.files if file.state == "unverified"]
    watch.expect(sum(file.size or 0 for file in late))
    sums = {file.name: output.sums(file.name, watch) for file in late}
    files = tuple(
        replace(file, state="recorded", sha256=sums[file.name].sha256, detail=None)
        if file.name in sums
        else file
        for file in found.files
    )
    content, recorded = _with_digests(files, receipt, receipt.tensors or output.tensors())
    if content is None:
        return found
    output.replace(RECEIPT, content)
    return replace(found, files=files, lacks=(), recorded=recorded)


def _checked(output: Output, out: Path | str, receipt: Receipt, quick: bool, watch: Watch) -> OutputCheck:
    files = tuple(check_files(output, receipt, watch, quick=quick))
    # Where files differ, what their headers say is no news.
    alike = not any(file.state in DIFFERENT for file in files)
    return OutputCheck(
        out=out,
        plan=receipt.plan,
        source_dialect=str(receipt.content.get("from", "")),
        target_dialect=str(receipt.content.get("to", "")),
        files=files,
        tensors=tensors_problem(output, receipt) if alike else None,
        lacks=receipt.lacks,
        recorded=(),
        quick=quick,
        fingerprint=receipt.fingerprint,
    )


def _receipt(root: Path) -> Receipt:
    if not os.path.lexists(root / RECEIPT):
        raise _no_receipt(str(root))
    return read_receipt(receipt_bytes(locate(root, RECEIPT)))


def _no_receipt(where: str) -> UnsupportedError:
    return UnsupportedError(
        f"{where} holds no {RECEIPT}",
        cause="porter did not write it, or the receipt was removed",
        hint=f"`{command('verify', 'SRC', 'OUT')}` compares what any tool has made with its source",
    )


def _record(found: OutputCheck, receipt: Receipt, watch: Watch) -> OutputCheck:
    """The same with what the receipt lacked, once that is written."""
    files: list[FileState] = []
    root = Path(found.out)
    watch.expect(sum(file.size or 0 for file in found.files if file.state == "unverified"))
    for file in found.files:
        path = find_file(root, file.name)
        if path is None:
            raise PorterError(f"{file.name} is gone", hint="something else writes to this directory")
        if file.state == "unverified":
            sums = digest_file(path, file.name, watch)
            file = replace(file, state="recorded", size=sums.size, sha256=sums.sha256, detail=None)
        files.append(file)
    content, recorded = _with_digests(files, receipt, receipt.tensors or tensors_in(root))
    if content is None:
        return found
    _replace_receipt(root, content)
    return replace(found, files=tuple(files), lacks=(), recorded=recorded)


def _with_digests(
    files: Sequence[FileState], receipt: Receipt, tensors: str | None
) -> tuple[bytes | None, tuple[str, ...]]:
    """A receipt that says what this one lacks, and what that is; None where it lacks nothing."""
    late = [
        file.name for file in files if file.sha256 is not None and receipt.files[file.name].sha256 is None
    ]
    recorded = (*(f"the digest of {name}" for name in late), *receipt.lacks)
    if not recorded:
        return None, ()
    earlier, said = receipt.content.get("recorded_later"), receipt.content["files"]
    content: dict[str, Any] = {
        **receipt.content,
        "files": {f.name: {**said[f.name], "size": f.size, "sha256": f.sha256} for f in files},
        "tensors": tensors,
        "recorded_later": sorted({*(earlier if isinstance(earlier, list) else ()), *late}),
    }
    return seal(content), recorded


def _replace_receipt(root: Path, content: bytes) -> None:
    """Puts another receipt in the place of the one that is there: either of the two stands there, whole."""
    old, fresh = root / RECEIPT, root / FRESH
    if old.is_symlink():
        raise UsageError(f"{old} is a link", cause="what it leads to may have other readers")
    mode = stat.S_IMODE(old.stat().st_mode)
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            with open(fd, "wb", closefd=False) as stream:
                stream.write(content)
            os.fchmod(fd, mode)
            system.sync_file(fd)
        finally:
            os.close(fd)
        fresh.replace(old)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    system.sync_directory(root)
