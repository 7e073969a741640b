"""`--report FILE.html`: the option, and how the page gets into its file."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from porter.cli import completion, output
from porter.cli.options import OUTPUT
from porter.errors import PorterError, UsageError, blamed, meaning
from porter.untrusted import shortened

ReportOption = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        help="Write all of it as one HTML page, to keep or send.",
        rich_help_panel=OUTPUT,
        autocompletion=completion.files(".html"),
    ),
]


def check_report(path: Path | None) -> None:
    """Refuses, before any work is done, a file that no page could be meant for."""
    if path is None:
        return
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report writes a page, and {path.name} does not end in .html")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"there is no directory {path.absolute().parent} to write {path.name} into")


def write_report(path: Path, content: str) -> None:
    """Writes the page whole or not at all; a page that is there is replaced."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(content, encoding="utf-8")
        beside.replace(path)
    except OSError as refused:
        with contextlib.suppress(OSError):
            beside.unlink()
        words, hint = meaning(refused)
        raise blamed(refused)(f"cannot write {shortened(str(path))}", cause=words, hint=hint) from None
    output.say(f"report   {path}")


def receipt_of(source: str) -> dict[str, Any] | None:
    """The receipt in a checkpoint's directory; None where there is none that can be read."""
    from porter.execution.leftovers import RECEIPT
    from porter.execution.receipts import receipt_bytes, receipt_content

    path = Path(source) / RECEIPT
    try:
        return receipt_content(receipt_bytes(path)) if path.is_file() else None
    except (OSError, PorterError):
        return None
