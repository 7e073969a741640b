"""`porter.verify`: is a checkpoint a right port of another, whoever made it, and where not, what is wrong?"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

from porter.api.compare_logits import compare_logits
from porter.api.opening import open_source, open_weights
from porter.containers.array_files import overlaid
from porter.containers.array_names import ARRAY
from porter.errors import PorterError, UnsupportedError, UsageError
from porter.execution.open_files import OpenFiles
from porter.execution.sinks.compare import Differing
from porter.execution.watch import Watch
from porter.planning.arguments import as_list, as_paths, unused_patterns
from porter.planning.port_plan import PortPlan, plan_port
from porter.planning.summary import operation_notes
from porter.recognition.identify import Identity
from porter.recognition.idle_weights import as_computed
from porter.recognition.port_dialect import (
    recognise_out,
    recognise_port,
    spoken_words,
    under_another_name,
)
from porter.sources.base import Source
from porter.verification.compare_configs import compare_configs, name_config_mistakes
from porter.verification.compare_tokenizers import compare_tokenizers
from porter.verification.compare_weights import compare_weights, weights_verdict
from porter.verification.conclude import another_architecture, conclude, with_logits
from porter.verification.diagnose import Diagnosis, diagnose, open_sides, sampled_differences
from porter.verification.known_mistakes import known_mistakes
from porter.verification.stored_ties import TIED, as_tied, holds_ties, may_be_tied
from porter.verification.tokenizer_settings import setting_notes
from porter.verification.verdict import Verdict
from porter.wording import flag, option, renamed

# Notes: why an untied original was taken for a tied one, and what is not done from afar.
OWN_HEAD = "the original's config ties the head to the embedding, and it stores two that differ; both count"
EQUAL_HEAD = "the original's config does not tie the head to the embedding, and both hold the same values"
FAR = "what was done wrong is looked for in files on this machine alone: porter download the two first"


def verify(
    source: str | Path | Source,
    out: str | Path | Source,
    *,
    maps: str | Path | Sequence[str | Path] = (),
    config: str | Path | None = None,
    source_dialect: str | None = None,
    out_dialect: str | None = None,
    family: str | None = None,
    key: str | None = None,
    out_key: str | None = None,
    allow_unmapped: str | Sequence[str] = (),
    quick: bool = False,
    logits: Literal["float32", "bfloat16"] | None = None,
    watch: Watch | None = None,
) -> Verdict:
    """Compare a port with its original: weights, config and tokenizer, each in any dialect and container.

    What `out` should hold is planned from `source` as a conversion would be; `out`'s own config does not
    decide what it is. Every element is compared: with the same bits, or, where `out` has another dtype, with
    the one correct rounding. `out_dialect` says which dialect `out` is in, where names and shapes do not;
    `config`, `source_dialect`, `family` and `key` tell of `source` what `porter.convert` takes for it, and
    `allow_unmapped` which of its tensors are not compared. With `quick` a thousand elements of each weight
    are looked at, which misses a single value or row. Where something differs, known mistakes are tried:
    those of porter's table, and of a `_mistakes.toml` in a folder of `maps`. Nothing is written. `logits` is
    the dtype that both are run in besides, each in the code of its own framework (see
    `porter.compare_logits`; this loads torch). Either may be far away, on the Hub or in a bucket: then all is
    compared, and no mistakes are looked for.

    Raises PorterError where `source` cannot be read, or `out` is nothing that could be compared with it.

    >>> done = porter.convert("gemma-2b/", "out/", to="litgpt")
    >>> verdict = porter.verify("gemma-2b/", "out/")
    >>> verdict.right, verdict.weights.outcome
    (True, 'equal')
    """
    watch = watch or Watch()
    opened = open_source(
        source, maps=maps, config=config, dialect=source_dialect, remote="bytes", key=key, family=family
    )
    identity = as_computed(opened.identified())
    with renamed({"from": "as", "key": "out-key"}):
        name, found = open_weights(out, opened.families, dialect=out_dialect, remote="bytes", key=out_key)
        port = recognise_out(found, identity, opened.families, out_dialect)
    named: tuple[str, ...] = ()
    if isinstance(port, Identity):
        as_other = under_another_name(found, identity, port)
        if as_other is None:
            return another_architecture(opened.source, name, identity, port, logits is not None)
        named = (
            f"the original is {identity.family.name}, and compared as {port.family.name}, as OUT is called",
        )
        identity, port = as_other
    patterns = as_list(allow_unmapped, "allow_unmapped")
    planned = plan_port(opened.checkpoint, identity, found, port, patterns)
    original, there = opened.checkpoint.source, found.source
    if original is None or there is None:
        raise UnsupportedError("only the headers of a side were opened")
    near = original.near and there.near
    if quick and not near:
        raise UsageError(
            f"{flag('quick')} looks at single elements, of files on this machine", hint="leave it out"
        )
    folders = tuple(path for path in as_paths(maps, "maps") if path.is_dir())
    known = known_mistakes(folders)
    diagnosis = Diagnosis((), {}, {}, 0)
    extra: tuple[str, ...] = ()
    stated = identity
    with ExitStack() as stack:
        original = stack.enter_context(overlaid(original, planned.covered.tensors.values()))
        there = stack.enter_context(overlaid(there, found.tensors.values()))
        ours = stack.enter_context(OpenFiles(original, opened.checkpoint.sizes))
        theirs = stack.enter_context(OpenFiles(there, found.sizes))
        apart = identity.hyperparameters.get(TIED) and holds_ties(identity, planned, ours) is False
        if apart or may_be_tied(identity, planned):
            other = as_tied(identity, not apart)
            other_port = recognise_port(found, other, out_dialect)
            again = plan_port(opened.checkpoint, other, found, other_port, patterns)
            if apart or holds_ties(other, again, ours):
                identity, port, planned = other, other_port, again
                extra = (OWN_HEAD if apart else EQUAL_HEAD,)
        differing: Mapping[str, Differing] = {}
        lost: Mapping[str, Differing] = {}
        if not quick:
            differing, lost = compare_weights(planned, original, found, theirs, watch)
        wrong = bool(differing or planned.missing or planned.misfits)
        if wrong and not near:
            extra = (*extra, FAR)
        elif wrong or quick:
            sides = open_sides(planned, ours, theirs, opened.checkpoint.tensors, found.tensors)
            stack.callback(sides.close)
            if quick:
                differing = sampled_differences(sides)
            diagnosis = diagnose(planned, sides, differing, known, found.tensors, lost, quick=quick)
        for side, files in ((original, opened.checkpoint.sizes), (there, found.sizes)):
            side.check(file for file in files if not file.startswith(ARRAY))
    head = _head_stands(planned, differing)
    spoken = spoken_words(found, identity, port, opened.families)
    configs, notes = compare_configs(identity, found, port, head, spoken)
    if apart and configs.outcome == "differs":
        # The port's config may say of the two what the original's does.
        as_stated = compare_configs(stated, found, port, head, spoken)
        if as_stated[0].outcome == "equal":
            configs, notes = as_stated
    configs, config_mistakes = name_config_mistakes(configs, known.configs)
    unused = unused_patterns(patterns, opened.checkpoint.tensors)
    if unused:
        notes += (f"{option('allow-unmapped')} fits no tensor: {', '.join(map(repr, unused))}",)
    verdict = conclude(
        source=opened.source,
        out=name,
        family=identity.family.name,
        source_dialect=identity.dialect.name,
        out_dialect=port.dialect.name,
        weights=weights_verdict(planned, differing, diagnosis, quick),
        config=configs,
        tokenizer=compare_tokenizers(opened.checkpoint, found),
        mistakes=(*diagnosis.mistakes, *config_mistakes),
        notes=(
            *identity.notes,
            *planned.notes,
            *found.remarks,
            *operation_notes(planned.plan.copies),
            *notes,
            *setting_notes(opened.checkpoint.files, found.files),
            *named,
            *extra,
        ),
        quick=quick,
    )
    if logits is None:
        return verdict
    try:
        compared = compare_logits(
            source,
            out,
            dtype=logits,
            maps=maps,
            config=config,
            source_dialect=source_dialect,
            out_dialect=out_dialect,
            family=family,
            key=key,
            out_key=out_key,
        )
    except PorterError as error:
        if verdict.right:
            raise
        # What is wrong is known already.
        note = f"the logits could not be compared: {error.message}"
        return replace(verdict, notes=(*verdict.notes, note))
    return with_logits(verdict, compared)


def _head_stands(planned: PortPlan, differing: Container[str]) -> bool:
    """Whether the port stores a head of its own, and it holds what it should."""
    heads = [
        name
        for rule in planned.bound
        if any(block.canonical == "head" for block in rule.blocks)
        for name in rule.names
    ]
    return bool(heads) and not any(name in differing for name in heads)
