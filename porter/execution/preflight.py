"""What can fail without a byte of the source: an output in the way, a place not to be written, a full disk.

All of it is looked at before anything is begun, and again where it matters when it is done.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from porter import system
from porter.errors import PorterError, UsageError, refused
from porter.execution.leftovers import fresh_name, stage_name
from porter.execution.run_options import ALWAYS, NEVER, RunOptions
from porter.execution.runnable import check_blocks, check_far, check_values
from porter.execution.staging import check_output
from porter.planning.plan import Plan
from porter.planning.sharing import shareable_bytes
from porter.wording import command, option

# Bytes: the largest block of a file system that shares them.
_BLOCK = 64 << 10


def preflight(
    plan: Plan,
    out: Path,
    source_root: Path | None,
    sources: Sequence[Path],
    *,
    force: bool = False,
    inside: bool = False,
    near: bool = True,
    options: RunOptions | None = None,
) -> Path:
    """The real path of `out`, if a directory may be made there, there is room, and the plan can be run.

    `near` says whether the source is on this machine. Raises UsageError for a path, UnsupportedError for what
    would be refused on the way, PorterError for a lack of space that says how much is missing, and where.
    """
    out = check_output(out, source_root, sources, force=force, inside=inside)
    place = existing(out.parent)
    if not place.is_dir():
        raise UsageError(
            f"{place} is no directory", hint=f"choose another output directory with {option('out')}"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(
            f"no directory can be made in {place}",
            cause="you have no permission to write there",
            hint=f"choose another output directory with {option('out')}",
        )
    if len(os.fsencode(stage_name(out, plan.hash).name)) > os.pathconf(place, "PC_NAME_MAX"):
        raise UsageError(
            f"the name {out.name[:40]}… is too long for that file system", hint="choose a shorter one"
        )
    try:
        # Only an attempt tells: what may be written need not take directories. By a name that the next run
        # and `porter doctor` know, if it cannot be removed.
        probe = place / fresh_name(out, "gone").name
        probe.mkdir(0o700)
        probe.rmdir()
    except OSError as error:
        # Of a place that is there, as of /proc, it says that nothing can be made in it.
        never = "that file system makes no directories" if error.errno == errno.ENOENT else None
        raise UsageError(
            f"no directory can be made in {place}",
            cause=never or refused("", error, place).cause,
            hint=f"choose another output directory with {option('out')}",
        ) from error
    options = options or RunOptions()
    check_values(plan)
    check_far(near, options)
    if options.reflink == ALWAYS:
        check_blocks(plan, place, sources, shares_blocks(place))
    _check_room(plan, out, place, source_root if near else None, options)
    return out


def existing(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    return next(there for there in (path, *path.absolute().parents) if there.exists())


def shares_blocks(directory: Path) -> bool:
    """Whether files there can share blocks: tried on two small ones that are gone again at once."""
    try:
        with (
            tempfile.TemporaryFile(dir=directory) as source,
            tempfile.TemporaryFile(dir=directory) as target,
        ):
            # As long as any file system's block.
            source.write(b"\0" * _BLOCK)
            source.flush()
            return system.clone_range(source.fileno(), 0, target.fileno(), 0, _BLOCK) is None
    except OSError:
        return False


def _check_room(plan: Plan, out: Path, place: Path, source_root: Path | None, options: RunOptions) -> None:
    free, total = shutil.disk_usage(place).free, shutil.disk_usage(place).total
    needed = sum(file.size for file in plan.files) + sum(len(s.content or b"") for s in plan.side_files)
    # A file system that counts nothing, such as /proc, has an error of its own.
    if needed <= free or not total:
        return
    needed -= _on_disk(stage_name(out, plan.hash)) if options.resume else 0
    near = source_root is not None and source_root.stat().st_dev == place.stat().st_dev
    if near and options.reflink != NEVER and shares_blocks(place):
        needed -= shareable_bytes(plan)
    if needed > free:
        raise PorterError(
            f"not enough space for {out}",
            cause=f"{_size(needed)} are needed on the disk of {place}, {_size(free)} are free: "
            f"{_size(needed - free)} are missing",
            hint=f"free some space, or choose another disk with {option('out')}; "
            f"`{command('doctor', clean=True)}` removes what "
            "stopped runs have left",
        )


def _on_disk(folder: Path) -> int:
    total = 0
    with suppress(OSError):
        for root, _, files in os.walk(folder):
            total += sum(Path(root, name).lstat().st_blocks * 512 for name in files)
    return total


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 10**7 else f"{nbytes / 1e6:.2f} MB"
