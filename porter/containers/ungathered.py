"""Folders that are no whole model: adapters, and the parts that distributed training leaves.

They are named as what they are, with the command that makes a checkpoint of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from porter.containers.storage_kinds import adapter_kind
from porter.errors import UnsupportedError
from porter.sources.weight_files import container_by_suffix
from porter.wording import option


def refuse_adapter(label: str, names: Sequence[str]) -> None:
    """Raises UnsupportedError for an adapter alone: it is a change to a model and not a model."""
    adapters = [name for name in names if adapter_kind(name) is not None]
    weights = [*adapters, *(name for name in names if container_by_suffix(name) and name not in adapters)]
    if not adapters:
        return
    if len(adapters) < len(weights):
        if "adapter_config.json" not in names:
            return
        whole = next(name for name in weights if name not in adapters)
        # transformers would load the base model that the adapter names, and the adapter on top of it.
        raise UnsupportedError(
            f"{label} holds a model and an adapter that is not merged into it",
            cause=f"{adapters[0]} beside {whole}: a model loaded from there has both",
            hint="merge it first: peft's merge_and_unload(), then save_pretrained(); or, to leave it out, "
            f"move {adapters[0]} and adapter_config.json away, or name {whole}",
        )
    name = adapters[0]
    kind = adapter_kind(name)
    assert kind is not None
    raise UnsupportedError(
        f"{label} is an adapter, not a whole model",
        cause=f"found {name}, which holds changes to the weights of another checkpoint",
        hint=kind.hint,
    )


def adapter_left_out(names: Sequence[str]) -> tuple[str, ...]:
    """What to say of a folder's adapter that is not read: a file of weights beside it was named, or nothing
    loads it."""
    found = [name for name in names if adapter_kind(name) is not None]
    if not found:
        return ()
    if "adapter_config.json" not in names:
        return (f"{found[0]} is an adapter, and left out",)
    return (f"{found[0]} is left out: transformers, of the whole folder, loads the model with it",)


def refuse_ungathered(root: Path) -> None:
    """Raises UnsupportedError for a folder of torch's distributed checkpoint, or of DeepSpeed's, whose parts
    have to be gathered first."""
    found = next(root.glob("*.distcp"), None) or next(root.glob("*/*.distcp"), None)
    if found is not None:
        folder = found.parent
        if (folder / "meta.pt").is_file():
            hint = f"fabric consolidate {folder}"
        else:
            hint = (
                f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} model.pt, "
                f"and convert model.pt with {option('config')}"
            )
        raise UnsupportedError(
            f"{root} is a distributed checkpoint of torch, in parts",
            cause=f"found {found.relative_to(root)}: each process wrote its own part of every tensor",
            hint=f"gather it first: {hint}",
        )
    part = next(root.glob("*_states.pt"), None) or next(root.glob("*/*_states.pt"), None)
    if part is not None or (root / "zero_to_fp32.py").is_file():
        # The script lies beside `latest`, above the folders of the steps.
        above = root.absolute().parent
        folder = above if (above / "zero_to_fp32.py").is_file() else root
        raise UnsupportedError(
            f"{root} is a checkpoint of DeepSpeed, in parts",
            cause=f"found {(part or root / 'zero_to_fp32.py').relative_to(root)}",
            hint=f"gather it first: python zero_to_fp32.py . OUT, in {folder} (the script is DeepSpeed's), "
            f"and convert OUT with {option('config')}",
        )
