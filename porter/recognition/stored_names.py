"""Which rule a stored name fits, and what wrappers have put before all of a checkpoint's names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache

from porter.containers.checkpoint import Checkpoint
from porter.errors import MalformedError
from porter.tables.model import Dialect
from porter.tables.patterns import Pattern, Spelling, plainly_numbered, taken_apart, templates


class NameMatcher:
    """Finds the rule that a stored name fits, trying the dialect's alternative prefixes last.

    `wrapper` is what stands before all of a checkpoint's names: an attribute of the module around the model.
    """

    def __init__(self, dialect: Dialect, wrapper: str = "") -> None:
        self.wrapper = wrapper
        # By template: the form of a name, and the rule's own pattern where the name is another one for it.
        self._forms: dict[str, list[tuple[Spelling, Pattern | None]]] = {}
        for rule in dialect.rules:
            for pattern in (rule.theirs, *rule.also, *([rule.scale_by] if rule.scale_by else [])):
                for form in pattern.spellings:
                    respelled = rule.theirs if pattern in rule.also else None
                    self._forms.setdefault(form.template, []).append((form, respelled))
        self._prefixes = dialect.prefixes
        self._ignored: dict[str, list[Pattern]] = {}
        for pattern in dialect.ignore:
            for form in pattern.spellings:
                self._ignored.setdefault(form.template, []).append(pattern)

    @cached_property
    def _free(self) -> frozenset[str]:
        """The templates of which every plainly numbered name is one that the table spells so itself."""
        return frozenset(
            template
            for template, ((form, respelled), *_) in self._forms.items()
            if form.free and respelled is None
        )

    def all_spelled(self, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Those names that a rule fits, each with how the table spells it."""
        keys: Sequence[str] = _templates(tuple(names)) or [""] * len(names)
        around = templates((self.wrapper,))[0]
        inner = {key: key.removeprefix(around) for key in set(keys)}
        unknown = {key for key, template in inner.items() if key and not self._may_fit(template)}
        free = {key for key, template in inner.items() if template in self._free}
        for name, key in zip(names, keys, strict=True):
            if key in unknown:
                continue
            spelled = self.bare(name) if key in free else self.spelled(name)
            if spelled is not None:
                yield name, spelled

    def _may_fit(self, template: str) -> bool:
        """Whether a name of this template may fit a rule, under whichever prefix."""
        if any(digit in theirs for _, theirs in self._prefixes for digit in "0123456789"):
            return True
        return any(form in self._forms for form in self._prefixed(template))

    def spelled(self, name: str) -> str | None:
        """The name as the table spells it, or None if no rule fits."""
        return next((found for form in self._forms_of(name) if (found := self._fits(form))), None)

    def ignored(self, name: str) -> bool:
        """Whether the dialect stores this tensor but it is no weight (a buffer, say)."""
        for form in self._forms_of(name) if self._ignored else ():
            template, digits = taken_apart(form)
            if any(p.matched(template, digits) is not None for p in self._ignored.get(template, ())):
                return True
        return False

    def bare(self, name: str) -> str:
        """The name without the wrapper."""
        return name.removeprefix(self.wrapper)

    def _forms_of(self, name: str) -> Iterator[str]:
        """A name as it may stand in the table: without the wrapper, then under the other prefixes."""
        yield from self._prefixed(self.bare(name))

    def _prefixed(self, name: str) -> Iterator[str]:
        yield name
        for ours, theirs in self._prefixes:
            if name.startswith(theirs):
                yield ours + name[len(theirs) :]

    def _fits(self, name: str) -> str | None:
        template, digits = taken_apart(name)
        for form, respelled in self._forms.get(template, ()):
            values = form.match(digits)
            if values is not None:
                return respelled.format(values) if respelled else name
        return None


# Of one checkpoint every table asks.
@lru_cache(maxsize=1)
def _templates(names: tuple[str, ...]) -> list[str] | None:
    """The template of each name, or None where a name has numbers that no variable stands for."""
    return templates(names) if plainly_numbered(names) else None


# Parts of a name that may stand around a model: `base_model.model.`, `lightning_module.network.model.`.
_DEEPEST_WRAPPER = 3


def known_names(checkpoint: Checkpoint, dialect: Dialect) -> tuple[str, dict[str, str]]:
    """What stands before all names, and the tensors that are known by the table's names.

    Something is taken for a wrapper only where more names are known without it.
    """
    best: tuple[str, dict[str, str]] = ("", {})
    for wrapper in _wrappers(checkpoint.tensors):
        names = _matched(checkpoint, NameMatcher(dialect, wrapper))
        if len(names) > len(best[1]):
            best = wrapper, names
        if len(names) == len(checkpoint.tensors):
            break
    return best


def _wrappers(names: Iterable[str]) -> Iterator[str]:
    """Beginnings that all names share, the shortest first; none comes before them."""
    yield ""
    every = list(names)
    if not every:
        return
    low, high = min(every), max(every)
    end = 0
    for _ in range(_DEEPEST_WRAPPER):
        ends = [at + 1 for at in (low.find(".", end), low.find("/", end)) if at >= 0]
        if not ends or not high.startswith(low[: min(ends)]):
            return
        end = min(ends)
        yield low[:end]


def _matched(checkpoint: Checkpoint, matcher: NameMatcher) -> dict[str, str]:
    names = dict(matcher.all_spelled(list(checkpoint.tensors)))
    taken: dict[str, str] = {}
    for name, spelled in names.items() if len(set(names.values())) < len(names) else ():
        if spelled in taken:
            raise MalformedError(
                f"two tensors of {checkpoint.label} are sources for one target",
                cause=f"{taken[spelled]!r} and {name!r} both stand for {spelled!r}",
            )
        taken[spelled] = name
    return names


def first_names(names: Iterable[str]) -> str:
    """A few of them, for errors."""
    return ", ".join(repr(name) for _, name in zip(range(3), names, strict=False))
