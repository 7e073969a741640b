"""What a mapping table is, once it has been read: frozen values, with the file and line of each part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from porter.errors import PorterError
from porter.layout import Expression, Layout
from porter.tables.patterns import Pattern


@dataclass(frozen=True)
class Where:
    """A place in a table, for errors and for the `rule` column of plans."""

    path: Path
    line: int

    @cached_property
    def _text(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}:{self.line}"

    def __str__(self) -> str:
        return self._text


class TableError(PorterError):
    """A table that breaks a rule: the message names file, line and rule, the hint the remedy."""

    exit_code = 2

    def __init__(self, where: Where, rule: str, *, cause: str | None = None, hint: str | None = None) -> None:
        super().__init__(f"{where.path}:{where.line}: {rule}", cause=cause, hint=hint)
        self.where = where


@dataclass(frozen=True)
class Hyperparameter:
    """A canonical hyperparameter.

    `type` is int, number, bool, str, ints-or-bools list (`list`), or `any`. `required` ones must be
    stated by every dialect; others have `neutral`, the value that a dialect's silence means. A lossy
    `advisory` one may be dropped by a dialect that has no place for it (names, token ids). `note` says, where
    it or one of its values is refused, what a reader of the config would not guess. Where `when` does not
    hold, it has its neutral value whatever a config says. An `idle` one is true where weights are stored that
    no framework computes with; it says nothing else.
    """

    name: str
    type: str
    required: bool
    neutral: Any
    advisory: bool
    where: Where
    note: str | Mapping[str, str] | None = None
    when: Expression | None = None
    idle: bool = False


@dataclass(frozen=True)
class CanonicalTensor:
    """A weight: its name pattern, its named axes (outermost first), when it exists, its tie."""

    name: str
    axes: tuple[str, ...]
    when: Expression | None
    tied: str | None
    where: Where

    @property
    def pattern(self) -> Pattern:
        return Pattern(self.name)


@dataclass(frozen=True)
class Canonical:
    """A family's canonical tensors. `axes` maps an axis to its size expression.

    `refine` cuts an axis into finer ones, outermost first, for those layouts that name them.
    `normal` gives, in order, hyperparameters their value where two spellings have one meaning.
    """

    family: str
    version: int
    index: Mapping[str, Expression]
    axes: Mapping[str, Expression]
    inverses: Mapping[str, Expression]
    refine: Mapping[str, tuple[str, ...]]
    tensors: Mapping[str, CanonicalTensor]
    hyperparameters: Mapping[str, Hyperparameter]
    example: Mapping[str, Any]
    path: Path
    normal: Mapping[str, Expression] = field(default_factory=dict)


# Canonical tensors that every family has, over any axes: elements that are no weight. ZEROS are zeros on
# either side. UNUSED may hold anything where it is read, and is written as zeros.
ZEROS, UNUSED = "zeros", "unused"
FILLERS = (ZEROS, UNUSED)


@dataclass(frozen=True)
class Rule:
    """One line of a dialect: the stored tensor `theirs` holds the canonical tensors `ours` as `layout` says.

    `operations` are what turns the canonical value into the stored one, in order: ("add", 1.0); expressions
    over the hyperparameters are numbers once the rule is bound.
    `when_tied` says what the dialect does with a tensor whose tie holds: "write" or "omit". `also` are other
    names for the same tensor, read but not written. `scale_by` is the stored tensor that holds a factor for
    each row, where the rows are whole numbers.
    """

    theirs: Pattern
    ours: tuple[str, ...]
    layout: Layout
    operations: tuple[tuple[str, float | Expression], ...]
    when: Expression | None
    when_tied: str
    where: Where
    also: tuple[Pattern, ...] = ()
    scale_by: Pattern | None = None

    @property
    def numbers(self) -> tuple[tuple[str, float], ...]:
        """The operations of a bound rule, each with its number."""
        found = [(kind, value) for kind, value in self.operations if isinstance(value, float)]
        if len(found) < len(self.operations):
            raise TableError(self.where, "the rule's operations have no numbers before it is bound")
        return tuple(found)

    @property
    def weights(self) -> tuple[str, ...]:
        """Those of `ours` that are weights, without the blocks of zeros."""
        return tuple(name for name in self.ours if name not in FILLERS)


@dataclass(frozen=True)
class FieldEntry:
    """How a dialect's config holds one canonical hyperparameter.

    `fields` are dotted paths, tried in order; `write_to` is the one written. `values` pairs theirs with
    ours, item by item for lists. `default` stands in when no field is there (and for null, unless
    `nullable`, or refused where that is false); `null_is` is what null means where it means another
    value. `none_is` is what is written in the place of no value, where leaving the field out would mean
    something; for each layer where the field has an item each. `read` computes the value instead, and
    `write` what is written. `fixed` is a value that the dialect sets in code. `assumed` is what a dialect
    without a place for it is taken to mean: the value is read as that, and lost in writing.
    """

    name: str
    where: Where
    fields: tuple[str, ...] = ()
    write_to: str | None = None
    values: tuple[tuple[Any, Any], ...] = ()
    default: Any = None
    has_default: bool = False
    each_layer: bool = False
    nullable: bool | None = None
    none_is: Any = None
    null_is: Any = None
    read: Expression | None = None
    write: Expression | None = None
    assumed: Any = None
    has_assumed: bool = False
    fixed: Any = None
    has_fixed: bool = False
    only: tuple[Any, ...] | None = None
    contains: Mapping[str, Expression] = field(default_factory=dict)
    avoid: Mapping[str, Expression] = field(default_factory=dict)
    write_as: str | None = None


@dataclass(frozen=True)
class Constant:
    """What a dialect's config always holds, where a condition on the hyperparameters holds."""

    value: Any
    when: Expression


