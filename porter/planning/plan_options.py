"""What a user may choose about a conversion's content."""

from __future__ import annotations

from dataclasses import dataclass

from porter.dtypes import Dtype


@dataclass(frozen=True)
class Options:
    """What a user may choose. `dtype` None keeps; `tied` None is what the target's table says.

    `container` is pth or None (as the target's table says). With `weights_only` the plan has no side files:
    no config and no tokenizer is ported.
    """

    dtype: Dtype | None = None
    tied: str | None = None
    max_shard_size: str | int | None = None
    allow_unmapped: tuple[str, ...] = ()
    weights_only: bool = False
    container: str | None = None
    text_only: bool = False
