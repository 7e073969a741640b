"""An output's signature: that these very files were signed by whoever holds a private key.

A receipt guards against damage; who can write here can write a new receipt as well. A signature cannot be
made anew without the key. It is that of the model-signing package (a sigstore bundle over the sha256 of every
file but the signature itself), so that its own command verifies what is signed here, and the other way round.
Nothing is asked of the network.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from porter.errors import MalformedError, UnsupportedError, UsageError
from porter.reading.json_text import SIGNATURE as LIMIT
from porter.reading.json_text import parse_json
from porter.reading.regular import read_regular
from porter.system.extras import install_line
from porter.untrusted import shortened_lines

# Bytes. A key in PEM has some hundred.
_LARGEST_KEY = 1 << 16


def sign_directory(root: Path, signature: Path, private_key: Path, password: str | None = None) -> None:
    """Sign every file in `root` and put the signature in its place, whole.

    `private_key` is a PEM file of an elliptic curve (P-256, P-384, P-521). Raises UsageError for what is
    none, UnsupportedError without model-signing.
    """
    check_key(private_key)
    secret = password.encode() if password is not None else None
    root, signature = _real(root, signature)
    config = _configured(
        "signing",
        lambda config: config.use_elliptic_key_signer(private_key=private_key, password=secret),
        signature,
        f"{private_key} is no private key that can sign",
        "expected an elliptic curve's in PEM; where it has a password, PORTER_KEY_PASSWORD holds it",
    )
    fresh = signature.with_name(f".{signature.name}.{os.getpid()}")
    try:
        with _silence():
            config.sign(root, fresh)
        fresh.replace(signature)
    except ValueError as error:
        raise UnsupportedError(f"{root} cannot be signed", cause=str(error)) from None
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()


def signature_problem(root: Path, signature: Path, public_key: Path) -> str | None:
    """Why the signature does not hold for the files in `root`; None where it does.

    Raises UsageError for what is no public key, MalformedError for what is no signature, UnsupportedError
    without model-signing.
    """
    check_key(public_key)
    if not os.path.lexists(signature):
        raise UnsupportedError(f"there is no signature at {signature}", hint="`porter sign` makes one")
    content = read_regular(signature, str(signature), LIMIT.nbytes)
    if not isinstance(parse_json(content, str(signature), LIMIT), dict):
        raise MalformedError(f"{signature} is no signature", cause="expected a sigstore bundle in JSON")
    root, signature = _real(root, signature)
    config = _configured(
        "verifying",
        lambda config: config.use_elliptic_key_verifier(public_key=public_key),
        signature,
        f"{public_key} is no public key that can verify",
        "expected an elliptic curve's in PEM: `openssl ec -in key.pem -pubout -out key.pub`",
    )
    try:
        with _silence():
            config.verify(root, signature)
    except Exception as error:
        if type(error).__name__ == "InvalidSignature":
            return "it was made with another key, or was changed"
        # Its own words; kinds of ValueError are what a parser raises.
        if type(error) is ValueError:
            return shortened_lines(str(error))
        raise MalformedError(
            f"{signature} is no signature that can be read", cause=f"{type(error).__name__}: {error}"
        ) from None
    return None


def _real(root: Path, signature: Path) -> tuple[Path, Path]:
    """So spelled that it shows whether the signature lies in what it signs."""
    return root.resolve(), signature.parent.resolve() / signature.name


def check_key(path: Path) -> None:
    """Raises UsageError where there is no key, MalformedError where none can be."""
    if not os.path.lexists(path):
        raise UsageError(f"there is no key at {path}", hint="docs/check.md says how to make one")
    read_regular(path, str(path), _LARGEST_KEY)


def _configured(part: str, use_key: Callable[[Any], Any], signature: Path, problem: str, hint: str) -> Any:
    """What signs or verifies with a key, all but what it is made of. Raises UsageError for what is no key."""
    package, hashing = _package(part), _package("hashing")
    try:
        config = use_key(package.Config())
    except Exception as error:
        raise UsageError(problem, cause=str(error) or type(error).__name__, hint=hint) from None
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[signature]))
    return config


def _package(part: str) -> Any:
    try:
        import model_signing.hashing
        import model_signing.signing
        import model_signing.verifying
    except ImportError as error:
        raise UnsupportedError(
            "signatures need the package model-signing",
            cause=str(error),
            hint=f"{install_line('sign')} (the extra sign)",
        ) from None
    return getattr(model_signing, part)


def _silence() -> contextlib.redirect_stdout[io.StringIO]:
    """It prints remarks to stdout, where data goes."""
    return contextlib.redirect_stdout(io.StringIO())
