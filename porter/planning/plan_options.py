"""What a user may choose about a conversion's content: one value for command line, Python and plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from porter.dtypes import Dtype
from porter.errors import UsageError
from porter.planning.arguments import as_dtype, as_list, as_path, as_paths
from porter.wording import option

Tied = Literal["write", "omit", "untie"]
WeightContainer = Literal["safetensors", "pth"]


@dataclass(frozen=True)
class PlanOptions:
    """What to make. Anything else than these words and types is a UsageError.

    `to` is the target's dialect (default: that of the last table in `maps`). `dtype` is keep, bfloat16,
    float16 or float32, or torch's dtype. `tied` writes tied weights twice, omits one, or unties the two
    (default: as the target's table says). `max_shard_size` is in bytes, or text such as "5GB".
    `allow_unmapped` are shell patterns of tensors that are dropped knowingly. `maps` are files with tables
    of your own, or folders of families; `config` stands in for the source's, `source_dialect` says which one
    the source is in, and `family` which model it is.
    `container` is safetensors or pth (default: as the target's table says). `text_only` takes the language
    model out of a larger one. `key` names the state dict to take from a torch file that holds several. With
    `weights_only` no config and no tokenizer is ported. A lone pattern or path may stand for a list of one.
    """

    to: str | None = None
    dtype: str = "keep"
    tied: Tied | None = None
    max_shard_size: str | int | None = None
    allow_unmapped: Sequence[str] = ()
    maps: Sequence[Path] = ()
    config: Path | None = None
    source_dialect: str | None = None
    family: str | None = None
    container: WeightContainer | None = None
    text_only: bool = False
    key: str | None = None
    weights_only: bool = False

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "allow_unmapped", as_list(self.allow_unmapped, "allow_unmapped"))
        set_(self, "maps", as_paths(self.maps, "maps"))
        set_(self, "config", None if self.config is None else as_path(self.config, "config"))
        kept = as_dtype(self.dtype)
        set_(self, "dtype", "keep" if kept is None else str(self.dtype).removeprefix("torch."))
        for said, name in (("to", self.to), ("from", self.source_dialect), ("family", self.family)):
            if name is not None and not isinstance(name, str):
                raise UsageError(f"{option(said)} takes one name, not {name!r:.80}")
        if isinstance(self.max_shard_size, str) and self.max_shard_size.isdecimal():
            set_(self, "max_shard_size", int(self.max_shard_size))
        if self.max_shard_size is not None and type(self.max_shard_size) not in (int, str):
            wanted = "bytes, or text such as 5GB or 500MB"
            raise UsageError(f"{self.max_shard_size!r:.80} is no size for a shard", hint=wanted)
        for said, word, known in (
            ("tied", self.tied, get_args(Tied)),
            ("container", self.container, get_args(WeightContainer)),
        ):
            if word is not None and word not in known:
                choice = f"{', '.join(known[:-1])} or {known[-1]}"
                raise UsageError(f"{option(said)} must be {choice}, not {word!r}")

    @property
    def kept_dtype(self) -> Dtype | None:
        """The dtype of all weights; None where each keeps its own."""
        return as_dtype(self.dtype)
