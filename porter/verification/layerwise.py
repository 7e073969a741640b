"""A model that runs one layer at a time: its own code, its weights from disk, one block of them in memory.

The module is built without memory. The weights of a block are put in its place when it is called and taken
out when it returns, by wrapping the call; the forward pass itself is the framework's own, whatever it does
between the blocks. Of embeddings only the rows of the ids at hand are held, and of the head one range of the
vocabulary at a time: for every further range the same forward runs again with blocks that return what they
returned before, so that what the model does to its logits behind the head (soft-caps, scales) is its own too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from porter.errors import DifferenceError, UnsupportedError
from porter.execution.buffers import LARGE
from porter.system import anonymous_memory

# What stands between two blocks, as it passes by: before the first one, behind each, and before the head.
Seen = Callable[[str, Tensor], None]


class Weights(Protocol):
    """Where weights come from; `release` lets go of what was made, and of the pages that were mapped."""

    def __getitem__(self, name: str) -> Tensor: ...
    def __contains__(self, name: object) -> bool: ...
    def release(self) -> None: ...


class LayeredModel(Protocol):
    """`title` says whose code it is; `layers` is the number of blocks, `rows` that of the head."""

    title: str
    layers: int
    rows: int

    def hidden(self, ids: Tensor, seen: Seen) -> None:
        """Runs ids (T,) through all blocks, and tells `seen` each state (…, T, D) with its name."""
        ...

    def logits(self, start: int, end: int) -> Tensor:
        """(T, end - start) for the ids of the last `hidden`, of a range of the vocabulary."""
        ...


def copied(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight in memory of its own, so that no page stays mapped because of it.

    Large ones are taken from the system and go back to it at once: what malloc is given back of some
    megabytes a piece it keeps, in holes that the next layer's do not fit.
    """
    if not weight.is_floating_point():
        return weight.clone()
    nbytes = weight.numel() * dtype.itemsize
    if nbytes < LARGE:
        return weight.to(dtype, copy=True)
    room = torch.frombuffer(anonymous_memory(nbytes), dtype=dtype).view(weight.shape)
    return room.copy_(weight)


