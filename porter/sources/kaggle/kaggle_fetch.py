"""One variation of a model from Kaggle into `kagglehub`'s own cache, where KerasHub finds it too.

The client compares each file's MD5 with the one that Kaggle states, and marks the model when all have come.
It speaks on stdout, which is for data here, and in one of its modes of the credentials: all of that is
swallowed, but for its progress bars where they are wanted.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from porter.errors import UnsupportedError
from porter.sources.kaggle.kaggle_errors import secrets, translated
from porter.sources.kaggle.kaggle_models import KaggleReference, on_the_hub
from porter.system.extras import install_line
from porter.wording import command


def fetch(ref: KaggleReference, *, bars: bool = False) -> Path:
    """The directory that holds all files of `ref`. With `bars` the client draws progress on stderr.

    Raises UnsupportedError where `kagglehub` is not installed, AccessError where credentials or consent
    are missing, UsageError for what does not exist, else PorterError and its kinds.
    """
    with _silence(bars):
        client = _client(ref)
        with translated(ref):
            # Credentials that cannot be read are no reason to try without them.
            secrets()
            return Path(client.model_download(ref.handle))


def _client(ref: KaggleReference) -> Any:
    try:
        return import_module("kagglehub")
    except ImportError as error:
        twin = on_the_hub(ref)
        missing = isinstance(error, ModuleNotFoundError) and error.name == "kagglehub"
        raise UnsupportedError(
            "models on Kaggle are fetched through kagglehub, which "
            + ("is not installed" if missing else "cannot be imported"),
            cause=None if missing else str(error),
            hint=f"{install_line('kaggle')} (the extra kaggle)"
            + (f", or {command('download', twin)}" if twin else ""),
        ) from None


class _Nowhere(io.TextIOBase):
    """A stream that keeps nothing. The client's log handler holds on to it, so it is never closed."""

    def write(self, text: str) -> int:
        return len(text)


_NOWHERE = _Nowhere()


@contextmanager
def _silence(bars: bool) -> Iterator[None]:
    log = logging.getLogger("kagglehub")
    level = log.level
    with redirect_stdout(_NOWHERE), nullcontext() if bars else redirect_stderr(_NOWHERE):
        try:
            log.setLevel(logging.CRITICAL)
            yield
        finally:
            log.setLevel(level)
