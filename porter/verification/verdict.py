"""What `porter verify` finds out, as a value: whether a port is right and, where not, how it differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from porter.facts import Facts

if TYPE_CHECKING:
    from porter.verification.logits import LogitsComparison

# Whether a part of a port is right: as it is; but for one correct rounding; not; or could not be looked at.
Outcome = Literal["equal", "rounded", "differs", "not compared"]


@dataclass(frozen=True)
class MissingTensor:
    """A tensor that the port should hold and does not. Shape in elements, outermost first."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class MisshapenTensor:
    """A tensor of the port whose shape is not `expected`, or whose dtype is none of floats."""

    name: str
    expected: tuple[int, ...]
    found: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class DifferingTensor:
    """A tensor of the port that does not hold what it should.

    `elements` of its `of` elements differ, the first at `first`, an index into its shape. With sampled
    comparisons both count samples. `says` describes the difference, `brief` what of that may be the same for
    several tensors. `largest` is the largest |difference| of
    finite values, `relative` that over the largest value that should be there, both of what was compared.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    elements: int
    of: int
    first: tuple[int, ...]
    says: str | None = None
    largest: float = 0.0
    relative: float | None = None
    brief: str | None = None


@dataclass(frozen=True)
class Mistake:
    """What was done wrong, in words; `tensors` of the port it explains, `layers` that it was done in.

    `known` is the mistake's own name in the table of mistakes, None for what was found out without one.
    `proved` says that every element was compared with what the mistake would make of it.
    """

    says: str
    tensors: tuple[str, ...]
    known: str | None = None
    layers: tuple[int, ...] = ()
    proved: bool = True
    part: Literal["weights", "config"] = "weights"


@dataclass(frozen=True)
class WeightsVerdict:
    """How the weights compare: `tensors` were compared, of which those in `differing` differ.

    `rounded_to` names the dtypes that values were rounded to on the way, each value correctly; `omitted` are
    tied tensors that the port leaves out. `lost` says what of the original the port has no tensor for.
    `bytes_read` is what was read of both sides.
    """

    outcome: Outcome
    tensors: int
    elements: int
    rounded_to: tuple[str, ...] = ()
    missing: tuple[MissingTensor, ...] = ()
    extra: tuple[str, ...] = ()
    misshapen: tuple[MisshapenTensor, ...] = ()
    differing: tuple[DifferingTensor, ...] = ()
    omitted: tuple[str, ...] = ()
    lost: str | None = None
    bytes_read: int = 0


@dataclass(frozen=True)
class ConfigDifference:
    """A hyperparameter (`name`, in porter's words) that the port's config states otherwise, or a field of it
    that cannot be read. `says` names it in words."""

    name: str
    expected: Any
    found: Any
    says: str


@dataclass(frozen=True)
class ConfigVerdict:
    """How the configs compare. `file` is the port's, None where it has none.

    `compared_values` gives each hyperparameter that was compared, as it should be and as it is.
    """

    outcome: Outcome
    file: str | None
    differences: tuple[ConfigDifference, ...] = ()
    compared: int = 0
    compared_values: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenizerVerdict:
    """How the tokenizers compare. `says` tells what was compared, or why nothing was."""

    outcome: Outcome
    says: str


@dataclass(frozen=True, repr=False)
class Verdict(Facts):
    """Whether `out` is a right port of `source`. `says` is the verdict in one line.

    `outcome` is `equal` where weights, config and tokenizer say the same, `rounded` where values were
    rounded to another dtype, each one correctly, and `differs`. `mistakes` say what was done wrong, as far as
    it is known. With `quick` weights were sampled, and `equal` means that no sample differs.
    `logits` is there where it was asked what the two compute.
    """

    source: str
    out: str
    family: str
    source_dialect: str
    out_dialect: str
    outcome: Outcome
    says: str
    weights: WeightsVerdict
    config: ConfigVerdict
    tokenizer: TokenizerVerdict
    mistakes: tuple[Mistake, ...] = ()
    notes: tuple[str, ...] = ()
    quick: bool = False
    logits: LogitsComparison | None = None

    @property
    def right(self) -> bool:
        return self.outcome != "differs"

    def _facts(self) -> list[tuple[str, str]]:
        differ = f", of which {len(self.weights.differing):,} differ" if self.weights.differing else ""
        return [
            ("verdict", f"{self.source} → {self.out}"),
            ("outcome", self.says),
            *(("mistake", mistake.says) for mistake in self.mistakes),
            ("weights", f"{self.weights.outcome}: {self.weights.tensors:,} tensors{differ}"),
            ("config", f"{self.config.outcome}: {self.config.compared} hyperparameters"),
            ("tokenizer", f"{self.tokenizer.outcome}: {self.tokenizer.says}"),
            *(("note", text) for text in self.notes),
        ]
