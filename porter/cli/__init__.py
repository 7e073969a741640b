"""The command line: one thin module per command, each a renderer of a public function."""

from __future__ import annotations

import gc
import sys

# Objects made between two collections.
_COLLECT = 100_000


def main() -> None:
    """Run `porter`."""
    from porter.cli.streams import prepare

    prepare()
    # A plan may hold a million values and no cycles: the collector would only walk them, again and again.
    gc.set_threshold(_COLLECT)
    from porter.cli.app import app

    try:
        app()
    except OSError as refused:
        # What the commands do not catch: a version or a help that could not be printed.
        sys.stderr.write(f"error: {refused}\n")
        raise SystemExit(1) from None
