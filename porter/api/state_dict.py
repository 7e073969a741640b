"""`porter.load_state_dict`: a checkpoint's weights in another dialect, with no file written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from porter.api.convert import prepare
from porter.api.opening import open_source
from porter.containers.array_files import overlaid
from porter.errors import UsageError
from porter.planning.plan import Plan
from porter.planning.plan_options import PlanOptions, Tied
from porter.sources.base import Source
from porter.wording import option

if TYPE_CHECKING:
    import torch

    from porter.execution.state_dict import StateDict


def load_state_dict(
    source: str | Path | Source | None = None,
    to: str | None = None,
    *,
    dtype: str | torch.dtype = "keep",
    device: str | torch.device = "cpu",
    maps: str | Path | Sequence[str | Path] = (),
    config: str | Path | None = None,
    source_dialect: str | None = None,
    key: str | None = None,
    tied: Tied | None = None,
    as_: str | None = None,
) -> Mapping[str, torch.Tensor]:
    """A checkpoint's state dict in the dialect `to` (default: its own), for `load_state_dict(assign=True)`.

    Each tensor is made when it is first asked for: renamed and split ones are views of the mapped source,
    fused, cast, dequantised and operated-on ones are made in memory. Mappings are private: writing to a
    tensor changes the process's own page and never the file. Tied weights are there under both names and
    share their memory. `torch.save` and `pickle` make an OrderedDict of all of it.

    `dtype` is keep, bfloat16, float16 or float32. A source whose tied weights differ is refused, unless
    `tied` is `untie`: for a model with a head of its own. `key` names a state dict of a torch file that holds
    several. Raises PorterError as `porter.convert` does; nothing is written.

    >>> state = porter.load_state_dict("gemma-2b/", to="litgpt")
    >>> state["transformer.h.0.attn.qkv.weight"].shape
    torch.Size([100, 66])
    """
    if as_ is not None:
        import warnings

        warnings.warn("porter.load_state_dict(as_=…) is called to=", DeprecationWarning, stacklevel=2)
        to = to or as_
    # What callers may pass is wider than what the options then hold.
    given: dict[str, Any] = {"dtype": dtype, "maps": maps, "config": config}
    device = _device(device)
    wanted = PlanOptions(**given, source_dialect=source_dialect, weights_only=True, key=key)
    identity = open_source(
        source, maps=wanted.maps, config=wanted.config, dialect=source_dialect, key=key
    ).identified()
    to = to or identity.dialect.name
    ties = identity.family.dialect(to).config.fields.get("tie_embeddings")
    if tied is None and not (ties is not None and ties.has_fixed):
        # Sharing costs no memory; but where the framework ties in code, it has no name for the second copy.
        tied = "write"
    prepared = prepare(source, wanted, to=to, tied=tied)
    return open_state_dict(prepared.plan, prepared.opened.checkpoint.source, device)


def open_state_dict(plan: Plan, source: Source | None, device: str | torch.device = "cpu") -> StateDict:
    """A plan's tensors. Arrays that are no ranges of a file are written out, until it is closed."""
    from porter.execution.state_dict import StateDict

    assert source is not None, "what is planned has a source"
    stack = ExitStack()
    source = stack.enter_context(overlaid(source, plan.sources))
    return StateDict(plan, source, device, stack)


def _device(device: str | torch.device) -> torch.device:
    """A device that tensors can be put on. Raises UsageError, before anything is read."""
    import torch

    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise UsageError(
            f"{option('device')} must be a device that torch has here, not {device!r:.80}",
            cause=str(error).split("\n", 1)[0][:200],
            hint='"cpu" is always there; `torch.cuda.is_available()` says whether a GPU is',
        ) from error
    return found
