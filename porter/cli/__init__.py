"""The command line: one thin module per command, each a renderer of a public function."""

from __future__ import annotations

import gc

# Objects made between two collections.
_COLLECT = 100_000


def main() -> None:
    """Run `porter`."""
    # A plan may hold a million values and no cycles: the collector would only walk them, again and again.
    gc.set_threshold(_COLLECT)
    from porter.cli.app import app

    app()
