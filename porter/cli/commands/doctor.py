"""`porter doctor`: versions, extras, caches, token or none, file system."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from porter.cli import output


def doctor(
    path: Annotated[Path, typer.Argument(help="Where outputs would be written.")] = Path(),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what this machine offers: versions, extras, caches, file system."""
    from porter.api.doctor import doctor as look
    from porter.reporting.text import size, table

    found = look(path)
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
            [f"extra {name}", "installed" if there else f"missing: pip install 'weight-porter[{name}]'"]
            for name, there in found.extras.items()
        ),
        *([f"peer {name}", version or missing] for name, version in found.peers.items()),
        ["hub cache", str(found.hub_cache)],
        ["hub", found.hub_endpoint + (" (offline)" if found.offline else "")],
        ["token", "present" if found.token else "none; `hf auth login` for gated models"],
        ["disk", f"{disk.path}: {size(disk.free)} free" + ("" if disk.writable else ", not writable")],
        ["blocks", f"{disk.block} bytes, " + ("can be shared" if disk.shares_blocks else "cannot be shared")],
    ]
    output.data(table(rows))
