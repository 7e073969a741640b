"""`porter doctor`: versions, extras, caches, token or none, file system."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from porter.cli import completion, output
from porter.cli.options import JsonOption

if TYPE_CHECKING:
    from porter.sources.buckets.bucket_address import BucketAddress


def doctor(
    path: Annotated[
        str,
        typer.Argument(
            help="Where outputs would be written: a directory, or a folder at s3://.",
            autocompletion=completion.folders,
        ),
    ] = ".",
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what killed runs have left beside outputs there.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show what this machine offers: versions, extras, caches, file system, what killed runs have left.

    Examples:
      porter doctor
      porter doctor /data --clean      # and remove what killed runs have left there
    """
    from porter.api.doctor import doctor as look
    from porter.reporting.text import printable, size
    from porter.sources.buckets.bucket_address import parse_address
    from porter.system.extras import install_line

    if (folder := parse_address(path)) is not None:
        _bucket(folder, clean, json)
        return
    found = look(path, clean=clean)
    if not Path(path).expanduser().exists():
        output.note(
            f"there is no directory {path} yet; what is said of the disk is of {found.file_system.path}"
        )
    for text in found.cleaned:
        output.note(text)
    if json:
        output.as_json(found)
        return
    missing = "not installed"
    disk = found.file_system
    rows = [
        ["porter", found.porter],
        ["python", f"{found.python} on {found.system}"],
        *([name, version or missing] for name, version in found.packages.items()),
        *(
            [f"extra {name}", "installed" if there else f"missing: {install_line(name)}"]
            for name, there in found.extras.items()
        ),
        *([f"peer {name}", version or missing] for name, version in found.peers.items()),
        ["hub cache", str(found.hub_cache)],
        ["hub", found.hub_endpoint + (" (offline)" if found.offline else "")],
        ["token", "present" if found.token else "none; `hf auth login` for gated models"],
        ["disk", f"{disk.path}: {size(disk.free)} free" + ("" if disk.writable else ", not writable")],
        ["blocks", f"{disk.block} bytes, " + ("can be shared" if disk.shares_blocks else "cannot be shared")],
    ]
    rows += [
        [
            "left behind",
            f"{printable(str(left.path))}: {left.what}, {size(left.nbytes)}"
            + (", in use" if left.in_use else ""),
        ]
        for left in found.left_behind
    ]
    output.data(_folded(rows))
    if any(not left.in_use for left in found.left_behind):
        output.note("`porter doctor --clean` removes what was left behind and is not in use")


def _folded(rows: list[list[str]]) -> list[str]:
    """What stands beside a word, in as many lines as a terminal needs."""
    from porter.reporting.fitting import wrapped
    from porter.reporting.text import printable

    wide = max(len(word) for word, _ in rows) + 2
    return [
        line
        for word, text in rows
        for line in wrapped(f"{word:<{wide}}{printable(text)}".rstrip(), output.width(), wide)
    ]


def _bucket(folder: BucketAddress, clean: bool, json: bool) -> None:
    """What is left behind in a bucket; that is all that there is to be said of it."""
    from porter.api.leftovers import clean_bucket, left_in_bucket
    from porter.reporting.text import printable, size

    if clean:
        for text in clean_bucket(folder):
            output.note(text)
    found = left_in_bucket(folder)
    if json:
        output.as_json({"left_behind": list(found)})
        return
    rows = [
        [
            "left behind",
            f"{printable(str(left.path))}: {left.what}, {size(left.nbytes)}"
            + (", in use" if left.in_use else ""),
        ]
        for left in found
    ]
    output.data(_folded(rows) if rows else f"nothing is left behind at {folder.url}")
    if any(not left.in_use for left in found):
        output.note(f"`porter doctor --clean {folder.url}` ends what is not in use")
