"""`porter.check`: an output of porter against its receipt, and the digests that a receipt still lacks."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

from porter import system
from porter.errors import PorterError, UnsupportedError, UsageError
from porter.execution.leftovers import RECEIPT, lock_output, unlock_output
from porter.execution.receipts import LARGEST, Receipt, read_receipt, seal
from porter.execution.watch import Watch
from porter.verification.integrity import (
    DIFFERENT,
    FRESH,
    FileState,
    OutputCheck,
    check_files,
    digest_file,
    find_file,
    tensors_in,
    tensors_problem,
)


def check(
    out: str | Path, *, record: bool = False, quick: bool = False, watch: Watch | None = None
) -> OutputCheck:
    """Hold every file of a directory that porter wrote against its receipt.

    With `record` the digests, sizes and the like that the receipt lacks are taken from what is there now and
    added, atomically; nothing else is changed, and nothing is added where a file differs. With `quick`
    contents are not read. Raises UsageError for what is no directory, UnsupportedError where there is no
    receipt, MalformedError for a damaged one.
    """
    if record and quick:
        raise UsageError("--record has to read what --quick leaves out", hint="leave out one")
    root, watch = Path(out).expanduser(), watch or Watch()
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
    return _check(root, quick, watch)[0]


def _check(root: Path, quick: bool, watch: Watch) -> tuple[OutputCheck, Receipt]:
    receipt = _receipt(root)
    files = tuple(check_files(root, receipt, watch, quick=quick))
    # Where files differ, what their headers say is no news.
    alike = not any(file.state in DIFFERENT for file in files)
    found = OutputCheck(
        out=root,
        plan=receipt.plan,
        source_dialect=str(receipt.content.get("from", "")),
        target_dialect=str(receipt.content.get("to", "")),
        files=files,
        tensors=tensors_problem(root, receipt) if alike else None,
        lacks=receipt.lacks,
        recorded=(),
        quick=quick,
    )
    return found, receipt


def _receipt(root: Path) -> Receipt:
    path = find_file(root, RECEIPT)
    if path is None:
        raise UnsupportedError(
            f"{root} holds no {RECEIPT}",
            cause="porter did not write it, or the receipt was removed",
            hint="`porter verify SRC OUT` compares what any tool has made with its source",
        )
    with path.open("rb") as stream:
        return read_receipt(stream.read(LARGEST))


def _record(found: OutputCheck, receipt: Receipt, watch: Watch) -> OutputCheck:
    """The same with what the receipt lacked, once that is written."""
    files: list[FileState] = []
    entries: dict[str, Any] = {}
    for file in found.files:
        path = find_file(found.out, file.name)
        if path is None:
            raise PorterError(f"{file.name} is gone", hint="something else writes to this directory")
        if file.state == "unverified":
            digest, size = digest_file(path, file.name, watch)
            file = replace(file, state="recorded", size=size, sha256=digest, detail=None)
        files.append(file)
        entries[file.name] = {"size": file.size, "sha256": file.sha256}
    late = [file.name for file in files if file.state == "recorded"]
    recorded = (*(f"the digest of {name}" for name in late), *receipt.lacks)
    if not recorded:
        return found
    earlier = receipt.content.get("recorded_later")
    content: dict[str, Any] = {
        **receipt.content,
        "files": entries,
        "tensors": receipt.tensors or tensors_in(found.out),
        "recorded_later": sorted({*(earlier if isinstance(earlier, list) else ()), *late}),
    }
    _replace_receipt(found.out, seal(content))
    return replace(found, files=tuple(files), lacks=(), recorded=recorded)


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
