"""`porter check`: an output against its receipt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from porter.cli import completion, output, streams
from porter.cli.options import JsonOption


def check(
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="A directory, or a folder at s3://, that `convert` made.",
            autocompletion=completion.folders,
        ),
    ],
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Add what the receipt lacks: digests of files whose blocks were shared, as they are now.",
        ),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Sizes and headers alone: no content is read or verified.")
    ] = False,
    public_key: Annotated[
        Path | None,
        typer.Option(
            "--public-key",
            metavar="KEY",
            help="The signature must hold too, and be made with the private key of this public one (PEM).",
            autocompletion=completion.everything,
        ),
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option(
            "--signature",
            metavar="FILE",
            help="Where the signature is. Default: OUT/model.sig.",
            autocompletion=completion.everything,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Recheck a converted directory against its receipt: sizes, sha256 digests, planned tensors.

    Exit code 0: every file is as it was written (with --quick: sizes and headers are). 1: a file has no
    digest to be verified by, which --record adds. 3: a file is missing, was added or has changed, or the
    signature does not hold. 6: the receipt itself is damaged; 5: there is none.

    Examples:
      porter check out/
      porter check s3://bucket/out
      porter check out/ --record    # right after a conversion that shared blocks
      porter check out/ --public-key key.pub    # signed by whom you think?
    """
    from porter.api.check import check as look
    from porter.cli.progress import transfer
    from porter.execution.watch import Watch
    from porter.reporting.checks import render

    with transfer("read") as advance:
        found = look(
            out,
            record=record,
            quick=quick,
            public_key=public_key,
            signature=signature,
            watch=Watch(progress=advance, expect=advance.expect),
        )
    if json:
        output.as_json(found, verdict=found.verdict)
    else:
        output.findings(render(found))
    for text in found.recorded:
        output.note(f"recorded {text}")
    if found.lacks:
        output.note(f"the receipt lacks {', '.join(found.lacks)}; --record adds it")
    if found.verdict == "unverified" and not found.quick:
        output.note("what has no digest cannot be verified; --record adds it, as the file is now", "warning")
    if found.exit_code:
        streams.flush()
        raise SystemExit(found.exit_code)