@dataclass(frozen=True)
class Caution:
    """What a user has to be told of a framework, where a condition on the hyperparameters holds."""

    when: Expression
    say: str


@dataclass(frozen=True)
class MergedDict:
    """One dict that a framework makes of several places of its config, under a name that fields can read.

    It is the first of `first` that holds anything, whole, or else `base`; the dicts in `update` overwrite its
    entries; `fill` names the fields whose values stand in for entries that are left out. `kind` are the
    entries that say what kind of dict it is, in order of precedence, and `keys` the entries that each kind
    reads: the framework passes over those of another kind, and none may be of no kind. `over` names the
    fields that go before an entry, where the kind reads it.
    """

    first: tuple[str, ...]
    base: Mapping[str, Any]
    update: tuple[str, ...]
    fill: Mapping[str, str]
    kind: tuple[str, ...]
    keys: Mapping[str, tuple[str, ...]]
    over: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfigTable:
    """A dialect's config: its file, how the family is recognised in it, and its fields.

    `section` is the part of the file that the fields stand in. With `optional`, weights that `recognise`
    holds for may come without a config; `borrow` names dialects whose config may stand in for it. Weights
    without a config are taken to have what is `published`, where their shapes do not say. `require` gives the
    values of a field that the family covers, None for any. `merge` makes one dict of several; `caution` is
    what the framework does otherwise than its config says. In a `closed` section, what the table does not
    know is refused. `outer` are fields that stand beside the section and go before its own, which are read
    where the outer one is left out ("inner") or never ("ignore").
    `left_out` is what the framework takes a field of `require` to be that a config leaves out.
    """

    file: str | None
    match: Mapping[str, Any]
    fields: Mapping[str, FieldEntry]
    write: Mapping[str, tuple[Any, Where]]
    require: Mapping[str, tuple[Any, ...] | None]
    known: tuple[str, ...]
    float32: bool = False
    section: str | None = None
    optional: bool = False
    recognise: Expression | None = None
    borrow: tuple[str, ...] = ()
    published: Mapping[str, tuple[Any, Where]] = field(default_factory=dict)
    merge: Mapping[str, MergedDict] = field(default_factory=dict)
    outer: Mapping[str, str] = field(default_factory=dict)
    caution: Mapping[str, Caution] = field(default_factory=dict)
    closed: tuple[str, ...] = ()
    left_out: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Files:
    """What a directory of this dialect is made of. `tokenizer` names the flavour of tokenizer files.

    `torch` is the name of the torch zip file that the framework reads as well, if it does, and `wrap` the
    key that its state dict stands under.
    """

    weights: str | None = None
    container: str = "safetensors"
    sharded: bool = False
    tokenizer: str = "hf"
    writable: bool = True
    torch: str | None = None
    wrap: str | None = None

    @property
    def readable(self) -> tuple[str, ...]:
        """The containers in which tensors of this dialect are found."""
        return _READABLE.get(self.container, (self.container,))


# The same tensors under the same names are found in containers besides the dialect's own.
_READABLE = {
    "safetensors": ("safetensors", "torch"),
    "torch": ("torch", "safetensors"),
    "orbax": ("orbax", "safetensors"),
}


@dataclass(frozen=True)
class Dialect:
    """One dialect of one family. `beyond` are shell patterns of tensors that the family has no words for;
    `passed_over` of those that its framework passes over when it loads a model.

    A `shared` one is a dialect of every family with these canonical tensors. Where several families could
    express a checkpoint, those that a table names under `after` come before it. `example` gives sizes.
    `no_dialect` says of frameworks that have no model of this family why the family is not in their dialects.
    `known` are hyperparameters that all models of the family share, whatever this dialect could say.
    `models` are the family's releases, as people call them; said in its table for Hugging Face.
    `axes` are sizes of axes that only blocks of zeros run over: what this dialect stores behind a weight.
    """

    family: str
    name: str
    title: str
    rules: tuple[Rule, ...]
    ignore: tuple[Pattern, ...]
    prefixes: tuple[tuple[str, str], ...]
    config: ConfigTable
    files: Files
    targets: Mapping[str, str] = field(default_factory=dict)
    path: Path = Path()
    digest: str = ""
    passed_over: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    shared: bool = False
    after: tuple[str, ...] = ()
    no_dialect: Mapping[str, str] = field(default_factory=dict)
    known: Mapping[str, Any] = field(default_factory=dict)
    example: Mapping[str, Any] = field(default_factory=dict)
    axes: Mapping[str, Expression] = field(default_factory=dict)
    models: str = ""

    @property
    def written(self) -> bool:
        """Whether porter writes this dialect, and not only reads it."""
        return self.files.writable and self.files.weights is not None
