"""The command line: one thin module per command, each a renderer of a public function."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run `porter`."""
    if sys.platform == "win32":
        sys.exit(_refuse_windows())
    try:
        from porter.cli.starved import watch_threads
        from porter.cli.streams import prepare

        prepare()
        watch_threads()
        from porter.cli.app import app

        if (shell := os.environ.get("_PORTER_COMPLETE")) is None:
            app()
        else:
            from porter.cli.shells import answer

            answer(shell, app)
    except KeyboardInterrupt:
        # Before a command has begun, or after its end.
        raise SystemExit(130) from None
    except OSError as refused:
        # What the commands do not catch: a version or a help that could not be printed.
        sys.stderr.write(f"error: {refused}\n")
        raise SystemExit(1) from None


def _refuse_windows() -> int:
    """The exit code of what is unsupported: Windows lacks the locks and renames that porter needs."""
    sys.stderr.write(
        "error: porter does not run on Windows itself\n"
        "cause: it publishes by renaming directories and locks files as Unix does\n"
        "hint: run it in WSL: `wsl --install`, then `pip install weight-porter` there\n"
    )
    return 5
