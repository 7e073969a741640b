"""Who is writing an output in a bucket, and what of it is done: one small object beside the output.

`.<output>.porter-claim.json` is made by a conditional write, so that of two runs one is refused; the one that
writes renews it, so that a claim which was not renewed for a while is known to be left behind. It lists the
unfinished uploads and their parts: the same command goes on from there, and `porter doctor` finds it.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any

from porter.errors import AccessError, MalformedError, PorterError, UsageError
from porter.execution.sinks import multipart
from porter.execution.sinks.multipart import SentPart, Upload
from porter.reading.json_text import CLAIM, parse_json
from porter.sources.buckets.bucket_address import BucketAddress
from porter.sources.buckets.bucket_errors import Occupied

PREFIX, SUFFIX = ".", ".porter-claim.json"

_SCHEMA = 1

# Seconds between two renewals, and without one until a claim counts as left behind, by the store's clock.
RENEW = 15.0
STALE = 120.0


# The runs of this process that are at work.
_active: set[str] = set()


def claim_name(out: str) -> str:
    return f"{PREFIX}{out}{SUFFIX}"


@dataclass(frozen=True)
class Claimed:
    """A claim as the store holds it. `age` is in seconds since it was last renewed."""

    content: Mapping[str, Any]
    etag: str
    age: float

    @property
    def in_use(self) -> bool:
        """Whether the run that made it may still be at work."""
        if self.content.get("state") == "stopped" or self.age > STALE:
            return False
        if (self.content.get("host"), self.content.get("space")) != (platform.node(), _space()):
            return True
        if self.content.get("pid") == os.getpid():
            return self.content.get("run") in _active
        return _is_running(self.content.get("pid"))

    def uploads(self, out: BucketAddress) -> dict[str, tuple[Upload, dict[int, SentPart]]]:
        """The unfinished uploads that it notes, each with the parts that are done."""
        try:
            return {
                name: (
                    Upload(out, name, str(found["upload"])),
                    {part[0]: SentPart(*part) for part in found["parts"]},
                )
                for name, found in self.content["files"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            return {}


@cache
def _space() -> str:
    """Where a process is known by its number: containers of one host's name may each have their own."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    return ""


def _is_running(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_claim(out: BucketAddress) -> Claimed | None:
    """The claim on an output, if there is one."""
    parent, name = out.parent()
    try:
        told, answer = multipart.content(parent, claim_name(name), CLAIM.nbytes + 1)
    except PorterError as error:
        if "missing" in error.message:
            return None
        raise
    try:
        content = parse_json(told, claim_name(name), CLAIM)
    except MalformedError:
        content = {}
    if not isinstance(content, dict):
        content = {}
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(date) if date else datetime.now(UTC)
    return Claimed(content, answer["ETag"], (now - answer["LastModified"]).total_seconds())


def claimed_around(out: BucketAddress) -> BucketAddress | None:
    """The nearest folder around an output that a run is writing at this moment."""
    parts = out.folder.split("/")
    for count in range(len(parts) - 1, 0, -1):
        folder = replace(out, folder="/".join(parts[:count]))
        # What may not be read there is nothing to go by.
        with suppress(AccessError):
            found = read_claim(folder)
            if found is not None and found.in_use:
                return folder
    return None


@dataclass
class Claim:
    """Held by the run that writes `out`. Use `take` to get one; `release` or `stop` ends it."""

    out: BucketAddress
    key: Mapping[str, Any]
    etag: str = ""
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    state: str = "writing"
    files: dict[str, tuple[Upload, dict[int, SentPart]]] = field(default_factory=dict)
    replaced: tuple[str, ...] = ()
    lost: PorterError | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._version = 0
        self._thread = threading.Thread(target=self._renew, name="porter-claim", daemon=True)

    def take(self, before: Claimed | None) -> None:
        """Makes the claim, in the place of one left behind. Raises UsageError if another was faster."""
        try:
            self._put({"IfNoneMatch": "*"} if before is None else {"IfMatch": before.etag})
        except Occupied as error:
            raise in_use(self.out) from error
        _active.add(self.run)
        self._thread.start()

    def note(self, upload: Upload, part: SentPart | None = None) -> None:
        """An upload was begun, or a part of it is done. It is written with the next renewal."""
        with self._lock:
            _, parts = self.files.setdefault(upload.name, (upload, {}))
            if part is not None:
                parts[part.number] = part

    def check(self) -> None:
        """Raises what has befallen the claim: another run has taken it."""
        if self.lost is not None:
            raise self.lost

    def save(self, state: str | None = None) -> None:
        """Writes it now. Raises PorterError where another run has taken it."""
        self.check()
        self.state = state or self.state
        try:
            self._put({"IfMatch": self.etag})
        except Occupied as error:
            self.lost = PorterError(
                f"another porter has taken over {self.out.url}",
                cause="this one did not renew its claim in time, or the claim was removed",
                hint="let the other one finish",
            )
            raise self.lost from error

    def release(self) -> None:
        """Ends it, and removes it where it is still this run's."""
        self.end()
        if self.lost is None:
            parent, name = self.out.parent()
            multipart.remove(parent, claim_name(name))

    def stop(self) -> None:
        """Ends it and leaves it for the same command to go on with."""
        self.end()
        self.save("stopped")

    def end(self) -> None:
        """Nothing is renewed any more; a claim that stays counts as left behind."""
        _active.discard(self.run)
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _renew(self) -> None:
        while not self._ended.wait(RENEW):
            try:
                self.save()
            except PorterError:
                # A store that is busy now may answer the next time; a claim that is lost is told by `check`.
                if self.lost is not None:
                    return

    def _put(self, condition: Mapping[str, str]) -> None:
        parent, name = self.out.parent()
        with self._writing:
            with self._lock:
                self._version += 1
                told = json.dumps(self._told()).encode()
            try:
                self.etag = multipart.ask("put_object", parent, claim_name(name), Body=told, **condition)[
                    "ETag"
                ]
            except Occupied:
                # The answer to a first try may have been lost.
                now = read_claim(self.out)
                ours = (self.run, self._version)
                if now is None or (now.content.get("run"), now.content.get("version")) != ours:
                    raise
                self.etag = now.etag

    def _told(self) -> dict[str, Any]:
        return {
            "schema": _SCHEMA,
            "output": self.out.url,
            "run": self.run,
            "version": self._version,
            "state": self.state,
            "host": platform.node(),
            "space": _space(),
            "pid": os.getpid(),
            "key": dict(self.key),
            "replaced": list(self.replaced),
            "files": {
                name: {"upload": upload.id, "parts": [list(part) for part in parts.values()]}
                for name, (upload, parts) in self.files.items()
            },
        }


def in_use(out: BucketAddress) -> UsageError:
    return UsageError(
        f"another porter is writing {out.url}",
        cause=f"it holds {claim_name(out.label)} beside it",
        hint=f"wait for it, or choose another output; {STALE:.0f} s after a run was killed its claim is free",
    )
