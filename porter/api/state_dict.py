"""`porter.load_state_dict`: a checkpoint's weights in another dialect, with no file written.

Renamed and split tensors are views of the memory-mapped source; only fused, cast, dequantised or
operated-on tensors are copied, one at a time. Mappings are private: writing to a tensor changes the
process's own page and never the file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from porter.api.convert import prepare
from porter.api.opening import open_source
from porter.containers.base import StoredTensor
from porter.containers.orbax.orbax_arrays import exported
from porter.containers.paths import locate
from porter.errors import DifferenceError, MalformedError, UnsupportedError
from porter.execution.checks import padding_error
from porter.layout import elements
from porter.planning.plan import COMPUTE, Copy, Plan

if TYPE_CHECKING:
    import torch


def load_state_dict(
    source: str | Path | None = None,
    as_: str | None = None,
    *,
    dtype: str | torch.dtype = "keep",
    device: str | torch.device = "cpu",
    maps: str | Path | Sequence[str | Path] = (),
    config: str | Path | None = None,
    source_dialect: str | None = None,
) -> dict[str, torch.Tensor]:
    """A checkpoint's state dict in the dialect `as_` (default: its own), for `load_state_dict(assign=True)`.

    Tied weights are there under both names and share their memory. `dtype` is keep, bfloat16, float16 or
    float32. Raises PorterError as `porter.convert` does; nothing is written.
    """
    identity = open_source(source, maps=maps, config=config, dialect=source_dialect).identified()
    as_ = as_ or identity.dialect.name
    ties = identity.family.dialect(as_).config.fields.get("tie_embeddings")
    # Sharing costs no memory; but where the framework ties in code, it has no name for the second copy.
    tied = None if ties is not None and ties.has_fixed else "write"
    prepared = prepare(
        source,
        to=as_,
        dtype=dtype,
        tied=tied,
        maps=maps,
        config=config,
        source_dialect=source_dialect,
        weights_only=True,
    )
    plan = prepared.plan
    root = prepared.opened.checkpoint.root
    # What is mapped stays readable when its file is gone.
    with exported(root, plan.sources, Path(tempfile.gettempdir())) as arrays:
        return _load(_Loader(plan, root, arrays), plan, device)


def _load(loader: _Loader, plan: Plan, device: str | torch.device) -> dict[str, torch.Tensor]:
    loader.check()
    tensors = {}
    shared: dict[tuple[Any, ...], torch.Tensor] = {}
    by_target: dict[str, list[Copy]] = {tensor.name: [] for tensor in plan.targets()}
    for copy in plan.copies:
        by_target[copy.target].append(copy)
    for target in plan.targets():
        copies = by_target[target.name]
        key = (target.shape, target.dtype.name, *(_identity(copy) for copy in copies))
        if key not in shared:
            shared[key] = loader.tensor(target, copies).to(device)
        tensors[target.name] = shared[key]
    return tensors


def _identity(copy: Copy) -> tuple[Any, ...]:
    """What makes two targets the same bytes: then they share one tensor, as tied weights do."""
    return (copy.source, copy.source_offset, copy.target_offset, copy.loops, copy.operations)


class _Loader:
    """Source tensors as memory-mapped torch tensors, and the targets made of them."""

    def __init__(self, plan: Plan, root: Path, arrays: Mapping[str, Path]) -> None:
        import torch

        self.torch = torch
        self.plan = plan
        self._arrays = arrays
        self._files: dict[str, torch.Tensor] = {}
        self._open = partial(self._map, root)

    def check(self) -> None:
        """Tied copies that are both stored must be equal. Raises DifferenceError."""
        for check in self.plan.checks:
            kept, dropped = (
                self._source(self.plan.source_by_name[name]) for name in (check.kept, check.dropped)
            )
            same = self.torch.equal(kept.view(self.torch.uint8), dropped.view(self.torch.uint8))
            if not same:
                raise DifferenceError(f"{check.dropped} differs from {check.kept}", cause=check.reason)
        for padding in self.plan.cropped:
            stored = self._source(self.plan.source_by_name[padding.tensor])
            if stored.flatten()[-padding.elements :].any():
                raise padding_error(padding.tensor, padding.elements // stored[0].numel())

    def tensor(self, target: StoredTensor, copies: Sequence[Copy]) -> torch.Tensor:
        """One target tensor: a view where one source range is all of it, else a copy."""
        if len(copies) == 1 and copies[0].copy_class != COMPUTE:
            view = self._view(target, copies[0])
            if view is not None:
                return view
        # Rows that no copy fills are padding.
        made = self.torch.zeros(target.shape, dtype=self._dtype(target))
        for copy in copies:
            values = self._values(copy)
            sizes = [loop.size for loop in copy.loops]
            # as_strided counts from the start of the storage, which is the whole mapped file.
            start = values.storage_offset() + copy.source_offset
            piece = values.as_strided(sizes, [loop.source_stride for loop in copy.loops], start)
            strides = [loop.target_stride for loop in copy.loops]
            made.as_strided(sizes, strides, copy.target_offset).copy_(piece)
        return made

    def _view(self, target: StoredTensor, copy: Copy) -> torch.Tensor | None:
        loops = copy.loops
        if len(loops) > 1 or (loops and (loops[0].source_stride, loops[0].target_stride) != (1, 1)):
            return None
        if elements(loops) != target.elements:
            return None
        source = self._source(self.plan.source_by_name[copy.source])
        return source.flatten()[copy.source_offset : copy.source_offset + target.elements].view(target.shape)

    def _values(self, copy: Copy) -> torch.Tensor:
        """The source's values, flat, with the copy's operations done in float32."""
        values = self._source(self.plan.source_by_name[copy.source]).flatten()
        for operation in copy.operations:
            values = values.float()
            values = values + operation.value if operation.kind == "add" else values * operation.value
        return values

    def _source(self, tensor: StoredTensor) -> torch.Tensor:
        raw = self._open(tensor.file)[tensor.offset : tensor.offset + tensor.nbytes]
        if len(raw) != tensor.nbytes:
            raise MalformedError(f"{tensor.file} ends inside {tensor.name!r}")
        if tensor.scales is not None:
            factors = self._source(self.plan.source_by_name[tensor.scales]).float()
            whole = raw.view(self.torch.int8).view(tensor.shape).float()
            return whole * factors.view(-1, *[1] * (len(tensor.shape) - 1))
        if tensor.dtype.quantised:
            return self._dequantised(tensor, raw)
        if tensor.offset % tensor.dtype.itemsize:
            raw = raw.clone()
        return raw.view(self._dtype(tensor)).view(tensor.shape)

    def _dequantised(self, tensor: StoredTensor, raw: torch.Tensor) -> torch.Tensor:
        try:
            from gguf import GGMLQuantizationType, quants
        except ImportError:
            raise UnsupportedError(
                f"{tensor.name} is quantised ({tensor.dtype.name})", hint="pip install 'weight-porter[gguf]'"
            ) from None
        kind = GGMLQuantizationType[tensor.dtype.name]
        rows = raw.view(-1, tensor.dtype.nbytes(tensor.shape[-1])).numpy()
        values = quants.dequantize(rows, kind)
        return self.torch.from_numpy(values).view(tensor.shape)

    def _dtype(self, tensor: StoredTensor) -> torch.dtype:
        name = tensor.dtype.torch
        if name is None or not hasattr(self.torch, name):
            raise UnsupportedError(f"torch has no dtype for {tensor.name!r}", cause=tensor.dtype.name)
        found: torch.dtype = getattr(self.torch, name)
        return found

    def _map(self, root: Path, file: str) -> torch.Tensor:
        if file not in self._files:
            path = self._arrays.get(file) or locate(root, file)
            self._files[file] = self.torch.from_file(
                str(path), shared=False, size=path.stat().st_size, dtype=self.torch.uint8
            )
        return self._files[file]
