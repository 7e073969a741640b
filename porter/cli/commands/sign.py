"""`porter sign`: an output, signed with a private key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from porter.cli import completion, output
from porter.cli.options import JsonOption


def sign(
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT", help="A directory that `convert` made.", autocompletion=completion.folders
        ),
    ],
    private_key: Annotated[
        Path,
        typer.Option(
            "--private-key",
            metavar="KEY",
            help="A private key of an elliptic curve, in PEM. Where it has a password, PORTER_KEY_PASSWORD "
            "in the environment holds it.",
            autocompletion=completion.everything,
        ),
    ],
    signature: Annotated[
        Path | None,
        typer.Option(
            "--signature",
            metavar="FILE",
            help="Where the signature goes. Default: OUT/model.sig.",
            autocompletion=completion.everything,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Sign a converted directory, so that whoever has the public key knows whose it is and that it is whole.

    It is held against its receipt first. `porter check OUT --public-key KEY` verifies the signature, and so
    does the model-signing package's own command. Exit code 3: the directory is not what porter wrote.

    Examples:
      openssl ecparam -name prime256v1 -genkey -noout -out key.pem
      openssl ec -in key.pem -pubout -out key.pub
      porter sign out/ --private-key key.pem
      porter check out/ --public-key key.pub
    """
    from porter.api.sign import sign as make
    from porter.cli.progress import transfer
    from porter.execution.watch import Watch

    with transfer("read") as advance:
        made = make(
            out,
            private_key=private_key,
            signature=signature,
            watch=Watch(progress=advance, expect=advance.expect),
        )
    if json:
        output.as_json(made)
    else:
        output.report(f"signed     {made.files} files in {made.out}: {made.signature}")
    if made.verdict == "unverified":
        output.note(
            "files without a digest in the receipt are signed as they are now; `porter check --record` "
            "right after a conversion adds digests",
            "warning",
        )