class WeightsOnMeta(TorchFunctionMode):
    """Inside, what weights are made with takes no memory. Rotary frequencies and scales, which are computed,
    are real: they are stored nowhere and could not be put in their place later. Of zeros and ones only large
    ones are no such parts (Gemma 4 pads its frequencies with zeros)."""

    MADE = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)
    FILLED, PART = (torch.zeros, torch.ones), 1 << 16

    def __torch_function__(
        self, func: Any, types: Iterable[Any], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in self.MADE or kwargs.get("device") is not None:
            return func(*args, **kwargs)
        made = func(*args, **{**kwargs, "device": "meta"})
        part = func in self.FILLED and made.numel() <= self.PART
        return func(*args, **kwargs) if part else made


class LayeredModule:
    """A `torch.nn.Module` as a `LayeredModel`.

    `weights` has the rows of embeddings and head under their names in the module. `fetch(names)` gives other
    parameters and stored buffers by theirs, in `dtype` and in memory of their own. `call` runs the model on
    ids (1, T) and returns logits.
    """

    def __init__(
        self,
        title: str,
        model: nn.Module,
        *,
        blocks: nn.ModuleList,
        embedding: nn.Module,
        head: nn.Linear,
        weights: Weights,
        fetch: Callable[[Sequence[str]], Mapping[str, Tensor]],
        call: Callable[[Tensor], Tensor],
        dtype: torch.dtype,
    ) -> None:
        self.title, self.layers = title, len(blocks)
        self._model, self._blocks, self._head = model.eval(), blocks, head
        self._weights, self._fetch, self._call, self._dtype = weights, fetch, call, dtype
        self._names = {id(module): name for name, module in model.named_modules()}
        name = f"{self._names[id(head)]}.weight"
        # A tied head is not stored.
        self._head_name = name if name in weights else f"{self._names[id(embedding)]}.weight"
        self.rows = head.out_features
        self._ids = torch.empty(0, dtype=torch.long)
        self._returned: Any = None
        self._looked_up: dict[int, tuple[Tensor, Tensor, nn.Parameter]] = {}
        self._table: Tensor | None = None

    def hidden(self, ids: Tensor, seen: Seen) -> None:
        self._ids, self._looked_up = ids, {}
        with ExitStack() as stack:
            for number, block in enumerate(self._blocks):
                stack.enter_context(self._layer(number, block, seen))
            before_head = self._head.register_forward_pre_hook(
                lambda _, args: seen("final norm", args[0].detach())
            )
            stack.callback(before_head.remove)
            self._outside(stack)
            # The head's input is what is wanted: one row of zeros stands for the head.
            self._run_with(torch.zeros(1, self._head.in_features, dtype=self._dtype), 0, 1)

    def logits(self, start: int, end: int) -> Tensor:
        with ExitStack() as stack:
            for block in self._blocks:
                own = block.forward
                block.forward = lambda *args, **kwargs: self._returned
                stack.callback(setattr, block, "forward", own)
            self._outside(stack)
            if self._table is None:
                # Where it is no view, making it again for each range would take longer than all else.
                self._table = self._weights[self._head_name]
            return self._run_with(copied(self._table[start:end], self._dtype), start, end)

    def _run_with(self, rows: Tensor, start: int, end: int) -> Tensor:
        self._head.weight = nn.Parameter(rows, requires_grad=False)
        if self._head.bias is not None:
            (bias,) = self._fetch([f"{self._names[id(self._head)]}.bias"]).values()
            self._head.bias = nn.Parameter(bias[start:end], requires_grad=False)
        self._weights.release()
        with torch.inference_mode():
            return self._call(self._ids[None])[0]

    @contextmanager
    def _layer(self, number: int, block: nn.Module, seen: Seen) -> Any:
        """The block holds its weights while it runs, and tells what it is given and what it returns."""

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            if number == 0:
                seen("embedding", (args[0] if args else kwargs["hidden_states"]).detach())
            self._fill(module)

        def after(module: nn.Module, args: Any, returned: Any) -> None:
            self._empty(module)
            # Of all that is returned, the last is what stands behind the blocks.
            self._returned = returned
            state = returned[0] if isinstance(returned, tuple) else returned
            seen(f"layer {number}", state.detach())

        hooks = (
            block.register_forward_pre_hook(before, with_kwargs=True),
            block.register_forward_hook(after),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _outside(self, stack: ExitStack) -> None:
        """What is no block and no head: rows of embeddings for the ids that come, and the last norm."""
        inside = {id(module) for block in self._blocks for module in block.modules()} | {id(self._head)}
        for module in self._model.modules():
            if id(module) in inside or not (module._parameters or module._buffers):
                continue
            if isinstance(module, nn.Embedding):
                hook = module.register_forward_pre_hook(self._rows)
                stack.callback(hook.remove)
            else:
                self._fill(module, recurse=False)
        self._weights.release()

    def _rows(self, module: Any, args: Any) -> Any:
        known = self._looked_up.get(id(module))
        if known is None or not torch.equal(known[0], args[0]):
            used, places = torch.unique(args[0], return_inverse=True)
            rows = self._weights[f"{self._names[id(module)]}.weight"][used].to(self._dtype)
            self._weights.release()
            known = (args[0], places, nn.Parameter(rows, requires_grad=False))
            self._looked_up[id(module)] = known
        module.weight = known[2]
        # Of no effect but on gradients, and out of the range of what is there now.
        module.padding_idx = None
        return (known[1], *args[1:])

    def _stored(self, module: nn.Module, recurse: bool) -> list[tuple[nn.Module, str, str]]:
        """Parameters and buffers of the state dict: where they are, and under which name."""
        found = []
        for part in module.modules() if recurse else (module,):
            own = [*part._parameters, *(set(part._buffers) - part._non_persistent_buffers_set)]
            values = {**part._parameters, **part._buffers}
            prefix = self._names[id(part)]
            found += [(part, key, f"{prefix}.{key}") for key in own if values[key] is not None]
        return found

    def _fill(self, module: nn.Module, recurse: bool = True) -> None:
        places = self._stored(module, recurse)
        values = self._fetch([name for _, _, name in places])
        for part, key, name in places:
            value = values[name]
            expected = getattr(part, key).shape
            if value.shape != expected:
                raise DifferenceError(
                    f"{name} does not fit the model that the config describes",
                    cause=f"expected the shape {list(expected)}, found {list(value.shape)}",
                )
            if key in part._parameters:
                part._parameters[key] = nn.Parameter(value, requires_grad=False)
            else:
                part._buffers[key] = value
        del values
        self._weights.release()

    def _empty(self, module: nn.Module) -> None:
        for part, key, _ in self._stored(module, True):
            held: Any = part._parameters if key in part._parameters else part._buffers
            meta = held[key].detach().to("meta")
            held[key] = nn.Parameter(meta, requires_grad=False) if key in part._parameters else meta


def require_values(model: nn.Module, title: str) -> None:
    """Raises UnsupportedError where a buffer that is not stored has no value."""
    stored = model.state_dict().keys()
    lost = [name for name, held in model.named_buffers() if held.is_meta and name not in stored]
    if lost:
        raise UnsupportedError(f"{title}: {lost[0]} is computed in a way that cannot be repeated here")
