"""The command line: one thin module per command, each a renderer of a public function."""

from __future__ import annotations


def main() -> None:
    """Run `porter`."""
    from porter.cli.app import app

    app()
