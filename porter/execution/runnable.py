"""What a run would be refused for on its way, found out from its plan: blocks that cannot be shared where
they have to be, values that cannot be computed with what is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from porter.errors import UnsupportedError, UsageError
from porter.execution.run_options import ALWAYS, RunOptions
from porter.planning.plan import COMPUTE, Plan, groups_of
from porter.planning.sharing import shared_range
from porter.wording import at_command_line, flag, option


def check_values(plan: Plan) -> None:
    """Raises UnsupportedError for values that nothing here computes with; the kernels would say the same."""
    if not plan.classes.get(COMPUTE):
        return
    # This imports NumPy, which what only moves bytes does without.
    from porter.values.encodings import encoding_of

    for group in groups_of(plan.copies):
        for part in group.parts:
            if part.copy_class != COMPUTE:
                continue
            # All tensors of a group are of one dtype.
            for name, dtype in (
                (part.sources[0], plan.source_by_name[part.sources[0]].dtype),
                (group.targets[0], plan.target_by_name[group.targets[0]].dtype),
            ):
                if (encoding := encoding_of(dtype)) is not None:
                    encoding.require(dtype)
                elif not dtype.torch or dtype.kind == "complex":
                    raise UnsupportedError(f"{name}: cannot compute with {dtype.name}")


def check_far(near: bool, options: RunOptions) -> None:
    """Raises UsageError where blocks have to be shared with a source that is elsewhere."""
    if not near and options.reflink == ALWAYS:
        raise UsageError(
            f"{option('reflink', ALWAYS)} cannot share blocks with a source that is not on this machine",
            hint="download it first"
            + (f" ({flag('keep-source')})" if at_command_line() else "")
            + f", or leave out {option('reflink')}",
        )


def check_blocks(plan: Plan, place: Path, sources: Sequence[Path], able: bool) -> None:
    """Raises UnsupportedError where a file of the output, below `place`, cannot share one block with a
    source. `able` says whether files there can share blocks at all.
    """
    here = place.stat().st_dev
    away = next((path for path in sources if path.stat().st_dev != here), None)
    cause = None
    if away is not None:
        cause = f"{away} is on another file system than {place}"
    elif not able:
        cause = f"the file system of {place} shares no blocks"
    if cause is None and (alone := _without_blocks(plan)):
        cause = f"no whole block of {alone} lies at the same place in a source file"
    if cause is not None:
        raise UnsupportedError(
            "the output cannot share blocks with the source",
            cause=cause,
            hint=f"leave out {option('reflink', ALWAYS)}, and the bytes are copied",
        )


def _without_blocks(plan: Plan) -> str | None:
    """The first file of the output that could share nothing."""
    able = {
        plan.target_by_name[copy.target].file
        for copy in plan.copies
        if shared_range(copy, plan.source_by_name[copy.source], plan.target_by_name[copy.target])
    }
    return next((file.name for file in plan.files if file.name not in able), None)
