"""`porter.fingerprint`: one digest of what a model's weights are, in whatever form they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from porter.api.opening import open_source
from porter.execution.watch import Watch
from porter.planning.plan_options import PlanOptions
from porter.sources.base import Source
from porter.verification.fingerprints import Fingerprint, fingerprint_of


def fingerprint(
    source: str | Path | Source | None = None,
    *,
    dtype_agnostic: bool = False,
    text_only: bool = False,
    allow_unmapped: str | Sequence[str] = (),
    maps: str | Path | Sequence[str | Path] = (),
    config: str | Path | None = None,
    source_dialect: str | None = None,
    family: str | None = None,
    key: str | None = None,
    watch: Watch | None = None,
) -> Fingerprint:
    """The digest of a model's canonical content, equal for all ports of it that moved every value as it is.

    With `dtype_agnostic` values are widened to float32 first, exactly: so a bfloat16 model and its float32
    copy are equal, and quantised weights count as the numbers that they stand for. The other arguments are
    those of `porter.convert`. Raises PorterError as that does.

    >>> found = porter.fingerprint("gemma-2b/")
    >>> done = porter.convert("gemma-2b/", "out/", to="keras")
    >>> porter.fingerprint("out/").fingerprint == found.fingerprint
    True
    """
    # What callers may pass is wider than what the options then hold.
    given: dict[str, Any] = {"allow_unmapped": allow_unmapped, "maps": maps, "config": config}
    options = PlanOptions(
        **given,
        text_only=text_only,
        source_dialect=source_dialect,
        family=family,
        key=key,
    )
    opened = open_source(
        source,
        maps=options.maps,
        config=options.config,
        dialect=options.source_dialect,
        remote="bytes",
        key=options.key,
        family=options.family,
    )
    return fingerprint_of(
        opened.checkpoint, opened.identified(), options, dtype_agnostic=dtype_agnostic, watch=watch
    )
